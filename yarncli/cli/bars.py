"""What a terminal shows of work that takes a while: one bar at a time, for what is under way.

The only module that imports rich, and only once a bar has something to show.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress

AFTER = 1.0  # seconds of work before a bar appears


@dataclass(eq=False)
class Bar:
    """A stage of the work."""

    description: str
    """What is being done."""
    total: int = 0
    """All there is to do; 0 where that is not known: the bar then only moves."""
    unit: str = ""
    """What is counted; empty for nothing."""
    done: int = 0
    """So much of `total`."""
    started: float = field(default_factory=time.monotonic)
    """When it began to be silent."""


class Display:
    """The bars of all stages that are under way, the innermost of which is shown.

    A timer shows it, as one call may take the whole time: loading a model, a flush to the disk.
    """

    def __init__(self) -> None:
        self._bars: list[Bar] = []
        self._shown: rich.progress.Progress | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()

    def begin(self, bar: Bar) -> None:
        """A stage begins, perhaps within another."""
        with self._lock:
            self._hide()
            self._bars.append(bar)
            self._plan()

    def end(self, bar: Bar) -> None:
        """A stage ends; the one that it was in goes on."""
        with self._lock:
            self._hide()
            self._bars.remove(bar)
            self._plan()

    def update(self, bar: Bar) -> None:
        """Show what is done of a stage."""
        with self._lock:
            if self._shown is not None and self._bars[-1] is bar:
                self._shown.update(self._shown.task_ids[0], completed=bar.done)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is shown in the block, in which something else writes to the terminal."""
        if not self._bars:
            yield
            return
        with self._lock:
            self._hide()
            bars, self._bars = self._bars, []
            try:
                yield
            finally:
                self._bars = bars
                bars[0].started = time.monotonic()  # the program has just said something
                self._plan()

    def _plan(self) -> None:
        """Show the innermost bar, now or when it has taken long enough."""
        if not self._bars:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        wait = self._bars[-1].started + AFTER - time.monotonic()
        if wait <= 0:
            self._show(self._bars[-1])
        elif self._timer is None:  # else it goes off earlier, and looks again
            self._timer = threading.Timer(wait, self._appear)
            self._timer.daemon = True
            self._timer.start()

    def _appear(self) -> None:
        with self._lock:
            self._timer = None
            if self._shown is None:
                self._plan()

    def _show(self, bar: Bar) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Shown

        amounts = [DownloadColumn(), TransferSpeedColumn()] if bar.unit == "bytes" else []
        amounts = amounts or [MofNCompleteColumn()]
        measured = [*amounts, TimeRemainingColumn()] if bar.total else [TimeElapsedColumn()]
        self._shown = Shown(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            *measured,
            console=Console(stderr=True),
            transient=True,
            expand=True,
            # What else is written comes through `paused`, and what goes to a pipe must reach it.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._shown.add_task(bar.description, total=bar.total or None, completed=bar.done)
        self._shown.tasks[0].start_time = bar.started  # by the same clock
        self._shown.start()

    def _hide(self) -> None:
        if self._shown is not None:
            self._shown.stop()
            self._shown = None


DISPLAY = Display()
