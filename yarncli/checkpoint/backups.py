"""The `*.orig` files that a change in place leaves beside the files that it changed."""

from __future__ import annotations

import stat

from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.output import output_errors
from yarncli.checkpoint.recovery import BACKUP


def backup_numbers(directory: Directory, name: str) -> list[int]:
    """The numbers of the backups of a file, 0 for the one without, oldest first."""
    return sorted(
        int(match[2] or 0)
        for entry in directory.names()
        if (match := BACKUP.fullmatch(entry)) and match[1] == name
    )


def backups_of(directory: Directory, name: str) -> list[str]:
    """The names of the backups of a file, oldest first."""
    numbers = backup_numbers(directory, name)
    return [f"{name}.orig" + (f".{number}" if number else "") for number in numbers]


def needless_backups(directory: Directory, name: str, becomes: bytes) -> list[str]:
    """The backups that are not needed: equal to the new content of the file, or to an older backup.

    Args:
        directory: locked exclusively (see `changing`).
        name: of the file.
        becomes: the new content of the file.

    Raises:
        OutputError: one cannot be read.
    """
    known, needless = {becomes}, []
    with output_errors(str(directory.path)):
        for backup in backups_of(directory, name):
            info = directory.info(backup)
            data = directory.read(backup) if info and stat.S_ISREG(info.st_mode) else None
            if data in known:
                needless.append(backup)
            elif data is not None:
                known.add(data)
    return needless
