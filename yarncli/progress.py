"""What long work tells about itself: the one form of every `progress` argument."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one stage of the work is; a stage begins with nothing done and ends with `ended`.

    A stage may begin within another one, which then goes on when it has ended.
    """

    stage: str
    """What is being done: "Fetching", "Copying"."""
    done: int
    """So much of `total`, in `unit`."""
    total: int
    """All there is to do; an estimate for some stages, 0 where nobody knows."""
    unit: str = "bytes"
    """What is counted: "bytes", "prompts"."""
    ended: bool = False
    """Whether the stage is over, for whatever reason."""


ProgressCallback = Callable[[Progress], None]
Advance = Callable[[int], None]
"""Takes what was done since its last call: bytes, or the unit of its stage."""


def format_bytes(count: float) -> str:
    """A number of bytes with a decimal unit: `2.6 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.95:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


@contextmanager
def stage(
    progress: ProgressCallback | None, name: str, total: int, *, unit: str = "bytes"
) -> Iterator[Advance]:
    """One stage of work; the value takes what was done since its last call, from any thread.

    Args:
        progress: told at the beginning, after every call, and at the end; None for nobody.
        name: what is being done.
        total: the whole of it, in `unit`.
        unit: what is counted.
    """
    done, lock = 0, threading.Lock()

    def tell(count: int, *, ended: bool = False) -> None:
        nonlocal done
        if progress is not None:
            with lock:
                done += count
                progress(Progress(stage=name, done=done, total=total, unit=unit, ended=ended))

    tell(0)
    try:
        yield tell
    finally:
        tell(0, ended=True)


def unmeasured(progress: ProgressCallback | None, name: str) -> AbstractContextManager[Advance]:
    """A stage of which nobody knows how far it is: loading a model, a flush to the disk.

    Args:
        progress: told at the beginning and at the end; None for nobody.
        name: what is being done.
    """
    return stage(progress, name, 0, unit="")
