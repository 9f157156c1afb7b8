"""Run something again and again, each time killed (SIGKILL) one system call later."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = (
    "pwrite", "copy_file_range", "rename", "replace", "fsync", "link", "symlink", "unlink",
    "mkdir", "rmdir",
)  # fmt: skip


def kill_at_every_call(
    work: Path,
    prepare: Callable[[Path], None],
    run: Callable[[Path], None],
    check: Callable[[Path, str], None],
) -> list[str]:
    """Kill `run` before and half-way through its 1st, 2nd, … wrapped system call.

    Half-way means: half of the bytes for a write or a copy, after the call for any other. Every run
    has a fresh directory below `work`, is a forked child, and is followed by `check`.

    Args:
        work: existing scratch directory.
        prepare: fills a directory (not existing yet) with the state before the run.
        run: what is to be killed; gets the directory.
        check: asserts what must hold after a kill; gets the directory and where it was killed.

    Returns:
        The calls that a whole run makes, by name; `run` has then completed once, and `check` was
        called for that, too (with "completed").
    """
    calls: list[str] = []
    for number in range(10_000):
        for half in (False, True):
            directory = work / f"{number}{'half' if half else 'before'}"
            prepare(directory)
            status, name = _run_in_child(run, directory, number, half)
            completed = status == 0
            assert completed or os.WTERMSIG(status) == signal.SIGKILL, f"the run failed: {status}"
            where = f"call {number} ({name}), {'half-way' if half else 'before'}"
            try:
                check(directory, "completed" if completed else where)
            except BaseException as error:
                error.add_note(f"killed at: {where}")
                raise
            shutil.rmtree(directory)
            if completed:
                return calls
        calls.append(name)
    raise AssertionError("the run never ended")


def _run_in_child(
    run: Callable[[Path], None], directory: Path, number: int, half: bool
) -> tuple[int, str]:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork beside threads
        pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.close(reading)
            _wrap(number, half, writing)
            run(directory)
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writing)
    status = os.waitpid(pid, 0)[1]
    name = os.read(reading, 100).decode()
    os.close(reading)
    return status, name


def _wrap(number: int, half: bool, pipe: int) -> None:
    """Replace the calls in `os`, so that the one with this number ends the process."""
    lock = threading.Lock()
    count = 0
    write = os.write

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            with lock:
                if count == number:
                    write(pipe, name.encode())
                    try:
                        if half:
                            _half(name, real, args, kwargs)
                    finally:  # the call itself may fail, as mkdir does for what exists
                        os.kill(os.getpid(), signal.SIGKILL)
                count += 1
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        if hasattr(os, name):
            setattr(os, name, wrapped(name, getattr(os, name)))


def _half(name: str, real: Callable[..., Any], args: Any, kwargs: Any) -> None:
    if name == "pwrite":
        descriptor, data, offset = args
        real(descriptor, data[: len(data) // 2], offset)
    elif name == "copy_file_range":
        source, destination, length, *offsets = args
        real(source, destination, length // 2, *offsets)
    else:
        real(*args, **kwargs)
