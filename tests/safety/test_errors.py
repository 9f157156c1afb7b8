"""Every command with every call refused once by the system: one sentence, and the old state."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from support.checkpoints import snapshot
from support.commands import COMMANDS, assert_consistent, finished, prepare
from support.kills import calls_of, run_refused
from yarncli.checkpoint.directory import pending
from yarncli.checkpoint.recovery import recover
from yarncli.errors import CheckpointError, OutputError

FORESEEN = {100 + error.exit_code for error in (OutputError, CheckpointError)}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "card"])
@pytest.mark.parametrize(
    "code",
    [
        errno.ENOSPC,
        pytest.param(errno.EIO, marks=pytest.mark.full),
        pytest.param(errno.EACCES, marks=pytest.mark.full),
        pytest.param(errno.EROFS, marks=pytest.mark.full),
    ],
    ids=errno.errorcode.get,
)
def test_refused_anywhere(name: str, code: int, states: dict[str, Path], tmp_path: Path) -> None:
    command = COMMANDS[name]
    old, new = snapshot(states[command.start]), finished(states, command, tmp_path)
    directory = tmp_path / "work"
    prepare(states, command)(directory)
    count = len(calls_of(command.run, directory))
    assert count > 3
    shutil.rmtree(directory)
    for number in range(count):
        prepare(states, command)(directory)
        ended = run_refused(command.run, directory, number, code)
        where = f"{errno.errorcode[code]} at call {number}: {ended.told}"
        status = ended.status >> 8
        assert ended.completed or status in FORESEEN, where
        assert_consistent(directory / "model")
        found = snapshot(directory)
        if ended.completed:  # the system's refusal did not matter, as for what is remembered
            assert found == new, where
        elif pending(directory / "model"):
            assert name == "recover" or "bake --recover" in ended.told, where
            recover(directory / "model", trust_journal=True)
            assert snapshot(directory) in (old, new), where
        else:
            assert found in (old, new), where
        shutil.rmtree(directory)
