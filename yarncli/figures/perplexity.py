"""The perplexity figure: perplexity over the length of the context, a curve per setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yarncli.errors import UsageError
from yarncli.evaluation.losses import PerplexityReport
from yarncli.figures import OWN_LOOK, Look, literal
from yarncli.figures.lines import Curve, draw_curves, mark_windows, put_legend
from yarncli.figures.names import model_name, run_names
from yarncli.figures.saving import new_figure, save_figure
from yarncli.figures.styles import method_of
from yarncli.figures.temperature import plot_temperature

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AXES = {
    "nested": "context (tokens)",
    "sliding": "sliding window (tokens)",
    "by position": "positions up to (tokens)",
}


def plot_perplexity(reports: Sequence[PerplexityReport], path: Path, look: Look = OWN_LOOK) -> None:
    """Draw perplexity over length with its 95 % intervals, for all settings of all reports.

    Runs with attention factors are drawn over these factors.

    Raises:
        UsageError: there is nothing to draw or too much, or the runs were not read in the same way.
        OutputError, MissingExtraError: as `save_figure`.
    """
    over_temperature = ["attention_factors" in report.settings for report in reports]
    if all(over_temperature):
        plot_temperature(reports, path, look)
        return
    if any(over_temperature):
        raise UsageError("Runs with and without --attention-factors cannot be drawn on one axis.")
    layouts = {report.settings["layout"] for report in reports}
    if len(layouts) > 1:
        raise UsageError(
            f"Runs that were read in different ways ({', '.join(sorted(layouts))}) have no common "
            "axis. Draw them one by one."
        )
    runs = [
        (report, name) for report in reports for name, losses in report.losses.items() if losses
    ]
    names = run_names([(report.settings, name) for report, name in runs])
    curves = [
        Curve(
            shown,
            [(r.length, r.perplexity, r.interval) for r in report.results(name)],
            method_of(name, report.settings["variants"].get(name)),
        )
        for shown, (report, name) in zip(names, runs, strict=True)
    ]
    if not curves:
        raise UsageError("There are no results to draw yet.")
    windows = [
        (about["original"], about["window"])
        for report in reports
        for about in report.settings["variants"].values()
    ]
    title = "Perplexity" + (f", {model_name(reports[0].settings)}" if len(reports) == 1 else "")
    save_figure(lambda: _draw(curves, windows, title, _AXES[layouts.pop()]), path, look)


def _draw(
    curves: Sequence[Curve], windows: Sequence[tuple[int, int]], title: str, axis: str
) -> Figure:
    from matplotlib.ticker import LogLocator

    figure = new_figure(8.6, 4.6)
    axes = figure.add_subplot()
    draw_curves(axes, curves)
    values = [value for curve in curves for _, value, _ in curve.points]
    if max(values) > 5 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5), numticks=99))
        for show in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            show(lambda value, _: f"{value:g}")  # 60, not 6 × 10¹
    mark_windows(axes, windows)
    axes.set(xlabel=axis, ylabel="perplexity (lower is better)")
    axes.grid(alpha=0.25)
    put_legend(axes, len(curves))
    figure.suptitle(literal(title), fontsize=13, fontweight="bold")
    return figure
