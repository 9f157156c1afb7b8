"""Rewrite the start of a large file in place, though its length changes: all or nothing.

The steps; whatever ends them, `recovery` puts the old file back:

1. Everything that can fail is tried: links, permissions, space, others who have it open.
2. The journal is written (see `journal`), with the old bytes.
3. The file gets another name, so that no engine loads what follows. Its content is moved by the
   file system, the new bytes are written, flushed and read back.
4. The file gets its name again, and the journal is removed.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.in_place import finish, take_back, write_journal
from yarncli.checkpoint.journal import Key, ResizeRecord
from yarncli.checkpoint.output import output_errors, require_space
from yarncli.checkpoint.rewrite import Patch, Span
from yarncli.checkpoint.shifting import PENDING_SUFFIX, shift_content
from yarncli.checkpoint.system import fcntl, flush, read_exactly, write_exactly
from yarncli.errors import CheckpointError, OutputError

_CANNOT_MOVE = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
# What the journal, and the memory, take: of a header there are 10 MB in one piece.
_MOST_BYTES, _MOST_RANGES = 1 << 28, 2000
_INSTEAD = "Give the file to write, OUT, instead."


@dataclass(frozen=True, slots=True, kw_only=True)
class Resizing:
    """The file that is wanted: new bytes around kept ones."""

    start: bytes = field(repr=False)
    """The new bytes before the kept bytes."""
    kept: Span
    """The range of the old file that is kept; the bytes before it are replaced."""
    tail: bytes = field(repr=False)
    """The new bytes after the kept bytes."""
    patches: tuple[Patch, ...]
    """What is rewritten in the kept bytes; places as in the old file."""

    @property
    def shift(self) -> int:
        """How far the kept bytes move, in bytes."""
        return len(self.start) - self.kept.begin

    @property
    def size(self) -> int:
        """Size of the new file, in bytes."""
        return self.kept.end + self.shift + len(self.tail)


def resize(directory: Directory, name: str, resizing: Resizing, identity: Sequence[int]) -> None:
    """Change a file in place.

    Args:
        directory: the directory of the file, locked exclusively (see `in_place.changing`).
        name: of the file.
        resizing: the wanted content.
        identity: of the file that this was decided for: device, inode, size, time of change.

    Raises:
        CheckpointError: it must not or cannot be changed in place, another process has it open,
            or it is another file than it was.
        OutputError: it cannot be written, or does not read back; the old file is back then.
    """
    path = directory.path / name
    directory.refuse_shared(name)
    with output_errors(str(path)):
        descriptor = directory.open(name, os.O_RDWR)
        try:
            _require_alone(descriptor, path)
            info = os.fstat(descriptor)  # from here on nobody else can write to it
            found = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
            if found != tuple(identity) or not stat.S_ISREG(info.st_mode):
                raise CheckpointError(f"{path} was changed after it was read. Run again.")
            _refuse_shape(path, resizing, info.st_size)
            nbytes = info.st_size - resizing.kept.end + resizing.kept.begin
            nbytes += sum(patch.length for patch in resizing.patches)
            count = 2 + sum(1 for patch in resizing.patches for _ in patch.pieces())
            if nbytes > _MOST_BYTES or count > _MOST_RANGES:
                raise CheckpointError(f"Too much of {path} would be rewritten. {_INSTEAD}")
            old = tuple(_old(descriptor, resizing, info.st_size))
            more = max(resizing.size - info.st_size, 0)
            require_space(directory.path, nbytes + more + (1 << 16))
            record = ResizeRecord(
                name=name, size=info.st_size, shift=resizing.shift, new_size=resizing.size,
                ranges=old,
            )  # fmt: skip
            _change(directory, descriptor, record, resizing)
        finally:
            os.close(descriptor)  # and with it the lease


def _change(
    directory: Directory, descriptor: int, record: ResizeRecord, resizing: Resizing
) -> None:
    key = Key.create(directory.path)
    pending = record.name + PENDING_SUFFIX
    try:
        write_journal(directory, key, [record])
        directory.rename(record.name, pending)
        directory.sync(record.name)
        with _cannot_move(directory.path / record.name):
            shift_content(descriptor, record.shift)
        if record.new_size < record.size + record.shift:
            os.ftruncate(descriptor, record.new_size)
        written = list(_written(resizing, record))
        for offset, data in written:
            write_exactly(descriptor, data, offset)
        flush(descriptor)
        for offset, data in written:
            if read_exactly(descriptor, offset, len(data)) != data:
                raise OutputError(
                    f"{directory.path / record.name} does not read back what was written at byte "
                    f"{offset}. The disk may be failing."
                )
        directory.rename(pending, record.name)
        directory.sync(record.name)
    except BaseException:
        with suppress(OSError):  # the recovery has to open the file
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        take_back(directory, key)
        raise
    finish(directory, key)


def _old(descriptor: int, resizing: Resizing, size: int) -> Iterator[tuple[int, bytes]]:
    """Offset and old bytes of every range that is overwritten or cut off."""
    yield 0, read_exactly(descriptor, 0, resizing.kept.begin)
    for patch in resizing.patches:
        for offset, length in patch.pieces():
            yield offset, read_exactly(descriptor, offset, length)
    end = resizing.kept.end
    yield end, read_exactly(descriptor, end, size - end)


def _written(resizing: Resizing, record: ResizeRecord) -> Iterator[tuple[int, bytes]]:
    """Offset in the new file and bytes of every range that is written; the start comes last."""
    if resizing.tail:
        yield resizing.size - len(resizing.tail), resizing.tail
    old = dict(record.ranges[1:-1])
    for patch in resizing.patches:
        for offset, _ in patch.pieces():
            yield offset + record.shift, patch.apply(old[offset])
    yield 0, resizing.start


def _refuse_shape(path: Path, resizing: Resizing, size: int) -> None:
    """Refuse a change that needs more than moving all kept bytes by whole blocks."""
    cut, shift = size - resizing.kept.end, resizing.shift
    # Then the size alone shows how far an interrupted change got.
    if (cut and resizing.tail) or (cut and shift > 0) or (resizing.tail and shift < 0):
        raise CheckpointError(f"{path} would have to be cut and put together anew. {_INSTEAD}")
    block = os.statvfs(path).f_bsize if shift else 1
    if shift % block:
        raise CheckpointError(
            f"The content of {path} would have to move by {abs(shift):,} bytes, and its file "
            f"system moves blocks of {block:,} only. {_INSTEAD}"
        )


@contextmanager
def _cannot_move(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_MOVE:
            raise
        raise CheckpointError(
            f"The file system of {path} cannot make room at the beginning of a file, as ext4 and "
            f"XFS can. {_INSTEAD}"
        ) from error


def _require_alone(descriptor: int, path: Path) -> None:
    """Insist that no other process has the file open or mapped, and keep it so until it is closed.

    The kernel gives a write lease only if no other descriptor or mapping of the file exists, in
    any process or container. A process that opens the file later waits. A search of `/proc` would
    miss the processes of other users, and processes that open the file later.

    Raises:
        CheckpointError: another process has it open, or the system cannot tell.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        raise CheckpointError(
            f"This system cannot tell whether another process has {path} open. {_INSTEAD}"
        )
    try:
        # The kernel's signal that another process waits for the file must not end this one.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise CheckpointError(
                f"Another process has {path} open{_holders(path)}. End it first, or give the file "
                "to write, OUT, instead."
            ) from None
        raise CheckpointError(
            f"The system does not tell whether another process has {path} open "
            f"({(error.strerror or 'unknown error').lower()}). {_INSTEAD}"
        ) from error


def _holders(path: Path) -> str:
    """Processes that have it open and that this user may see: ": llama-server (process 4711)"."""
    found = []
    with suppress(OSError):
        wanted = path.stat()
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != os.getpid():
                with suppress(OSError):
                    if any(_same(each, wanted) for each in _open_files(process)):
                        name = (process / "comm").read_text().strip()
                        found.append(f"{name} (process {process.name})")
    return f": {', '.join(found[:3])}" if found else ""


def _open_files(process: Path) -> Iterator[Path]:
    for kind in ("fd", "map_files"):
        with suppress(OSError):
            yield from (process / kind).iterdir()


def _same(link: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(link.stat(), wanted)
    except OSError:
        return False
