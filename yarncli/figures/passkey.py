"""The passkey figure: lengths × depths, a panel per run, and accuracy over length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.errors import UsageError
from yarncli.evaluation.report import Cell, PasskeyReport, summarise
from yarncli.evaluation.tasks import PASSKEY, TASKS
from yarncli.figures import OWN_LOOK, Look, literal
from yarncli.figures.lines import (
    Curve,
    draw_curves,
    mark_windows,
    put_legend,
    set_lengths,
    window_lines,
)
from yarncli.figures.names import model_name, run_names
from yarncli.figures.saving import new_figure, save_figure
from yarncli.figures.styles import method_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_ROWS = 20  # that have a name; of more, every second, third … has one


@dataclass(frozen=True, kw_only=True)
class Run:
    """One variant of one report, to draw."""

    name: str
    """The name of its panel and its curve."""
    cells: Sequence[Cell]
    """Its verdicts."""
    windows: tuple[int, int] | None
    """Its original and extended length, tokens; None if they are not known."""
    method: str
    """The key in `STYLES` of its colour."""


def runs_of(reports: Sequence[PasskeyReport]) -> list[Run]:
    """All variants of all reports that have an answer.

    Raises:
        UsageError: as `run_names`.
    """
    found = [
        (report.settings, name, cells)
        for report in reports
        for name, cells in report.cells.items()
        if cells
    ]
    names = run_names([(settings, name) for settings, name, _ in found])
    runs = []
    for shown, (settings, name, cells) in zip(names, found, strict=True):
        about = settings.get("variants", {}).get(name, {})
        # Both are 0 for a server if its config is not known.
        windows = (about["original"], about["window"]) if about.get("window") else None
        runs.append(Run(name=shown, cells=cells, windows=windows, method=method_of(name, about)))
    return runs


def plot_passkey(reports: Sequence[PasskeyReport], path: Path, look: Look = OWN_LOOK) -> None:
    """Draw a heatmap per run, and the accuracy of all runs over length with 95 % intervals.

    Raises:
        UsageError: there is nothing to draw, or too much.
        OutputError, MissingExtraError: as `save_figure`.
    """
    runs = runs_of(reports)
    if not runs:
        raise UsageError("There are no results to draw yet.")
    save_figure(lambda: _draw(runs, _title(reports)), path, look)


def _title(reports: Sequence[PasskeyReport]) -> str:
    model = model_name(reports[0].settings)
    tasks = any(_has_tasks(cells) for report in reports for cells in report.cells.values())
    what = "Tasks by length" if tasks else "Passkey retrieval"
    return what + (f", {model}" if len(reports) == 1 and model else "")


def _draw(runs: Sequence[Run], title: str) -> Figure:
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    # The curves are drawn in the free part of the last row of panels, or in a new row.
    free = rows * columns - len(runs)
    figure = new_figure(max(5.2 * columns, 6.4), 3.7 * (rows if free else rows + 1) + 0.4)
    grid: Any = figure.add_gridspec(rows if free else rows + 1, columns)
    image: Any = None
    panels = []
    for number, run in enumerate(runs):
        axes = figure.add_subplot(grid[number // columns, number % columns])
        image = _draw_heatmap(axes, run)
        panels.append(axes)
    # Never longer than the panel of one run.
    bar = figure.colorbar(image, ax=panels, shrink=0.85 / rows, anchor=(0, 1), pad=0.02)
    bar.set_label("share of prompts answered")
    place = grid[rows - 1, columns - free :] if free else grid[rows, :]
    _draw_lines(figure.add_subplot(place), runs)
    figure.suptitle(literal(title), fontsize=13, fontweight="bold")
    return figure


def _has_tasks(cells: Sequence[Cell]) -> bool:
    return any(cell.task != PASSKEY for cell in cells)


def accuracy_grid(
    cells: Sequence[Cell],
) -> tuple[list[int], list[float] | list[str], list[list[float]]]:
    """Lengths, depths, and accuracy per depth (rows) and length (columns); NaN if not asked.

    If the run has other tasks than the passkey, the rows are tasks.
    """
    lengths = sorted({cell.length for cell in cells})
    by_task = _has_tasks(cells)
    rows: list[float] | list[str] = sorted({cell.depth for cell in cells})
    if by_task:
        found = {cell.task for cell in cells}
        rows = [*(task for task in TASKS if task in found), *sorted(found.difference(TASKS))]
    verdicts: dict[tuple[float | str, int], list[bool]] = {}
    for cell in cells:
        row = cell.task if by_task else cell.depth
        verdicts.setdefault((row, cell.length), []).append(cell.correct)
    shares = {place: sum(found) / len(found) for place, found in verdicts.items()}
    values = [[shares.get((row, n), float("nan")) for n in lengths] for row in rows]
    return lengths, rows, values


def _draw_heatmap(axes: Axes, run: Run) -> Any:
    lengths, rows, values = accuracy_grid(run.cells)
    names = [literal(row) if isinstance(row, str) else f"{round(100 * row)} %" for row in rows]
    edges = _edges(lengths)
    image = axes.pcolormesh(
        edges, [row - 0.5 for row in range(len(rows) + 1)], values, cmap="cividis", vmin=0, vmax=1
    )
    axes.invert_yaxis()
    step = -(-len(rows) // _MOST_ROWS)
    axes.set_yticks(range(0, len(rows), step), names[::step])
    set_lengths(axes, lengths)
    axes.set_xlim(edges[0], edges[-1])
    what = "task" if _has_tasks(run.cells) else "depth of the passkey"
    axes.set(xlabel="prompt length (tokens)", ylabel=what)
    axes.set_title(literal(run.name, 40), loc="left")
    axes.patch.set(hatch="///", edgecolor="#bbbbbb")  # visible in cells that were not asked
    narrowest = min(math.log2(b / a) for a, b in pairwise(edges)) / math.log2(edges[-1] / edges[0])
    if narrowest >= 0.06 and len(rows) <= 12:
        _write_values(axes, image, lengths, values)
    for window, style in window_lines([run.windows] if run.windows else []):
        if edges[0] < window < edges[-1]:
            # A white ground makes the line visible on every colour of the map.
            axes.axvline(window, color="white", lw=4)
            axes.axvline(window, **style)
    return image


def _edges(lengths: Sequence[int]) -> list[float]:
    """The edges of the columns on a logarithmic axis: half-way between two lengths."""
    inner = [math.sqrt(a * b) for a, b in pairwise(lengths)]
    first = inner[0] if inner else lengths[0] * math.sqrt(2)
    last = inner[-1] if inner else lengths[-1] / math.sqrt(2)
    return [lengths[0] ** 2 / first, *inner, lengths[-1] ** 2 / last]


def _write_values(
    axes: Axes, image: Any, lengths: Sequence[int], values: Sequence[Sequence[float]]
) -> None:
    """Write the accuracy on each cell, with a ground if the line of a window crosses it."""
    from matplotlib.patheffects import withStroke

    for row, line in enumerate(values):
        for length, value in zip(lengths, line, strict=True):
            if not math.isnan(value):
                ink = "white" if value < 0.5 else "black"
                ground = withStroke(linewidth=4, foreground=image.cmap(value))
                axes.text(length, row, f"{value:.1f}", ha="center", va="center", fontsize=7,
                          color=ink, zorder=3, path_effects=[ground])  # fmt: skip


def _draw_lines(axes: Axes, runs: Sequence[Run]) -> None:
    curves = [
        Curve(run.name, [(r.length, r.accuracy, r.interval) for r in summarise(run.cells)],
              run.method)
        for run in runs
    ]  # fmt: skip
    draw_curves(axes, curves)
    mark_windows(axes, [run.windows for run in runs if run.windows is not None])
    axes.set(ylim=(-0.04, 1.04), xlabel="prompt length (tokens)", ylabel="prompts answered")
    axes.grid(alpha=0.25)
    put_legend(axes, len(curves))
