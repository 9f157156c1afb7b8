"""The passkey figure: lengths × depths, one panel per run, as known from needle tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.errors import UsageError
from yarncli.evaluation.report import Cell, PasskeyReport, summarise
from yarncli.evaluation.tasks import PASSKEY, TASKS
from yarncli.figures import OWN_LOOK, Look, literal
from yarncli.figures.lines import WINDOW, Curve, draw_curves, mark_windows, put_legend
from yarncli.figures.names import model_name, run_names
from yarncli.figures.saving import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_RUNS = 60


@dataclass(frozen=True)
class Run:
    """One variant of one report, as drawn: `windows` are its original and extended length."""

    name: str
    cells: Sequence[Cell]
    windows: tuple[int, int] | None


def runs_of(reports: Sequence[PasskeyReport]) -> list[Run]:
    """All variants of all reports that have an answer."""
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
        # Behind a server whose config is not known both are 0.
        windows = (about["original"], about["window"]) if about.get("window") else None
        runs.append(Run(shown, cells, windows))
    return runs


def plot_passkey(reports: Sequence[PasskeyReport], path: Path, look: Look = OWN_LOOK) -> None:
    """Draw a heatmap per run, and accuracy over length where there are several runs.

    Raises:
        UsageError: there is nothing to draw.
        OutputError, MissingExtraError: as `save_figure`.
    """
    runs = runs_of(reports)
    if not runs:
        raise UsageError("There are no results to draw yet.")
    if len(runs) > _MOST_RUNS:
        raise UsageError(f"There are {len(runs)} runs to draw; a figure holds {_MOST_RUNS}.")
    save_figure(lambda: _draw(runs, _title(reports)), path, look)


def _title(reports: Sequence[PasskeyReport]) -> str:
    model = model_name(reports[0].settings)
    tasks = any(_has_tasks(cells) for report in reports for cells in report.cells.values())
    what = "Tasks by length" if tasks else "Passkey retrieval"
    return what + (f", {model}" if len(reports) == 1 and model else "")


def _draw(runs: Sequence[Run], title: str) -> Figure:
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    lines = len(runs) > 1
    figure = new_figure(max(5.2 * columns, 6.4), 3.7 * rows + (3.6 if lines else 0.4))
    grid: Any = figure.add_gridspec(rows + lines, columns)
    image: Any = None
    panels = []
    for number, run in enumerate(runs):
        axes = figure.add_subplot(grid[number // columns, number % columns])
        image = _draw_heatmap(axes, run)
        panels.append(axes)
    bar = figure.colorbar(image, ax=panels, shrink=0.85, pad=0.02)
    bar.set_label("share of prompts answered")
    if lines:
        _draw_lines(figure.add_subplot(grid[rows, :]), runs)
    figure.suptitle(literal(title), fontsize=13, fontweight="bold")
    return figure


def _has_tasks(cells: Sequence[Cell]) -> bool:
    return any(cell.task != PASSKEY for cell in cells)


def accuracy_grid(
    cells: Sequence[Cell],
) -> tuple[list[int], list[float] | list[str], list[list[float]]]:
    """Lengths, depths, and accuracy per depth (rows) and length (columns); NaN where not asked.

    Where other tasks than the passkey were asked, the rows are tasks.
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
    image = axes.imshow(values, aspect="auto", cmap="cividis", vmin=0, vmax=1)
    axes.set_xticks(range(len(lengths)), [f"{n:,}" for n in lengths], rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), names)
    what = "task" if _has_tasks(run.cells) else "depth of the passkey"
    axes.set(xlabel="prompt length (tokens)", ylabel=what)
    axes.set_title(literal(run.name), loc="left", pad=14)
    if len(lengths) * len(rows) <= 120:
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                if not math.isnan(value):
                    ink = "white" if value < 0.5 else "black"
                    axes.text(
                        column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=ink
                    )
    if run.windows is not None:
        _mark_windows(axes, lengths, run.windows)
    return image


def _mark_windows(axes: Axes, lengths: Sequence[int], windows: tuple[int, int]) -> None:
    """A line after the last length inside each window, named above the panel."""
    named = {windows[1]: ("new window", "--"), windows[0]: ("original window", ":")}
    for window, (name, style) in named.items():
        place = _between(lengths, window)
        if place is None:
            continue
        # On white, so that it is seen on every colour of the map.
        axes.axvline(place, color="white", lw=4, clip_on=False)
        axes.axvline(place, color=WINDOW, lw=2.2, ls=style, clip_on=False)
        axes.annotate(
            f"{name} {window:,}", (place, 1), xycoords=("data", "axes fraction"),
            xytext=(-2, 3), textcoords="offset points", ha="right", fontsize=7, color=WINDOW,
        )  # fmt: skip


def _draw_lines(axes: Axes, runs: Sequence[Run]) -> None:
    curves = [
        Curve(run.name, [(r.length, r.accuracy, r.interval) for r in summarise(run.cells)])
        for run in runs
    ]
    draw_curves(axes, curves)
    mark_windows(axes, [run.windows for run in runs if run.windows is not None])
    axes.set(ylim=(-0.04, 1.04), xlabel="prompt length (tokens)", ylabel="accuracy")
    axes.grid(alpha=0.25)
    put_legend(axes, len(curves))


def _between(lengths: Sequence[int], window: int) -> float | None:
    """Where `window` lies on an axis of one column per length; its own column is inside it."""
    inside = sum(length <= window for length in lengths)
    return inside - 0.5 if inside else None
