"""Change weights in place under an undo journal, and recover from an interrupted change.

States of a directory, in order: untouched; journal only (nothing is patched yet); journal and
`config.json.yarncli-pending`, no `config.json` (may be half patched); both and the new
`config.json` (done, not cleaned up); done.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal
from zlib import crc32

from yarncli.checkpoint.output import (
    JOURNAL_NAME,
    PENDING_NAME,
    atomic_write,
    locked_directory,
    move_to_original,
    output_errors,
    pending,
    refuse_shared_file,
    remove_temporaries,
    require_not_pending,
    require_space,
    sync,
)
from yarncli.checkpoint.rewrite import Patch, read_exactly, write_exactly
from yarncli.checkpoint.safetensors import is_safe_name
from yarncli.errors import CheckpointError, OutputError
from yarncli.progress import Advance

_CONFIG = "config.json"
_MAGIC = b"yarncli undo journal 1\n"
_RECORD = struct.Struct("<III")  # lengths of the JSON and of the old bytes, CRC-32 of both
_MAX_JSON = 1 << 16
_MAX_DATA = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """One step to undo: put `data` back at `offset` of `name`."""

    name: str
    """POSIX path of the file, relative to the checkpoint."""
    size: int
    """Of the file before the change, in bytes; 0 if it did not exist."""
    offset: int | None
    """Where `data` lay, in bytes from the start; None if `data` is the whole file."""
    data: bytes | None
    """The bytes of before; None if the file did not exist."""


def patch_in_place(
    directory: Path,
    patches: Mapping[str, Sequence[Patch]],
    config: bytes,
    others: Mapping[str, bytes] | None = None,
    *,
    progress: Advance | None = None,
) -> Path:
    """Patch shards in place and replace `config.json`: entirely, or not at all.

    Everything old goes to the journal, which is flushed to the disk; `config.json` is moved away,
    so that no engine loads what follows; the patches are written, flushed and read back; the new
    `config.json` appears last. Any exception puts the old state back. After a SIGKILL or a power
    loss, `recover` does.

    Args:
        directory: the checkpoint.
        patches: shard name → patches (not overlapping).
        config: the new `config.json`.
        others: further small files to write with it (`yarncli.json`); name → content.
        progress: called with bytes done; their sum is twice the bytes of all patches.

    Returns:
        The backup of the old `config.json`.

    Raises:
        CheckpointError: a change is pending, or a file must not be changed in place.
        OutputError: the disk is full, a file cannot be written, or does not read back.
    """
    others = others or {}
    with output_errors(str(directory)), _only_here(directory):
        _begin(directory, patches, others, progress)
        try:
            _apply(directory, patches, progress)
            for name, data in others.items():
                atomic_write(directory / name, data)
            atomic_write(directory / _CONFIG, config)  # from here on the change is done
            return _clean_up(directory)
        except BaseException:
            _recover(directory)
            raise


def recover(directory: Path) -> Literal["nothing", "old", "new"]:
    """Bring a directory out of an interrupted change.

    Returns:
        "nothing" (none was pending), "old" (the old state is back), or "new" (the change had been
        completed, and only the journal was left).

    Raises:
        CheckpointError: the journal is missing or damaged, or the files are not those it was
            written for; nothing is changed then.
        OutputError: a file cannot be written; run it again.
    """
    if not pending(directory):
        return "nothing"
    with output_errors(str(directory)), _only_here(directory):
        return _recover(directory)


@contextmanager
def _only_here(directory: Path) -> Iterator[None]:
    try:
        with locked_directory(directory):
            yield
    except BlockingIOError:
        raise CheckpointError(
            f"Another process is changing {directory} right now. Wait until it has ended."
        ) from None


def _begin(
    directory: Path,
    patches: Mapping[str, Sequence[Patch]],
    others: Mapping[str, bytes],
    progress: Advance | None,
) -> None:
    require_not_pending(directory)
    for name in [_CONFIG, *patches, *others]:
        if not is_safe_name(name):
            raise AssertionError(f"{name!r} is no name inside the checkpoint")
        refuse_shared_file(directory / name)
    nbytes = sum(patch.length for each in patches.values() for patch in each)
    require_space(directory, nbytes + (1 << 20))
    try:
        with (directory / JOURNAL_NAME).open("xb") as file:
            file.write(_MAGIC)
            count = 0
            for record in _records(directory, patches, others):
                _write_record(file, record)
                count += 1
                if progress and record.offset is not None:
                    progress(len(record.data or b""))
            _write_json(file, {"end": count}, b"")
            file.flush()
            os.fsync(file.fileno())
        sync(directory)
        (directory / _CONFIG).rename(directory / PENDING_NAME)
        sync(directory)
    except BaseException:
        _recover(directory)
        raise


def _apply(
    directory: Path,
    patches: Mapping[str, Sequence[Patch]],
    progress: Advance | None,
) -> None:
    """Write the patches, flush them, and read them back."""
    for name, each in patches.items():
        path = directory / name
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            written = []
            for patch in each:
                for offset, length in patch.pieces():
                    made = patch.apply(read_exactly(descriptor, offset, length))
                    write_exactly(descriptor, made, offset)
                    written.append((offset, length, crc32(made)))
                    if progress:
                        progress(length)
            os.fsync(descriptor)
            for offset, length, checksum in written:
                if crc32(read_exactly(descriptor, offset, length)) != checksum:
                    raise OutputError(
                        f"{path} does not read back what was written at byte {offset}. "
                        "The disk may be failing."
                    )
        finally:
            os.close(descriptor)


def _recover(directory: Path) -> Literal["old", "new"]:
    journal, aside, config = (directory / n for n in (JOURNAL_NAME, PENDING_NAME, _CONFIG))
    done: Literal["old", "new"] = "old"
    if os.path.lexists(aside) and os.path.lexists(config):
        _clean_up(directory)
        done = "new"
    elif os.path.lexists(aside):
        _check_journal(directory)
        for record in _read_records(journal):
            _undo(directory, record)
        aside.rename(config)
        sync(directory)
    # Without config.json.yarncli-pending nothing was patched, or all of it and cleaned up.
    remove_temporaries(directory)
    journal.unlink(missing_ok=True)
    sync(directory)
    return done


def _clean_up(directory: Path) -> Path:
    backup = move_to_original(directory / PENDING_NAME, directory / _CONFIG)
    (directory / JOURNAL_NAME).unlink(missing_ok=True)
    sync(directory)
    return backup


def _records(
    directory: Path, patches: Mapping[str, Sequence[Patch]], others: Mapping[str, bytes]
) -> Iterator[_Record]:
    for name, each in patches.items():
        descriptor = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            size = os.fstat(descriptor).st_size
            for patch in each:
                for offset, length in patch.pieces():
                    data = read_exactly(descriptor, offset, length)
                    yield _Record(name=name, size=size, offset=offset, data=data)
        finally:
            os.close(descriptor)
    for name in others:
        try:
            data = (directory / name).read_bytes()
        except FileNotFoundError:
            yield _Record(name=name, size=0, offset=None, data=None)
        else:
            yield _Record(name=name, size=len(data), offset=None, data=data)


def _write_record(file: BinaryIO, record: _Record) -> None:
    fields = {"name": record.name, "size": record.size, "offset": record.offset}
    if record.data is None:
        fields["missing"] = True
    _write_json(file, fields, record.data or b"")


def _write_json(file: BinaryIO, fields: Mapping[str, Any], data: bytes) -> None:
    head = json.dumps(fields).encode()
    file.write(_RECORD.pack(len(head), len(data), crc32(data, crc32(head))))
    file.write(head)
    file.write(data)


def _check_journal(directory: Path) -> None:
    """Read the whole journal once, so that nothing is undone unless everything can be."""
    for record in _read_records(directory / JOURNAL_NAME):
        path = directory / record.name
        refuse_shared_file(path)
        if record.offset is None:
            continue
        size = path.stat().st_size if path.is_file() else -1
        end = record.offset + len(record.data or b"")
        if size != record.size or record.offset < 0 or end > size:
            raise CheckpointError(
                f"{path} is not the file that the journal was written for, so the old state "
                "cannot be restored. Get the checkpoint again."
            )


def _read_records(journal: Path) -> Iterator[_Record]:
    damaged = CheckpointError(
        f"{journal} is missing or damaged, so the old state cannot be restored. "
        "Get the checkpoint again."
    )
    if journal.is_symlink() or not journal.is_file():
        raise damaged
    with journal.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise damaged
        count = 0
        while True:
            start = file.read(_RECORD.size)
            if len(start) < _RECORD.size:
                raise damaged
            head_size, data_size, checksum = _RECORD.unpack(start)
            if head_size > _MAX_JSON or data_size > _MAX_DATA:
                raise damaged
            head, data = file.read(head_size), file.read(data_size)
            if len(data) != data_size or crc32(data, crc32(head)) != checksum:
                raise damaged
            fields = _parse_fields(head, damaged)
            if "end" in fields:
                if fields["end"] != count or file.read(1):
                    raise damaged
                return
            count += 1
            yield _record(fields, data, damaged)


def _parse_fields(head: bytes, damaged: CheckpointError) -> dict[str, Any]:
    try:
        fields = json.loads(head)
    except (ValueError, RecursionError):
        raise damaged from None
    if not isinstance(fields, dict):
        raise damaged
    return fields


def _record(fields: Mapping[str, Any], data: bytes, damaged: CheckpointError) -> _Record:
    name, size, offset = fields.get("name"), fields.get("size"), fields.get("offset")
    if not isinstance(name, str) or not is_safe_name(name):
        raise damaged
    if type(size) is not int or (offset is not None and type(offset) is not int):
        raise damaged
    held = None if fields.get("missing") else data
    return _Record(name=name, size=size, offset=offset, data=held)


def _undo(directory: Path, record: _Record) -> None:
    path = directory / record.name
    if record.data is None:
        with suppress(FileNotFoundError):
            path.unlink()
    elif record.offset is None:
        atomic_write(path, record.data)
    else:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            write_exactly(descriptor, record.data, record.offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
