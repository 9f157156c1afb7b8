"""Commands on a hostile checkpoint, in a forked child that cannot hang, grow or import torch."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from support.program import invoke

# Of a processor. The slowest pair needs two on an idle one, and three times as many on a busy one;
# what grows faster than its input needs minutes.
SECONDS = 20
MEGABYTES = 300
HANGS = 180.0  # seconds on the clock, where a child waits for what never comes
EXIT_CODES = {0, 1, 2, 3, 4, 5, 6}
HEAVY = ("torch", "transformers", "jinja2", "accelerate")

COMMANDS: dict[str, list[str]] = {
    "inspect": ["inspect", "ITEM", "--table"],
    "inspect json": ["inspect", "ITEM", "--json", "--table"],
    "inspect preview": ["inspect", "ITEM", "--method", "ntk", "--factor", "4"],
    "check": ["check", "ITEM"],
    "check json": ["check", "ITEM", "--json", "--strict"],
    "engines": ["engines", "ITEM"],
    "convert": ["convert", "ITEM", "OUT", "--rescale", "--length", "4096"],
    "convert anew": ["convert", "ITEM", "OUT", "--method", "linear", "--length", "4096",
                     "--replace-scaling", "--original-length", "64", "--json"],
    "convert dry": ["convert", "ITEM", "OUT", "--rescale", "--length", "4096", "--dry-run"],
    "bake": ["bake", "ITEM", "OUT"],
    "bake an adapter": ["bake", "HEALTHY", "OUT", "--adapter", "ITEM", "OUT2"],
    "card": ["card", "ITEM"],
    "card of results": ["card", "ITEM", "--results", "ITEM/results.jsonl"],
    "push": ["push", "ITEM", "org/name", "--dry-run"],
    "plot": ["plot", "ITEM/results.jsonl", "--out", "OUT.png"],
    "check-passkey": ["check-passkey", "ITEM", "--trials", "1", "--depths", "1",
                      "--out", "OUT.jsonl"],
    "lone config": ["inspect", "ITEM/config.json"],
    "convert in place": ["convert", "ITEM", "--in-place", "--rescale", "--length", "4096"],
    "undo": ["convert", "ITEM", "--undo"],
    "bake in place": ["bake", "ITEM", "--in-place"],
    "recover": ["bake", "ITEM", "--recover"],
    "fix": ["check", "ITEM", "--fix"],
}  # fmt: skip
OUTPUTS = ("out", "out2", "out.png", "out.jsonl")
# These may change the checkpoint itself; no other may.
IN_PLACE = {"convert in place", "undo", "bake in place", "recover", "fix"}


class ReachedTorch(BaseException):
    """The command went on to run the model."""


class _Heavy(MetaPathFinder, Loader):
    """Stands for torch and its kind: they seem to be installed, and importing one is the end."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] in HEAVY else None

    def exec_module(self, module: Any) -> None:
        raise ReachedTorch(module.__name__)


