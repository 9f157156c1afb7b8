"""Run something in a child that is killed, refused or paused at one of its system calls."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.errors import YarncliError

CALLS = (
    "open", "pwrite", "copy_file_range", "rename", "replace", "fsync", "link", "symlink", "unlink",
    "mkdir", "rmdir", "fchmod", "fchown", "chmod", "ftruncate",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Run = Callable[[Path], object]
Make = Callable[[], Any]
# Takes the number and the name of a call, a function that makes the call, and one that makes half
# of it.
Act = Callable[[int, str, Make, Make], Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended."""

    status: int
    """As `os.waitpid` gives it."""
    told: str
    """What the child wrote to its pipe: the call at which something happened, or an error."""

    @property
    def completed(self) -> bool:
        """Whether the run came to its end."""
        return self.status == 0

    @property
    def killed(self) -> bool:
        """Whether it was killed as it should be."""
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL


class Child:
    """A forked child that runs something while `act` decides about each of its system calls."""

    def __init__(self, run: Run, directory: Path, act: Callable[[Child], Act]) -> None:
        self._reading, self._writing = os.pipe()
        self._waiting, self._going = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork beside threads
            self._pid = os.fork()
        if self._pid == 0:
            gc.freeze()  # a collection would copy the pages of all that the parent holds
            os.close(self._reading)
            os.close(self._going)
            self._be_child(run, directory, act)
        os.close(self._writing)
        os.close(self._waiting)

    def tell(self, text: str) -> None:
        """In the child: write to the parent."""
        os.write(self._writing, text.encode()[:4000])

    def pause(self, text: str) -> None:
        """In the child: tell, and wait until the parent says `go`."""
        self.tell(text)
        os.read(self._waiting, 1)

    def told(self) -> str:
        """In the parent: what the child wrote so far; waits for something, or for its end."""
        return os.read(self._reading, 4000).decode()

    def go(self) -> None:
        """In the parent: let a paused child go on."""
        os.write(self._going, b"!")

    def wait(self) -> Ended:
        """In the parent: the end of the child."""
        os.close(self._going)
        text = b""
        while more := os.read(self._reading, 4000):
            text += more
        os.close(self._reading)
        return Ended(os.waitpid(self._pid, 0)[1], text.decode())

    def _be_child(self, run: Run, directory: Path, act: Callable[[Child], Act]) -> None:
        code = 70
        try:
            _wrap(act(self))
            run(directory)
            code = 0
        except YarncliError as error:
            code = 100 + error.exit_code
            self.tell(str(error))
        except BaseException:
            self.tell(traceback.format_exc())
        finally:
            os._exit(code)


def run_killed(run: Run, directory: Path, number: int, *, half: bool) -> Ended:
    """Kill a run before its call with this number, or half-way through it.

    Half-way means: half of the bytes for a write or a copy, after the call for any other.
    """

    def act(child: Child) -> Act:
        def killing(count: int, name: str, call: Make, half_of_it: Make) -> Any:
            if count == number:
                child.tell(name)
                _die(half_of_it if half else None)
            return call()

        return killing

    return Child(run, directory, act).wait()


def run_refused(run: Run, directory: Path, number: int, code: int) -> Ended:
    """Let the system refuse one call of a run with an error."""

    def act(child: Child) -> Act:
        def refusing(count: int, name: str, call: Make, _half: Make) -> Any:
            if count == number:
                child.tell(f"{name}\n")
                raise OSError(code, os.strerror(code))
            return call()

        return refusing

    return Child(run, directory, act).wait()


def pause_at(run: Run, directory: Path, number: int) -> Child:
    """Start a run that pauses before its call with this number, and tells the call's name."""

    def act(child: Child) -> Act:
        def pausing(count: int, name: str, call: Make, _half: Make) -> Any:
            if count == number:
                child.pause(name)
            return call()

        return pausing

    return Child(run, directory, act)


