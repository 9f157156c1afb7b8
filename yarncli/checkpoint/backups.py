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


def remove_needless(directory: Directory, name: str) -> list[str]:
    """Remove the backups of a file that hold what it or an earlier backup holds.

    Args:
        directory: held alone (see `changing`).
        name: of the file.

    Returns:
        The names of the backups that are left, oldest first.

    Raises:
        OutputError: one cannot be removed.
    """
    with output_errors(str(directory.path)):
        known, left = {directory.read(name)}, []
        for number in backup_numbers(directory, name):
            backup = f"{name}.orig" + (f".{number}" if number else "")
            info = directory.info(backup)
            data = directory.read(backup) if info and stat.S_ISREG(info.st_mode) else None
            if data is not None and data in known:
                directory.remove(backup)
            else:
                known.add(data)
                left.append(backup)
        directory.sync(name)
        return left
