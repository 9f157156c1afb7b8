"""Copies that the kernel makes: blocks that two files share, or bytes that pass no program."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from yarncli.checkpoint.system import next_data, read_exactly, write_exactly
from yarncli.progress import Advance

CHUNK = 1 << 20  # bytes of a range that are in memory at once; more leave the processor's cache
_COPY_STEP = 64 << 20  # bytes per kernel copy: often enough for progress and Ctrl-C
# Bytes that file systems can share between files, or shift, where both begin at a multiple.
BLOCK = 4096
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


def copy_range(
    source: int, destination: int, begin: int, end: int, to: int, count: Advance
) -> None:
    """Copy a range of a file `to` bytes further on in another; holes stay holes.

    Args:
        source: descriptor of the one.
        destination: descriptor of the other.
        begin: of the range, in bytes from the start of the source.
        end: of the range.
        to: how much further on it goes, in bytes; may be negative.
        count: called with the bytes done.

    Raises:
        CheckpointError: the source became shorter.
        OSError: the destination cannot be written.
    """
    info = os.fstat(source)
    if info.st_size > getattr(info, "st_blocks", info.st_size) * 512:
        os.ftruncate(destination, max(end + to, os.fstat(destination).st_size))
        for first, last, is_hole in _extents(source, begin, end):
            copy = _copy_hole if is_hole else _copy_data
            copy(source, destination, first, last, to, count)
    else:
        _copy_data(source, destination, begin, end, to, count)


def _extents(source: int, begin: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """`(begin, end, is a hole)` of the parts of a range, as the file system tells."""
    while begin < end:
        data, hole = next_data(source, begin, end)
        if data > begin:
            yield begin, min(data, end), True
        if data < end:
            yield data, min(hole, end), False
        begin = hole


def _copy_hole(
    source: int, destination: int, begin: int, end: int, to: int, count: Advance
) -> None:
    """Keep a hole, but write any data found in it: OpenZFS before 2.2.2 reports false holes."""
    for offset in range(begin, end, CHUNK):
        data = read_exactly(source, offset, min(CHUNK, end - offset))
        if data.strip(b"\0"):
            write_exactly(destination, data, offset + to)
        count(len(data))


def _copy_data(
    source: int, destination: int, begin: int, end: int, to: int, count: Advance
) -> None:
    in_kernel = hasattr(os, "copy_file_range")
    while begin < end:
        done = 0
        if in_kernel:
            try:
                # First up to a boundary of a block, so that the rest can be shared; then up to one
                # of a step: the kernel fills whole pages of the destination 1.5 times as fast.
                place = begin + to
                step = -place % BLOCK or -place % _COPY_STEP or _COPY_STEP
                done = os.copy_file_range(source, destination, min(step, end - begin), begin, place)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
        if not done:  # not supported between these two files, or the source became shorter
            in_kernel = False
            data = read_exactly(source, begin, min(CHUNK, end - begin))
            write_exactly(destination, data, begin + to)
            done = len(data)
        begin += done
        count(done)
