"""Where a system lacks locks and descriptors of directories: copies work, in place is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import yarncli
from support.checkpoints import snapshot
from support.commands import COMMANDS, finished, prepare
from support.kills import Child
from yarncli.checkpoint import system
from yarncli.demo import write_demo
from yarncli.errors import UsageError

HIDDEN = (
    "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "pread", "pwrite", "copy_file_range", "fchmod",
    "fchown", "geteuid", "posix_fadvise",
)  # fmt: skip


def hide() -> None:
    """Take away what Windows does not have."""
    for name in HIDDEN:
        if hasattr(os, name):
            delattr(os, name)
    sys.modules["fcntl"] = None  # type: ignore[assignment]
    system.fcntl = None  # type: ignore[assignment]
    system._HAS_DIR_FD = False


def run_without(run: Any, directory: Path) -> Any:
    """How a run ends in a process without them."""

    def hidden(place: Path) -> None:
        hide()
        run(place)

    return Child(hidden, directory, lambda _: lambda *call: call[2]()).wait()


@pytest.mark.parametrize("name", COMMANDS)
def test_without_them(name: str, states: dict[str, Path], tmp_path: Path) -> None:
    command = COMMANDS[name]
    new = finished(states, command, tmp_path)
    prepare(states, command)(tmp_path / "work")
    old = snapshot(tmp_path / "work")
    ended = run_without(command.run, tmp_path / "work")
    if command.in_place:
        assert ended.status >> 8 == 100 + UsageError.exit_code, ended.told
        assert "Give the directory to write, OUT, instead." in ended.told
        assert snapshot(tmp_path / "work") == old
    else:
        assert ended.completed, ended.told
        assert snapshot(tmp_path / "work") == new


@pytest.mark.parametrize("name", ["open_checkpoint", "inspect", "judge", "check"])
def test_reading_without_them(name: str, tmp_path: Path) -> None:
    write_demo(tmp_path / "model")
    read = getattr(yarncli, name)
    ended = run_without(lambda directory: read(directory / "model"), tmp_path)
    assert ended.completed, ended.told
