"""Two commands on one model, the first paused before each of its calls: never a mixture."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from support.checkpoints import snapshot
from support.commands import COMMANDS, Command, Run, assert_consistent
from support.kills import Child, calls_of, pause_at
from yarncli.checkpoint.directory import BusyError

# The second command writes to a directory of its own. A bake with an adapter holds the model as a
# bake without one does; `finish` holds it as `bake` does, and starts from two directories.
ALONE = [name for name in COMMANDS if "adapter" not in name and "finish" not in name]
PAIRS = [*itertools.product(ALONE, ALONE)]


@pytest.mark.full
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_side_by_side(first: str, second: str, states: dict[str, Path], tmp_path: Path) -> None:
    """The first pauses at a third of its calls, others in each pair; in `make test-deep` at all."""
    step = 1 if "YARNCLI_FUZZ_SEED" in os.environ else 3
    meet(first, second, states, tmp_path, step, PAIRS.index((first, second)) % step)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("bake in place", "convert"),
        ("bake in place", "bake in place"),
        ("bake", "bake in place"),
        ("convert", "undo"),
        ("undo", "card"),
        ("finish", "convert in place"),
        ("finish in place", "card"),
    ],
)
def test_some_side_by_side(
    first: str, second: str, states: dict[str, Path], tmp_path: Path
) -> None:
    meet(first, second, states, tmp_path, 7)


@pytest.mark.parametrize(
    ("first", "second"),
    [("convert", "convert in place"), ("bake", "undo"), ("undo", "card"), ("undo", "convert"),
     ("convert and bake", "check and fix"), ("bake in place", "recover")],
)  # fmt: skip
def test_the_lock_keeps_the_second_out(
    first: str, second: str, states: dict[str, Path], tmp_path: Path
) -> None:
    """Not only is the result no mixture: the second command does not begin."""
    shutil.copytree(states[COMMANDS[first].start], tmp_path / "work")
    paused = pause_at(COMMANDS[first].run, tmp_path / "work", 3)
    paused.told()
    ended = Child(
        separately(COMMANDS[second]), tmp_path / "work", lambda _: lambda *call: call[2]()
    ).wait()
    paused.go()
    assert paused.wait().completed
    assert ended.status >> 8 == 100 + BusyError.exit_code
    assert "Another process is using" in ended.told


def meet(
    first: str, second: str, states: dict[str, Path], tmp_path: Path, step: int, start_at: int = 0
) -> None:
    one, two = COMMANDS[first], COMMANDS[second]
    start = states[one.start]
    outcomes = [alone(start, order, tmp_path) for order in ((one, two), (two, one), (one,), (two,))]
    directory = tmp_path / "work"
    shutil.copytree(start, directory)
    count = len(calls_of(one.run, directory))
    shutil.rmtree(directory)
    for number in range(start_at % max(count, 1), count, step):
        shutil.copytree(start, directory)
        paused = pause_at(one.run, directory, number)
        where = f"paused at call {number} ({paused.told()})"
        run(two, directory)
        assert_consistent(directory / "model")
        paused.go()
        ended = paused.wait()
        assert ended.completed or 100 <= ended.status >> 8 < 110, f"{where}: {ended.told}"
        assert_consistent(directory / "model")
        found = models(directory)
        assert found in outcomes, where
        shutil.rmtree(directory)


def run(command: Command, directory: Path) -> None:
    """Run the second command in a process of its own; it may be refused, in a sentence."""
    ended = Child(separately(command), directory, lambda _: lambda *call: call[2]()).wait()
    assert ended.completed or 100 <= ended.status >> 8 < 110, ended.told


def separately(command: Command) -> Run:
    """The command, with its output beside that of the other command."""

    def run_there(directory: Path) -> object:
        if command.in_place:
            return command.run(directory)
        place = Path(tempfile.mkdtemp(prefix="second", dir=directory))
        (place / "model").symlink_to(directory / "model")
        return command.run(place)

    return run_there


def alone(start: Path, order: tuple[Command, ...], tmp_path: Path) -> dict[str, bytes]:
    """What undisturbed runs, one after the other, leave of the model."""
    directory = tmp_path / "alone"
    shutil.copytree(start, directory)
    for command in order:
        run(command, directory)
    found = models(directory)
    shutil.rmtree(directory)
    return found


def models(directory: Path) -> dict[str, bytes]:
    """The model, and that every output belongs together."""
    for out in [*directory.glob("out"), *directory.glob("second*/out")]:
        assert_consistent(out)
        assert json.loads((out / "yarncli.json").read_text())["steps"]
    return snapshot(directory / "model")
