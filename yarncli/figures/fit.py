"""The figure of a search: how far each setting is from the default, and perplexity over 1/√t."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.errors import UsageError
from yarncli.evaluation.candidates import DEFAULT, changes_of_name
from yarncli.evaluation.fit_report import FitReport, Part
from yarncli.figures import OWN_LOOK, Look, literal
from yarncli.figures.lines import Curve, bars
from yarncli.figures.names import check_number
from yarncli.figures.saving import new_figure, save_figure
from yarncli.figures.temperature import draw_temperature

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ENOUGH = 3  # points that a curve needs
_MOST_SETTINGS = 200
_PARTS: tuple[tuple[Part, str, str, float], ...] = (
    ("search", "o", "#888888", -0.13), ("held-out", "D", "#000000", 0.13),
)  # fmt: skip


def plot_fit(reports: Sequence[FitReport], path: Path, look: Look = OWN_LOOK) -> None:
    """Draw one row per search: differences of the answers, and perplexity as in A.2 of the paper.

    Raises:
        UsageError: there is nothing to draw, or too much.
        OutputError, MissingExtraError: as `save_figure`.
    """
    drawn = [report for report in reports if report.numbers(DEFAULT, "search")]
    if not drawn:
        raise UsageError("There are no results to draw yet.")
    settings = sum(len(report.measurements) for report in drawn)
    check_number(settings, "settings", _MOST_SETTINGS)
    save_figure(lambda: _draw(drawn), path, look)


def _draw(reports: Sequence[FitReport]) -> Figure:
    heights = [1.6 + 0.3 * len(report.measurements) for report in reports]
    heights = [max(height, 3.6) for height in heights]
    figure = new_figure(13, sum(heights) + 0.4)
    grid: Any = figure.add_gridspec(len(reports), 2, height_ratios=heights, width_ratios=(1.1, 1))
    for row, report in enumerate(reports):
        curves = perplexity_curves(report)
        left = figure.add_subplot(grid[row, 0] if curves else grid[row, :])
        _draw_differences(left, report)
        if curves:
            right = figure.add_subplot(grid[row, 1])
            draw_temperature(right, curves, [report.settings["factor"]])
    figure.suptitle(literal(_title(reports)), fontsize=13, fontweight="bold")
    return figure


def _title(reports: Sequence[FitReport]) -> str:
    models = dict.fromkeys(
        str(report.settings["model"]).rstrip("/").rpartition("/")[2] for report in reports
    )
    return f"Settings compared with the default, {', '.join(models)}"


def perplexity_curves(report: FitReport) -> list[Curve]:
    """Perplexity over the attention factor, for settings that differ only in this factor.

    There is one curve for each range of positions, if at least three settings have results for it.
    """
    points: dict[int, list[tuple[float, float, tuple[float, float] | None]]] = {}
    for name in report.measurements:
        numbers = report.numbers(name, "search")
        place = report.values(name).get("attention_factor")
        alone = changes_of_name(name).keys() <= {"attention_factor"}
        if numbers is None or place is None or not alone:
            continue
        for end, mean in numbers.texts.items():
            points.setdefault(end, []).append((place, mean.exp.value, mean.exp.interval))
    return [
        Curve(f"positions up to {end:,}", sorted(found, key=lambda point: point[0]))
        for end, found in points.items()
        if len(found) >= _ENOUGH
    ]


def _draw_differences(axes: Axes, report: FitReport) -> None:
    """Draw a row per setting: the paired difference of its answers, in search and held-out part."""
    names = [
        name
        for name in report.measurements
        if name != DEFAULT and report.difference(name, "search")
    ]
    for part, marker, colour, aside in _PARTS:
        found = [(row, d.answers) for row, name in enumerate(names)
                 if (d := report.difference(name, part))]  # fmt: skip
        if found:
            values = [mean.value for _, mean in found]
            ends = [mean.interval or (mean.value, mean.value) for _, mean in found]
            sides = bars([*zip(values, ends, strict=True)])
            axes.errorbar(
                values, [row + aside for row, _ in found], xerr=sides, fmt=marker, ms=5,
                color=colour, elinewidth=1.2, capsize=3, label=part,
            )  # fmt: skip
    axes.axvline(0, color="black", lw=0.8)
    labels = [literal(name + (" (best)" if name == report.best else "")) for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.invert_yaxis()
    axes.set_xlabel("answers: difference from the default, nats per token (lower is better)")
    axes.grid(alpha=0.25, axis="x")
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
