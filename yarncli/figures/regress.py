"""The regression figure: what each conversion costs on texts within the old window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.errors import UsageError
from yarncli.evaluation.regress import Regression, RegressReport
from yarncli.figures import OWN_LOOK, Look, literal
from yarncli.figures.lines import COLOURS
from yarncli.figures.names import run_names
from yarncli.figures.saving import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_regress(reports: Sequence[RegressReport], path: Path, look: Look = OWN_LOOK) -> None:
    """Draw the KL, the agreement and the change of perplexity of every conversion.

    Raises:
        UsageError: there is nothing to draw.
        OutputError, MissingExtraError: as `save_figure`.
    """
    runs = [
        (report, name) for report in reports for name, found in report.divergences.items() if found
    ]
    names = run_names([(report.settings, name) for report, name in runs])
    costs = {
        shown: report.regression(name) for shown, (report, name) in zip(names, runs, strict=True)
    }
    if not costs:
        raise UsageError("There are no results to draw yet.")
    lengths = {report.settings["length"] for report in reports}
    texts = f"texts of {', '.join(f'{n:,}' for n in sorted(lengths))} tokens"
    save_figure(lambda: _draw(costs, f"What the extension costs on {texts}"), path, look)


def _draw(costs: dict[str, Regression], title: str) -> Figure:
    figure = new_figure(10.5, 1.9 + 0.42 * len(costs))
    panels: Any = figure.subplots(1, 3, sharey=True)
    names = [literal(name) for name in costs]
    rows = list(range(len(costs)))
    panels[0].set_yticks(rows, names)
    panels[0].invert_yaxis()
    kl = [(c.kl.value, c.kl.interval) for c in costs.values()]
    change = [
        (
            100 * (c.ratio.value - 1),
            c.ratio.interval and (100 * (c.ratio.interval[0] - 1), 100 * (c.ratio.interval[1] - 1)),
        )
        for c in costs.values()
    ]
    agreement: list[tuple[float, tuple[float, float] | None]] = [
        (100 * c.top1_agreement, None) for c in costs.values()
    ]
    labels = ("mean KL (nats per token)", "change of perplexity (%)", "same top token (%)")
    for axes, label, numbers in zip(panels, labels, (kl, change, agreement), strict=True):
        values = [value for value, _ in numbers]
        axes.barh(rows, values, height=0.55, color=COLOURS[0])
        for row, (value, ends) in zip(rows, numbers, strict=True):
            if ends is not None:
                axes.errorbar(
                    value, row, xerr=[[value - ends[0]], [ends[1] - value]], color="black",
                    elinewidth=1.2, capsize=3,
                )  # fmt: skip
        axes.set(xlabel=label)
        axes.grid(alpha=0.25, axis="x")
        axes.set_axisbelow(True)
        axes.axvline(0, color="black", lw=0.8)
    panels[2].set_xlim(0, 100)
    figure.suptitle(literal(title), fontsize=13, fontweight="bold")
    return figure
