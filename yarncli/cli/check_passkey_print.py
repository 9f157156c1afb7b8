"""What check-passkey prints: its cost, a grid that fills while it runs, and the final table."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

from yarncli.cli import console
from yarncli.cli.report_print import show_figure, show_report
from yarncli.evaluation.passkey import Grid
from yarncli.evaluation.prompts import depths
from yarncli.evaluation.report import (
    Cell,
    EffectiveLength,
    LengthResult,
    PasskeyReport,
    TaskResult,
)
from yarncli.evaluation.session import PasskeyWatch
from yarncli.evaluation.settings import LOADING
from yarncli.evaluation.variants import Variant
from yarncli.progress import Progress

_EVERY = 0.1  # seconds between redraws
_SIDE_BY_SIDE = 3  # settings whose columns fit side by side in 80 characters


class ConsoleWatch(PasskeyWatch):
    """Shows an evaluation on the terminal while it runs."""

    def __init__(self) -> None:
        self.grid: LiveGrid | None = None
        """The newest grid."""

    def begin(self, grid: Grid, settings: Sequence[Variant], answered: int) -> None:
        """Say how many prompts and tokens the evaluation needs."""
        count = len(settings)
        prompts = grid.size * count
        text = f"{prompts:,} prompt{'s' * (prompts > 1)}, {grid.tokens * count:,} tokens"
        if count > 1:
            text += f", {count} settings"
        console.note(f"{text}; {answered:,} are answered already." if answered else f"{text}.")

    def answers(
        self, title: str, grid: Grid, found: Sequence[Cell]
    ) -> AbstractContextManager[Callable[[Cell], None] | None]:
        """Show the answers as a grid that fills, on a terminal."""
        self.grid = LiveGrid(title, grid, found) if _is_terminal() else None
        return self.grid or nullcontext()


class PasskeyBars(console.ProgressBars):
    """The progress of an evaluation, except for what the grid shows."""

    def __init__(self, watch: ConsoleWatch) -> None:
        super().__init__()
        self._watch = watch

    def __call__(self, now: Progress) -> None:
        """Receive the progress of the evaluation."""
        grid = self._watch.grid
        if grid is None or not grid.is_shown:
            super().__call__(now)
        elif now.stage == LOADING:
            grid.tell("" if now.ended else now.stage)


class LiveGrid(AbstractContextManager[Callable[[Cell], None]]):
    """Lengths × depths on a terminal, one sign per position.

    `█` all keys found, `▒` some, `░` none, `·` not asked yet. The context's value takes each new
    cell.
    """

    def __init__(self, title: str, grid: Grid, found: Sequence[Cell]) -> None:
        self._title = title
        self._grid = grid
        self._cells = list(found)
        self._known_tokens = self._tokens()
        self._started = time.monotonic()
        self._drawn = 0.0
        self._lines = 0
        self._doing = ""
        self._alone = console.nothing_shown()
        self.is_shown = False
        """Whether it is on the terminal."""

    def __enter__(self) -> Callable[[Cell], None]:
        """Start drawing."""
        self._alone.__enter__()
        self.is_shown = True
        self._draw()
        return self._add

    def __exit__(self, *exception: Any) -> None:
        """Leave the last state on the screen."""
        self._draw()
        self.is_shown = False
        self._alone.__exit__(None, None, None)

    def tell(self, doing: str) -> None:
        """Say what is being done while no prompt is asked."""
        self._doing = doing
        self._draw()

    def _add(self, cell: Cell) -> None:
        self._cells.append(cell)
        if time.monotonic() - self._drawn >= _EVERY:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        # A line that wraps would put the next drawing in the wrong place.
        width = shutil.get_terminal_size().columns - 1
        lines = [line[:width] for line in (*grid_lines(self._grid, self._cells), self._pace())]
        up = f"\x1b[{self._lines}A" if self._lines else ""
        sys.stderr.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        sys.stderr.flush()
        self._lines = len(lines)

    def _pace(self) -> str:
        """How many prompts are done; rate and time left count tokens, because lengths differ."""
        text = f"{self._title}: {len(self._cells):,} of {self._grid.size:,} prompts"
        seconds = time.monotonic() - self._started
        rate = (self._tokens() - self._known_tokens) / seconds if seconds > 0 else 0.0
        if self._doing:
            return f"{text}. {self._doing} …"
        if not rate:
            return text
        text += f", {rate:,.0f} tokens/s"
        left = round((self._grid.tokens - self._tokens()) / rate)
        return f"{text}, {timedelta(seconds=left)} left" if left else text

    def _tokens(self) -> int:
        return sum(cell.length for cell in self._cells)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


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


def show(report: PasskeyReport, *, plot: Path | None, json: bool, tasks: bool = False) -> None:
    """Print the result, and draw it if asked; with `tasks` as the results of several tasks.

    Raises:
        OutputError: the figure cannot be written; the result has been printed before.
    """
    from yarncli.figures.passkey import plot_passkey

    printer = print_tasks if tasks else print_results
    show_report(report, lambda: printer(report), json=json)
    if report.control_says_the_same:
        console.warn(
            "The control gave the same answer to every prompt, so this run does not show that the "
            "RoPE setting has any effect. Test lengths beyond the original window."
        )
    show_figure(lambda path: plot_passkey([report], path), plot)


def print_results(report: PasskeyReport) -> None:
    """The final table: accuracy and its 95 % interval per length and setting."""
    names = list(report.cells)
    results = {(name, r.length): r for name in names for r in report.lengths(name)}
    lengths = sorted({length for _, length in results})
    rows: list[list[console.CellValue]]
    if len(names) == 1:
        found = [results[names[0], length] for length in lengths]
        rows = [[r.length, f"{r.accuracy:.2f}", _interval(r), r.trials] for r in found]
        console.print_table(["length", "accuracy", "95 % interval", "prompts"], rows)
        return
    if len(names) <= _SIDE_BY_SIDE:
        rows = [
            [length, *(_with_interval(results[name, length]) for name in names)]
            for length in lengths
        ]
        console.print_table(["length", *names], rows)
        return
    rows = [
        [length, name, f"{results[name, length].accuracy:.2f}", _interval(results[name, length])]
        for length in lengths
        for name in names
    ]
    console.print_table(["length", "setting", "accuracy", "95 % interval"], rows)


def print_tasks(report: PasskeyReport) -> None:
    """The table of tasks × lengths with 95 % intervals, and how far the model can be trusted."""
    names = list(report.cells)
    results = [(name, result) for name in names for result in report.tasks(name)]
    lengths = sorted({result.length for _, result in results})
    rows: list[list[console.CellValue]]
    if len(names) == 1 and len(lengths) <= _SIDE_BY_SIDE:
        found = {(r.task, r.length): r for _, r in results}
        rows = [
            [task, *(_with_interval(found[task, length]) for length in lengths)]
            for task in dict.fromkeys(r.task for _, r in results)
        ]
        console.print_table(["task", *(f"{length:,}" for length in lengths)], rows)
    else:
        setting = [] if len(names) == 1 else ["setting"]
        rows = [
            [r.task, r.length, *([name] if setting else []), f"{r.accuracy:.2f}", _interval(r)]
            for name, r in results
        ]
        console.print_table(["task", "length", *setting, "accuracy", "95 % interval"], rows)
    for name in names:
        title = "effective length" + (f", {name}" if len(names) > 1 else "")
        console.print_text(f"{title}: {_effective(report.effective_length(name))}")
    console.note(
        "The tasks are like those of RULER, but their wordings differ, and an answer counts only "
        "if it has all that was asked for. Compare the numbers with each other, not with RULER."
    )


def _effective(found: EffectiveLength) -> str:
    """An effective length in the usual form: 16384 is 16k."""
    if found.length is None:
        return f"not known ({found.note})"
    length = found.length
    text = f"{length // 1024}k" if length % 1024 == 0 else f"{length:,} tokens"
    return f"{text} ({found.note})" if found.note else text


def _interval(result: LengthResult | TaskResult) -> str:
    low, high = result.interval
    return f"{low:.2f} – {high:.2f}"


def _with_interval(result: LengthResult | TaskResult) -> str:
    return f"{result.accuracy:.2f} ({_interval(result)})"
