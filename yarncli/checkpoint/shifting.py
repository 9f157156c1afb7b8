"""Move the content of a file in place, by whole blocks of its file system, and back again."""

from __future__ import annotations

import errno
import os
import stat
from typing import Literal

from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.journal import ResizeRecord
from yarncli.checkpoint.system import flush, read_at, write_exactly
from yarncli.errors import CheckpointError

# What a file is called while its content is moved, so that no engine loads it.
PENDING_SUFFIX = ".yarncli-pending"
# linux/falloc.h
_COLLAPSE_RANGE, _INSERT_RANGE = 0x08, 0x20


def shift_content(descriptor: int, shift: int) -> None:
    """Put `shift` bytes before the content of a file, or (negative) take them away there.

    No data are copied. ext4 and XFS can do it.

    Raises:
        OSError: the system or the file system cannot, or the shift is no whole number of blocks.
    """
    if not shift:
        return
    import ctypes

    mode = _INSERT_RANGE if shift > 0 else _COLLAPSE_RANGE
    try:
        library = ctypes.CDLL(None, use_errno=True)
        # Offsets of 64 bits, which `fallocate` has not on every 32-bit system.
        fallocate = library.fallocate64 if hasattr(library, "fallocate64") else library.fallocate
    except (AttributeError, OSError, TypeError) as error:  # no Linux
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)) from error
    offset, length = ctypes.c_int64(0), ctypes.c_int64(abs(shift))
    while fallocate(descriptor, mode, offset, length):
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def resize_state(directory: Directory, record: ResizeRecord) -> Literal["old", "new", "between"]:
    """The state of a file after an interrupted change: old, new, or between.

    Raises:
        CheckpointError: it is not the file that was being changed.
    """
    if directory.info(record.name + PENDING_SUFFIX) is not None:
        os.close(_open_pending(directory, record))
        return "between"
    info = directory.info(record.name)
    if info is None or not stat.S_ISREG(info.st_mode) or info.st_size != record.size:
        return "new"  # or another file: nothing of it is to be restored
    descriptor = directory.open(record.name)
    try:
        same = all(read_at(descriptor, at, len(old)) == old for at, old in record.ranges)
    finally:
        os.close(descriptor)
    return "old" if same else "new"


def put_back(directory: Directory, record: ResizeRecord) -> None:
    """Bring a file back to what it was; interrupted, it can be called again.

    Raises:
        CheckpointError: it is not the file that was being changed.
        OSError: it cannot be written.
    """
    pending = record.name + PENDING_SUFFIX
    if directory.info(pending) is None:
        return
    descriptor = _open_pending(directory, record)
    try:
        if os.fstat(descriptor).st_size != record.size:
            # First set a size that only moved content has, so that it is not moved back twice.
            os.ftruncate(descriptor, record.size + record.shift)
            shift_content(descriptor, -record.shift)
        for offset, old in record.ranges:
            write_exactly(descriptor, old, offset)
        flush(descriptor)
    finally:
        os.close(descriptor)
    directory.rename(pending, record.name)
    directory.sync(record.name)


def _open_pending(directory: Directory, record: ResizeRecord) -> int:
    pending = record.name + PENDING_SUFFIX
    descriptor = directory.open(pending, os.O_RDWR | os.O_NONBLOCK)
    info = os.fstat(descriptor)
    moved = sorted((record.size + record.shift, record.new_size))
    known = info.st_size == record.size or moved[0] <= info.st_size <= moved[1]
    if not stat.S_ISREG(info.st_mode) or not known:
        os.close(descriptor)
        raise CheckpointError(
            f"{directory.path / pending} is not the file that was being changed: it has another "
            "size. Nothing was restored. Get the model again."
        )
    if directory.info(record.name) is not None:
        os.close(descriptor)
        raise CheckpointError(
            f"{directory.path} holds both {record.name} and {pending}, which was being changed and "
            f"is to get that name again. Move {record.name} away, or remove {pending}."
        )
    return descriptor