class Trial:
    """A hostile checkpoint, the canary beside it, and commands that meet both.

    Args:
        make: spoils a copy of `healthy`; gets it and the canary.
        healthy: a sound checkpoint.
        work: an empty directory.
    """

    def __init__(self, make: Callable[[Path, Path], None], healthy: Path, work: Path) -> None:
        self.work, self.healthy = work, healthy
        self.place, self.canary = work / "item", work / "canary"
        shutil.copytree(healthy, self.place)
        (self.canary / "deep").mkdir(parents=True)
        (self.canary / "precious.json").write_text('{"kept": true}')
        (self.canary / "deep" / "run.sh").write_text("true\n")
        (self.canary / "deep" / "run.sh").chmod(0o750)
        (work / "home").mkdir()
        make(self.place, self.canary)

    def meet(self, commands: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
        """What each command did: how it ended, and everything that is wrong with that.

        It ends with its exit code, or "torch" where it went on to run the model. After the first
        complaint the others are not tried.
        """
        before, mine = state(self.canary), state(self.place)
        found = {}
        for command, (ended, wrong) in _forked(list(commands), self.work, self.healthy).items():
            found[command] = (ended, wrong)
            if state(self.canary) != before:
                wrong.append("the canary was touched")
            if not IN_PLACE & {*commands} and state(self.place) != mine:
                wrong.append("the checkpoint was changed")
            allowed = {"item", "real", "canary", "home", *OUTPUTS}
            left = {path.name for path in self.work.iterdir()} - allowed
            wrong += [f"left behind: {name}" for name in left]
            wrong += [f"home: {name}" for name in _home(self.work / "home")]
        return found


def remove(work: Path) -> None:
    """Remove a directory, whatever the modes in it are."""
    for directory, names, _ in os.walk(work):
        for name in names:
            with contextlib.suppress(OSError):
                if not Path(directory, name).is_symlink():
                    Path(directory, name).chmod(0o700)
    shutil.rmtree(work)


def errors(text: str) -> int:
    return sum(line.startswith("error:") for line in text.splitlines())


def _home(home: Path) -> Iterator[str]:
    """What is new in the user's home, but for the state directory that SECURITY.md names."""
    for path in home.rglob("*"):
        name = path.relative_to(home).as_posix()
        state_place = ".local/state/yarncli"
        if not (state_place + "/").startswith(name + "/") and not name.startswith(state_place):
            yield name


def state(place: Path) -> dict[str, Any]:
    """Names, kinds, modes, times and contents of a directory, whatever it holds."""
    found: dict[str, Any] = {}
    todo = [place]
    while todo:
        path = todo.pop()
        info = path.lstat()
        held: Any = None
        if path.is_symlink():
            held = os.fsencode(path.readlink())
        elif path.is_dir():
            with contextlib.suppress(PermissionError):
                todo += path.iterdir()
        elif path.is_file():
            held = hashlib.sha256(path.read_bytes()).digest()
        about = (info.st_mode, info.st_mtime_ns, info.st_ino, info.st_nlink, held)
        found[os.fsencode(path).hex()] = about
    return found


def _forked(commands: list[str], work: Path, healthy: Path) -> dict[str, tuple[str, list[str]]]:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork beside threads
        pid = os.fork()
    if pid == 0:
        gc.freeze()  # a collection would copy the pages of all that the parent holds
        try:
            os.close(reading)
            _confine(work, healthy)
            for command in commands:
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                told = _try(command, work, healthy)
                with os.fdopen(os.dup(writing), "w") as pipe:
                    pipe.write(json.dumps([command, *told]) + "\n")
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    lines = _read(reading, pid).decode().splitlines()
    status = os.waitpid(pid, 0)[1]
    found = {command: (ended, wrong) for command, ended, wrong in map(json.loads, lines)}
    if len(found) < len(commands):
        name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "died"
        why = {"SIGPROF": f"took more than {SECONDS} s", "SIGKILL": "hung"}.get(name, name)
        found[commands[len(found)]] = (name, [why])
    return found


def _confine(work: Path, healthy: Path) -> None:
    """No network, no home, no torch, no warning, little memory, and an end."""
    os.environ.update(
        HOME=str(work / "home"),
        XDG_CACHE_HOME=str(work / "home"),
        HF_HUB_OFFLINE="1",
        MPLCONFIGDIR=str(healthy.parent),
    )
    os.environ.pop("XDG_STATE_HOME", None)
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    constants.HF_HUB_CACHE = str(work / "home" / "hub")
    os.chdir(work)
    for name in [name for name in sys.modules if name.partition(".")[0] in HEAVY]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Heavy())
    warnings.simplefilter("error")
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the child even inside a pattern
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (MEGABYTES << 20), resource.RLIM_INFINITY))


def _try(command: str, work: Path, healthy: Path) -> tuple[str, list[str]]:
    words = {"ITEM": str(work / "item"), "OUT": str(work / "out"), "OUT2": str(work / "out2"),
             "HEALTHY": str(healthy)}  # fmt: skip
    argv = [
        re.sub(r"\b(ITEM|OUT2?|HEALTHY)\b", lambda found: words[found[0]], argument)
        for argument in COMMANDS[command]
    ]
    ended, wrong = _run(argv)
    made = [path for name in OUTPUTS if os.path.lexists(path := work / name)]
    if made and ended not in ("0", "1", "torch"):
        wrong.append(f"refused ({ended}), but there is output")
    for path in made:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return ended, wrong


def _read(pipe: int, pid: int) -> bytes:
    data, until = b"", time.monotonic() + HANGS
    while True:  # from the last word on
        ready = select.select([pipe], [], [], max(until - time.monotonic(), 0))[0]
        if not ready:
            os.kill(pid, signal.SIGKILL)
            break
        piece = os.read(pipe, 1 << 16)
        if not piece:
            break
        data += piece
        until = time.monotonic() + HANGS
    os.close(pipe)
    return data


def _run(argv: list[str]) -> tuple[str, list[str]]:
    try:
        result = invoke(*argv)
    except ReachedTorch:
        return "torch", []
    if isinstance(result.exception, ReachedTorch):
        return "torch", []
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        shown = "".join(traceback.format_exception(result.exception))
        return "traceback", [shown[-3000:]]
    wrong = []
    output = result.output
    if result.exit_code not in EXIT_CODES:
        wrong.append(f"the exit code {result.exit_code}")
    if result.exit_code > 1 and errors(result.stderr) != 1:
        wrong.append(f"no single error: {result.stderr[-500:]!r}")
    if bad := {c for c in output if not c.isprintable() and c not in "\n\t"}:
        wrong.append(f"characters that drive the terminal: {bad!r}")
    longest = max(map(len, output.splitlines()), default=0)
    if argv[0] not in ("card", "push") and longest > 20_000:  # those print a card as it is
        wrong.append(f"a line of {longest} characters")
    return str(result.exit_code), wrong
