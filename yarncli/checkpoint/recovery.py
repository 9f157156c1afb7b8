"""Recover a directory from an interrupted change in place; only the bytes of its files count."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from yarncli.checkpoint.directory import (
    JOURNAL_NAME,
    PENDING_NAME,
    Directory,
    JournalError,
    hold,
    is_temporary,
)
from yarncli.checkpoint.journal import (
    FileRecord,
    Journal,
    RangeRecord,
    ResizeRecord,
    checksum,
    read_journal,
)
from yarncli.checkpoint.output import output_errors
from yarncli.checkpoint.shifting import put_back, resize_state
from yarncli.checkpoint.system import flush, read_exactly, write_exactly
from yarncli.errors import CheckpointError

BACKUP = re.compile(r"(.+)\.orig(?:\.([1-9][0-9]{0,8}))?")
# The files that commands change in place; a journal that names any other file is not ours.
_SMALL = re.compile(r"(?:config|generation_config|tokenizer_config|yarncli|.*\.index)\.json")

State = Literal["nothing", "old", "new"]


def recover(path: Path, *, trust_journal: bool = False) -> State:
    """Recover a directory from an interrupted change.

    Args:
        path: the directory.
        trust_journal: use a journal also if it is not known that this user wrote it.

    Returns:
        "nothing" (none was pending), "old" (the old state is back), or "new" (the change had been
        completed, and only the journal was left).

    Raises:
        JournalError: the journal is missing, damaged, or of another user; says what it would do.
        CheckpointError: the journal was written for other files; nothing is changed then.
        OutputError: a file cannot be written; run it again.
    """
    with hold(path, "exclusive") as directory, output_errors(str(path)):
        return recover_held(directory, trust=trust_journal)


@contextmanager
def journal_of(directory: Directory) -> Iterator[Journal | None]:
    """The journal of a directory, well formed; None if there is none."""
    where = str(directory.path / JOURNAL_NAME)
    found = directory.info(JOURNAL_NAME)
    if found is None:
        yield None
        return
    if not stat.S_ISREG(found.st_mode):
        raise JournalError(f"{where} is not a regular file, so it is not used. Remove it.")
    with os.fdopen(directory.open(JOURNAL_NAME), "rb") as file:
        yield read_journal(file, where)


def recover_held(directory: Directory, *, trust: bool) -> State:
    """`recover` for a directory that is locked exclusively already."""
    with journal_of(directory) as journal:
        if journal is None:
            if directory.info(PENDING_NAME) is not None:
                raise JournalError(
                    f"{directory.path} holds {PENDING_NAME} without the journal of the change, so "
                    "its weights may be half changed. Get the checkpoint again; or, if you know "
                    f"that they are as they should be, rename it to config.json."
                )
            _remove_temporaries(directory)
            return "nothing"
        if journal.key is None and not trust:
            raise _foreign(directory, journal)
        _refuse_strange_names(journal)
        state: State = "new" if _states(directory, journal) == {"new"} else "old"
        if state == "old":
            undo(directory, journal)
    clean_up(directory)
    if journal.key:
        journal.key.forget()
    return state


def _states(directory: Directory, journal: Journal) -> set[str]:
    """The state of all files together: "old", "new", or "between".

    Raises:
        CheckpointError: a file holds something else.
    """
    found: set[str] = set()
    torn: set[str] = set()
    for record in journal.records():
        if isinstance(record, FileRecord):
            states = _file_states(directory, record)
        elif isinstance(record, ResizeRecord):
            states = {resize_state(directory, record)}
        else:
            states = _range_states(directory, record, torn)
        # A file that is the same before and after the change does not show how far the change got.
        found |= states if len(states) == 1 else set()
    return found or {"new"}


def _file_states(directory: Directory, record: FileRecord) -> set[str]:
    data = directory.read(record.name)
    new = None if data is None else checksum(data)
    states = {"old"} if data == record.old else set()
    states |= {"new"} if new == record.new else set()
    if not states and data is None:
        states = {"between"}  # config.json, set aside
    if not states:
        raise CheckpointError(
            f"{directory.path / record.name} has neither its content from before the interrupted "
            "change nor the new content. Move it away, then run: " + recovery_command(directory)
        )
    return states


def _range_states(directory: Directory, record: RangeRecord, torn: set[str]) -> set[str]:
    """The state of a range. Systems write whole pages, so a kill leaves at most one mixed page."""
    data = _range(directory, record)
    states = {"old"} if data == record.old else set()
    states |= {"new"} if record.is_new(data) else set()
    if states:
        return states
    for offset in record.strange(data):
        if record.is_exact or record.name in torn:
            raise CheckpointError(
                f"{directory.path / record.name} is not the file that was being changed: from byte "
                f"{offset} it is neither old nor new. Nothing was restored. Get the checkpoint "
                "again."
            )
        torn.add(record.name)
    return {"between"}


def _range(directory: Directory, record: RangeRecord) -> bytes:
    """What the range holds now."""
    info = directory.info(record.name)
    if info is None or not stat.S_ISREG(info.st_mode) or info.st_size != record.size:
        raise CheckpointError(
            f"{directory.path / record.name} is not the file that was being changed: it is gone, "
            "or of another size. Nothing was restored. Get the checkpoint again."
        )
    descriptor = directory.open(record.name)
    try:
        return read_exactly(descriptor, record.offset, len(record.old))
    finally:
        os.close(descriptor)


def undo(directory: Directory, journal: Journal) -> None:
    """Write every old byte that is missing, whatever the file has in its place.

    Raises:
        CheckpointError: a file is gone, or of another size.
        OSError: one cannot be written.
    """
    changed = set()
    for record in journal.records():
        if isinstance(record, ResizeRecord):
            put_back(directory, record)
        if isinstance(record, RangeRecord) and _range(directory, record) != record.old:
            _write_range(directory, record)
            changed.add(record.name)
    for record in journal.records():
        if isinstance(record, FileRecord) and directory.read(record.name) != record.old:
            if record.old is None:
                directory.remove(record.name)
            else:
                directory.restore(record.name, record.old, record.owner)
            changed.add(record.name)
    directory.sync(*changed)


def _write_range(directory: Directory, record: RangeRecord) -> None:
    descriptor = directory.open(record.name, os.O_RDWR)
    try:
        write_exactly(descriptor, record.old, record.offset)
        flush(descriptor)
    finally:
        os.close(descriptor)


def clean_up(directory: Directory) -> None:
    """Remove what a finished change leaves. The journal goes last: it shows that a change began."""
    directory.remove(PENDING_NAME)
    _remove_temporaries(directory)
    directory.sync()
    directory.remove(JOURNAL_NAME)
    directory.sync()


def _remove_temporaries(directory: Directory) -> None:
    for name in directory.names():
        found = directory.info(name) if is_temporary(name) else None
        if found and not stat.S_ISDIR(found.st_mode):
            directory.remove(name)


def _refuse_strange_names(journal: Journal) -> None:
    """Refuse a journal, even a trusted one, that names a file which yarncli never changes."""
    for record in journal.records():
        backup = BACKUP.fullmatch(record.name)
        small = backup[1] if backup else record.name
        if isinstance(record, RangeRecord):
            known = record.name.endswith(".safetensors")
        elif isinstance(record, ResizeRecord):
            known = "/" not in record.name and record.ranges[0][1].startswith(b"GGUF")
        else:
            known = _SMALL.fullmatch(small) is not None
        if not known:
            raise JournalError(
                f"{journal.where} names {record.name}, which yarncli never changes, so the "
                "journal is not used. Remove it, and get the checkpoint again."
            )


def _foreign(directory: Directory, journal: Journal) -> JournalError:
    """The refusal of a journal that this user is not known to have written; shows its content."""
    text = (
        f"{journal.where} was not written by you on this machine, as far as the records in your "
        "state directory show, so it is not used without your consent."
    )
    return JournalError(
        f"{text} See what it would restore, and if that is right, restore it, with: "
        f"{recovery_command(directory)} --trust-journal",
        [*_ranges_of(journal)],
    )


def _ranges_of(journal: Journal) -> Iterator[str]:
    """`name: bytes 100 to 199` for every run of bytes that a journal restores."""
    name, begin, end = "", 0, 0
    for record in journal.records():
        if isinstance(record, RangeRecord) and (record.name, record.offset) == (name, end):
            end += len(record.old)
            continue
        if name:
            yield f"{name}: bytes {begin} to {end - 1}"
        name = ""
        if isinstance(record, ResizeRecord):
            size = sum(len(old) for _, old in record.ranges)
            yield f"{record.name}: {size} bytes of its header and its data, and its size"
        elif isinstance(record, RangeRecord):
            name, begin, end = record.name, record.offset, record.offset + len(record.old)
        elif record.old is None:
            yield f"{record.name}: removed"
        else:
            yield f"{record.name}: {len(record.old)} bytes, the whole file"
    if name:
        yield f"{name}: bytes {begin} to {end - 1}"


def recovery_command(directory: Directory) -> str:
    """What a user runs to restore the old state."""
    return f"yarncli bake --recover {shlex.quote(os.fspath(directory.path))}"
