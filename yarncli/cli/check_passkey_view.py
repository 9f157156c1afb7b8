"""How a passkey evaluation looks in the terminal: the grid that fills, and the final table."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from yarncli import console
from yarncli.evaluate.passkey import Grid
from yarncli.evaluate.prompts import depths
from yarncli.evaluate.report import Cell, Report

_EVERY = 0.1  # seconds between redraws


class LiveGrid:
    """Lengths × depths on a terminal, one sign per position; elsewhere lines of progress.

    `█` all keys found, `▒` some, `░` none, `·` not asked yet.
    """

    def __init__(self, title: str, grid: Grid, found: Sequence[Cell]) -> None:
        self._title = title
        self._grid = grid
        self._cells = list(found)
        self._skipped = len(found)
        self._started = time.monotonic()
        self._drawn = 0.0
        self._lines = 0
        self._progress: AbstractContextManager[Any] | None = None
        self._advance: Any = None

    def __enter__(self) -> LiveGrid:
        """Start drawing."""
        if not sys.stderr.isatty():
            left = self._grid.size - self._skipped
            self._progress = console.progress(left, self._title, unit="prompts")
            self._advance = self._progress.__enter__()
        return self

    def add(self, cell: Cell) -> None:
        """Show one more verdict."""
        self._cells.append(cell)
        if self._advance is not None:
            self._advance(1)
        elif time.monotonic() - self._drawn >= _EVERY:
            self._draw()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state on the screen."""
        if self._progress is not None:
            self._progress.__exit__(kind, error, trace)
        else:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        lines = [*grid_lines(self._grid, self._cells), self._pace()]
        up = f"\x1b[{self._lines}A" if self._lines else ""
        sys.stderr.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        sys.stderr.flush()
        self._lines = len(lines)

    def _pace(self) -> str:
        asked = len(self._cells) - self._skipped
        seconds = time.monotonic() - self._started
        left = self._grid.size - len(self._cells)
        rate = asked / seconds if seconds > 0 else 0.0
        until = f", {left / rate:.0f} s left" if rate and left else ""
        return (
            f"{self._title}: {len(self._cells):,} of {self._grid.size:,} prompts, "
            f"{rate:.1f} per second{until}"
        )


def grid_lines(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """One line per length: its number, a sign per depth, and the count of keys found."""
    width = max(len(f"{length:,}") for length in grid.lengths)
    lines = []
    for length in grid.lengths:
        here = [cell for cell in cells if cell.length == length]
        signs = []
        for depth in depths(grid.depths):
            verdicts = [cell.correct for cell in here if cell.depth == depth]
            signs.append(
                "·" if not verdicts else "█" if all(verdicts) else "▒" if any(verdicts) else "░"
            )
        found = sum(cell.correct for cell in here)
        lines.append(f"{length:>{width},}  {''.join(signs)}  {found}/{len(here)}")
    return lines


def print_results(report: Report) -> None:
    """The final table: accuracy and its 95 % interval per length, one column per setting."""
    names = list(report.cells)
    results = {name: {r.length: r for r in report.lengths(name)} for name in names}
    lengths = sorted({length for found in results.values() for length in found})
    single = len(names) == 1
    rows: list[list[console.Cell]] = []
    for length in lengths:
        row: list[console.Cell] = [length]
        for name in names:
            result = results[name].get(length)
            row += _columns(result, single)
        rows.append(row)
    headings = ["accuracy", "95 % interval", "prompts"] if single else names
    console.print_table(["length", *headings], rows)


def _columns(result: Any, single: bool) -> list[console.Cell]:
    if result is None:
        return [None] * (3 if single else 1)
    low, high = result.interval
    interval = f"{low:.2f} – {high:.2f}"
    if single:
        return [f"{result.accuracy:.2f}", interval, result.trials]
    return [f"{result.accuracy:.2f} ({interval})"]