def calls_of(run: Run, directory: Path) -> list[str]:
    """The names of the calls that a whole run makes."""

    def act(child: Child) -> Act:
        def counting(count: int, name: str, call: Make, _half: Make) -> Any:
            child.tell(f"{name} ")
            return call()

        return counting

    ended = Child(run, directory, act).wait()
    assert ended.completed, ended.told
    return ended.told.split()


def kill_at_every_call(
    work: Path,
    prepare: Run,
    run: Run,
    check: Callable[[Path, str], object],
) -> list[str]:
    """Kill `run` before and half-way through each of its system calls that change something.

    A call is told by its name and its number among those of that name: threads take turns as they
    like, so the number among all calls means another one in every run. Every run has a fresh
    directory below `work`, and is followed by `check`.

    Args:
        work: existing scratch directory.
        prepare: fills a directory (not existing yet) with the state before the run.
        run: what is to be killed; gets the directory.
        check: asserts what must hold after a kill; gets the directory and where it was killed.

    Returns:
        The calls that a whole run makes, by name; `run` has then completed once, and `check` was
        called for that, too (with "completed").
    """
    whole = work / "whole"
    prepare(whole)
    calls = calls_of(run, whole)
    check(whole, "completed")
    shutil.rmtree(whole)
    seen: Counter[str] = Counter()
    for name in calls:
        number, seen[name] = seen[name], seen[name] + 1
        for half in (False, True):
            where = f"{name} {number}, {'half-way' if half else 'before'}"
            directory = work / where
            prepare(directory)
            ended = _run_killed_at(run, directory, name, number, half=half)
            # A run may find what an earlier one left outside of its directory, and need less.
            assert ended.completed or ended.killed, f"{where}: the run failed: {ended}"
            where = "completed" if ended.completed else where
            try:
                check(directory, where)
            except BaseException as error:
                error.add_note(f"killed at: {where}")
                raise
            shutil.rmtree(directory)
    return calls


def leave_killed(run: Run, directory: Path, name: str, number: int = 0, *, half: bool) -> None:
    """Kill a run at its call `name` with this number among those of that name."""
    ended = _run_killed_at(run, directory, name, number, half=half)
    assert ended.killed, ended.told


def _run_killed_at(run: Run, directory: Path, name: str, number: int, *, half: bool) -> Ended:
    seen = -1

    def act(child: Child) -> Act:
        def killing(count: int, called: str, call: Make, half_of_it: Make) -> Any:
            nonlocal seen
            seen += called == name
            if called == name and seen == number:
                _die(half_of_it if half else None)
            return call()

        return killing

    return Child(run, directory, act).wait()


def _wrap(act: Act) -> None:
    """Put `act` before the calls in `os` that change something, or open a file for writing."""
    lock = threading.Lock()
    count = -1

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if name == "open" and not (args[1] if len(args) > 1 else kwargs["flags"]) & _WRITING:
                return real(*args, **kwargs)
            with lock:
                count += 1
                return act(
                    count,
                    name,
                    lambda: real(*args, **kwargs),
                    lambda: _half(name, real, args, kwargs),
                )

        return call

    for name in CALLS:
        if hasattr(os, name):
            setattr(os, name, wrapped(name, getattr(os, name)))


def _die(half_of_it: Make | None) -> None:
    """Make half of a call, if there is one, and kill this process."""
    try:
        if half_of_it is not None:
            half_of_it()
    finally:  # the call may fail, as mkdir does for what exists
        os.kill(os.getpid(), signal.SIGKILL)


def _half(name: str, real: Callable[..., Any], args: Any, kwargs: Any) -> None:
    if name == "pwrite":
        descriptor, data, offset = args
        real(descriptor, data[: len(data) // 2], offset)
    elif name == "copy_file_range":
        source, destination, length, *offsets = args
        real(source, destination, length // 2, *offsets)
    else:
        real(*args, **kwargs)
