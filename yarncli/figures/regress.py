"""The regression figure: what each conversion costs on texts within the old window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.errors import UsageError
from yarncli.evaluation.regress import Regression, RegressReport
from yarncli.evaluation.statistics import Interval
from yarncli.figures import OWN_LOOK, Look, literal
from yarncli.figures.lines import bars
from yarncli.figures.names import run_names
from yarncli.figures.saving import new_figure, save_figure
from yarncli.figures.styles import method_of, styles_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class _Cost:
    """A conversion to draw: its name, the method that gives its colour, and its numbers."""

    name: str
    method: str
    found: Regression


def plot_regress(reports: Sequence[RegressReport], path: Path, look: Look = OWN_LOOK) -> None:
    """Draw the KL, the change of perplexity and the agreement of every conversion.

    All numbers have their 95 % intervals.

    Raises:
        UsageError: there is nothing to draw, or too much.
        OutputError, MissingExtraError: as `save_figure`.
    """
    runs = [
        (report, name) for report in reports for name, found in report.divergences.items() if found
    ]
    names = run_names([(report.settings, name) for report, name in runs])
    costs = [
        _Cost(
            shown,
            method_of(name, report.settings["variants"].get(name)),
            report.regression(name),
        )
        for shown, (report, name) in zip(names, runs, strict=True)
    ]
    if not costs:
        raise UsageError("There are no results to draw yet.")
    lengths = {report.settings["length"] for report in reports}
    texts = f"texts of {', '.join(f'{n:,}' for n in sorted(lengths))} tokens"
    save_figure(lambda: _draw(costs, f"What the extension costs on {texts}"), path, look)


def _draw(costs: Sequence[_Cost], title: str) -> Figure:
    figure = new_figure(11, 1.9 + 0.42 * len(costs))
    panels: Any = figure.subplots(1, 3, sharey=True)
    panels[0].set_yticks(range(len(costs)), [literal(cost.name, 40) for cost in costs])
    panels[0].set_ylim(len(costs) - 0.5, -0.5)  # the first on top
    styles = styles_of([cost.method for cost in costs])
    numbers = [_numbers(cost.found) for cost in costs]
    labels = ("mean KL (nats per token)", "change of perplexity (%)", "same top token (%)")
    for column, (axes, label) in enumerate(zip(panels, labels, strict=True)):
        for row, (found, style) in enumerate(zip(numbers, styles, strict=True)):
            value, ends = found[column]
            axes.plot([value], [row], ms=8, **style.options)
            if ends is not None:
                axes.errorbar(
                    value, row, xerr=bars([(value, ends)]), fmt="none",
                    ecolor=style.colour, elinewidth=1.6, capsize=4,
                )  # fmt: skip
        axes.set(xlabel=label)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(alpha=0.25)
    panels[0].set_xlim(left=min(0, panels[0].get_xlim()[0]))
    panels[1].axvline(0, color="black", lw=0.8, zorder=0)
    panels[2].set_xlim(right=max(100.0, panels[2].get_xlim()[1]))
    figure.suptitle(literal(title), fontsize=13, fontweight="bold")
    return figure


def _numbers(found: Regression) -> list[tuple[float, Interval | None]]:
    """The number of each panel with its 95 % interval."""
    ratio, top1 = found.ratio, found.top1_interval
    return [
        (found.kl.value, found.kl.interval),
        (
            100 * (ratio.value - 1),
            ratio.interval and (100 * (ratio.interval[0] - 1), 100 * (ratio.interval[1] - 1)),
        ),
        (100 * found.top1_agreement, top1 and (100 * top1[0], 100 * top1[1])),
    ]
