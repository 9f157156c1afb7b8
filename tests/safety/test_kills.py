"""Every command killed before and half-way through every call that changes something.

Whatever the instant: a source that is only read is untouched, an output is absent or whole, a model
in place is old, new or recoverable, and the same command, run again, finishes what it had begun.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.checkpoints import snapshot
from support.commands import COMMANDS, Command, assert_consistent, finished, prepare
from support.kills import kill_at_every_call, run_killed
from yarncli.checkpoint.directory import pending
from yarncli.checkpoint.recovery import recover
from yarncli.errors import YarncliError

States = dict[str, Path]


# The longest runs, which go the same ways as the others.
LONG = {
    "bake with an adapter",
    "bake in place with an adapter",
    "convert and bake",
    "finish in place",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.full if name in LONG else ()) for name in COMMANDS],
)
def test_killed_anywhere(name: str, states: States, tmp_path: Path) -> None:
    command = COMMANDS[name]
    old, new = snapshot(states[command.start]), finished(states, command, tmp_path)
    kills = 0

    def check(directory: Path, where: str) -> None:
        nonlocal kills
        kills += where != "completed"
        if where == "completed":
            assert snapshot(directory) == new
            return
        assert_whole(directory, command, old, new)
        run_again(directory, command, old, new)

    calls = kill_at_every_call(work(tmp_path), prepare(states, command), command.run, check)
    assert kills == 2 * len(calls)
    assert calls or name == "card"


def assert_whole(
    directory: Path, command: Command, old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    """What must hold right after a kill."""
    found = snapshot(directory)
    assert_consistent(directory / "model")
    if not command.in_place:
        assert {n: d for n, d in found.items() if n.startswith("model")} == {
            n: d for n, d in old.items() if n.startswith("model")
        }
        made = {n: d for n, d in found.items() if n.partition("/")[0] == "out"}
        assert made in ({}, {n: d for n, d in new.items() if n.partition("/")[0] == "out"})


def run_again(
    directory: Path, command: Command, old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    """The same command finishes the job, or refuses because it had been done."""
    try:
        command.run(directory)
    except YarncliError:
        if command.in_place and pending(directory / "model"):
            raise
    if snapshot(directory) == old and command is COMMANDS["undo"]:
        raise AssertionError("nothing was undone")
    assert snapshot(directory) == new


@pytest.mark.full
@pytest.mark.parametrize("half", [False, True])
def test_killed_and_killed_again_while_recovering(
    half: bool, states: States, tmp_path: Path
) -> None:
    """A bake in place killed at every call, and its recovery at every one of its own calls."""
    command = COMMANDS["bake in place"]
    old, new = snapshot(states[command.start]), finished(states, command, tmp_path)
    first, kills = work(tmp_path) / "first", 0
    for number in range(10_000):
        prepare(states, command)(first)
        ended = run_killed(command.run, first, number, half=half)
        if ended.completed:
            break
        if pending(first / "model"):
            kills += kill_the_recovery(first, old, new)
        shutil.rmtree(first)
    assert kills > 300


def kill_the_recovery(first: Path, old: dict[str, bytes], new: dict[str, bytes]) -> int:
    kills = 0
    again = first.with_name("again")
    for number in range(10_000):
        for half in (False, True):
            shutil.copytree(first, again)
            ended = run_killed(lambda d: recover(d / "model", trust_journal=True), again, number,
                               half=half)  # fmt: skip
            assert ended.completed or ended.killed, ended.told
            kills += ended.killed
            assert_consistent(again / "model")
            recover(again / "model", trust_journal=True)
            assert snapshot(again) in (old, new)
            shutil.rmtree(again)
        if ended.completed:
            return kills
    raise AssertionError("the recovery never ended")


def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"
