"""The progress bar on a terminal: one at a time, for the stage that is running.

This is the only module that imports rich, and it does so only when a bar appears.
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
    """How much there is to do; 0 if that is not known, and the bar then only moves."""
    unit: str = ""
    """What is counted; empty for nothing."""
    done: int = 0
    """How much of `total` is done."""
    started: float = field(default_factory=time.monotonic)
    """The time since which nothing has been printed."""


class Display:
    """The bars of all stages that are running; the innermost one is shown.

    A timer shows it, because a single call may take the whole time: loading a model, for example.
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
        """A stage ends; the stage around it goes on."""
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
        """Hide the bar in the block, because something else writes to the terminal there."""
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
        elif self._timer is None:  # a running timer ends earlier, and then plans again
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
            # All other output goes through `paused`. Redirecting would keep it from a pipe.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._shown.add_task(bar.description, total=bar.total or None, completed=bar.done)
        self._shown.tasks[0].start_time = bar.started  # rich uses the same clock
        self._shown.start()

    def _hide(self) -> None:
        if self._shown is not None:
            self._shown.stop()
            self._shown = None


DISPLAY = Display()
