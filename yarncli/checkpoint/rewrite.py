"""Copy files with the kernel's copy while some byte ranges pass through a function."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Literal

from yarncli.checkpoint.files import SourceFile
from yarncli.checkpoint.kernel_copy import CHUNK, copy_range
from yarncli.checkpoint.output import output_errors
from yarncli.checkpoint.system import (
    clone,
    open_new,
    open_to_read,
    read_at,
    read_exactly,
    write_exactly,
)
from yarncli.errors import CheckpointError, OutputError
from yarncli.hub import Digest
from yarncli.progress import Advance, ProgressCallback, stage
from yarncli.threads import in_parallel


@dataclass(frozen=True, slots=True)
class Patch:
    """One byte range of a file and the function that rewrites it."""

    offset: int
    """Where the range begins, in bytes from the start of the file (header included)."""
    length: int
    """Of the range, in bytes."""
    transform: Callable[[bytes], bytes]
    """Takes consecutive pieces of the range and returns as many bytes each.

    It sees the source's bytes, never its own result, and must give the same answer when asked again
    (verification does).
    """
    step: int = 1
    """Every piece is a multiple of this many bytes (but the last, where `length` is not)."""

    def pieces(self) -> Iterator[tuple[int, int]]:
        """`(offset, length)` of the pieces: at most `CHUNK` bytes, or one longer `step`."""
        size = max(CHUNK // self.step, 1) * self.step
        end = self.offset + self.length
        for offset in range(self.offset, end, size):
            yield offset, min(size, end - offset)

    def apply(self, piece: bytes) -> bytes:
        """Transform one piece; a result of another length is a bug and ends the run."""
        made = self.transform(piece)
        if len(made) != len(piece):
            raise AssertionError(f"a patch made {len(made)} bytes out of {len(piece)}")
        return made


@dataclass(frozen=True, slots=True)
class Span:
    """A range of a file that is copied, in bytes from its start: from `begin` up to `end`."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class FileCopy:
    """One file to write, and where its bytes come from."""

    source: Path
    """The file that it is a copy of."""
    destination: Path
    """The file to write; it does not exist yet."""
    patches: tuple[Patch, ...] = ()
    """What is rewritten on the way; each lies in one span."""
    digest: Digest | None = None
    """The hash that the source must have; taken on the way, while its bytes are in memory."""
    parts: tuple[bytes | Span, ...] | None = None
    """Its parts in order: new bytes, or spans of the source; None: the whole source."""


def copy_files(
    copies: Iterable[FileCopy], *, workers: int | None = None, progress: Advance | None = None
) -> None:
    """Write every copy, largest first, by several threads; an error or Ctrl-C stops all of them.

    Destinations must not exist; their directories must. What was written of a failed run is left to
    the caller (`output.output_directory` removes it).

    Raises:
        CheckpointError: a source cannot be read, or changes while it is read.
        HubError: a source has another hash than it must have.
        OutputError: a destination cannot be written.
    """
    jobs = sorted(copies, key=lambda job: _size(job.source), reverse=True)
    in_parallel([partial(_copy, job) for job in jobs], workers=workers, progress=progress)


def verify(
    directory: Path, files: Iterable[SourceFile], *, progress: ProgressCallback | None = None
) -> None:
    """Insist on the hashes that files must have.

    Args:
        directory: where they are.
        files: those without a hash are left out.
        progress: told how far the stage "Verifying" is, in bytes.

    Raises:
        CheckpointError: one cannot be read.
        HubError: one is not what the Hub has.
    """
    listed = sorted(files, key=lambda file: file.size, reverse=True)
    jobs = [partial(_verify, directory / f.name, f.digest) for f in listed if f.digest]
    with stage(progress, "Verifying", sum(file.size for file in listed if file.digest)) as advance:
        in_parallel(jobs, progress=advance)


def _verify(path: Path, digest: Digest, count: Advance) -> None:
    with _reading(path) as source:
        size = os.fstat(source).st_size
        behind = _Hash(path, digest, source, size, count)
        behind(size)
        behind.require()


def link_file(source: Path, destination: Path, mode: Literal["hardlink", "symlink"]) -> None:
    """Make `destination` a hard or symbolic link to the real file behind `source`.

    Raises:
        CheckpointError: there is no file behind `source`.
        OutputError: the file system cannot do it; the message names the copy as the way out.
    """
    with _source_errors(source):
        target = source.resolve(strict=True)
    if mode == "symlink":
        with output_errors(f"the link {destination}"):
            destination.symlink_to(target)
        return
    try:
        destination.hardlink_to(target)
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}:
            raise OutputError(
                f"{target} cannot be hard-linked into {destination.parent}: {error.strerror}. "
                "Copy the weights instead."
            ) from error
        with output_errors(f"the link {destination}"):
            raise


def first_wrong_patch(
    source: Path, destination: Path, patches: Sequence[Patch], *, progress: Advance | None = None
) -> int | None:
    """Offset of the first patched piece of `destination` that does not read back as written.

    Every patch is computed again from `source`; None means that all of them are as they should be.
    """
    with _reading(source) as old, _reading(destination) as new:
        for patch in sorted(patches, key=lambda patch: patch.offset):
            for offset, length in patch.pieces():
                if patch.apply(read_exactly(old, offset, length)) != read_at(new, offset, length):
                    return offset
                if progress:
                    progress(length)
    return None


def first_difference(copy: FileCopy, *, progress: Advance | None = None) -> int | None:
    """Offset of the first piece of `destination` that is not as intended; None if all are.

    Everything is read, and every patch computed, again. A missing or extra tail counts, too.
    """
    with _reading(copy.source) as old, _reading(copy.destination) as new:
        position = 0
        for wanted in _pieces(copy, old):
            if read_at(new, position, len(wanted)) != wanted:
                return position
            position += len(wanted)
            if progress:
                progress(len(wanted))
        return None if os.fstat(new).st_size == position else position


def compare_outside(
    source: Path, destination: Path, patches: Sequence[Patch], *, progress: Advance | None = None
) -> int | None:
    """Offset near the first byte outside `patches` that differs between two files; None if none.

    Sizes are compared as well: a missing or extra tail counts as a difference where it starts.
    """
    with _reading(source) as old, _reading(destination) as new:
        size, new_size = os.fstat(old).st_size, os.fstat(new).st_size
        for begin, end in _gaps(patches, Span(0, size)):
            for offset in range(begin, end, CHUNK):
                length = min(CHUNK, end - offset)
                if read_at(old, offset, length) != read_at(new, offset, length):
                    return offset
                if progress:
                    progress(length)
    return None if size == new_size else min(size, new_size)


def _copy(job: FileCopy, count: Advance) -> None:
    with _reading(job.source) as source:
        info = os.fstat(source)
        mode = info.st_mode & 0o777 | 0o200
        with output_errors(str(job.destination)):
            destination = open_new(job.destination, mode)
        try:
            _write(job, source, destination, info.st_size, count)
        finally:
            with output_errors(str(job.destination)):
                os.close(destination)  # some file systems report a full disk only here


def _write(job: FileCopy, source: int, destination: int, size: int, count: Advance) -> None:
    behind = _Hash(job.source, job.digest, source, size, count) if job.digest else None
    count, cloned = behind or count, job.parts is None and clone(source, destination)
    position = 0
    for part in _parts(job, source):
        if not isinstance(part, Span):
            with output_errors(str(job.destination)):
                write_exactly(destination, part, position)
            count(len(part))
            position += len(part)
            continue
        to = position - part.begin
        for begin, end, patch in _ranges(job.patches, part):
            if patch:
                for offset, length in patch.pieces():
                    made = patch.apply(read_exactly(source, offset, length))
                    with output_errors(str(job.destination)):
                        write_exactly(destination, made, offset + to)
                    count(length)
            elif cloned:
                count(end - begin)
            else:
                with output_errors(str(job.destination)):
                    copy_range(source, destination, begin, end, to, count)
        position = part.end + to
    if behind:
        behind.require()


class _Hash:
    """Computes the hash of a source during the copy, while its bytes are in memory."""

    def __init__(self, path: Path, digest: Digest, source: int, size: int, count: Advance) -> None:
        self.path, self.digest, self.found = path, digest, digest.start(size)
        self.source, self.size, self.position, self.count = source, size, 0, count

    def __call__(self, done: int) -> None:
        """Take note that `count` more bytes were written, and hash the source up to there."""
        end = min(self.position + done, self.size)
        self.count(done - (end - self.position))
        while self.position < end:
            with _source_errors(self.path):
                piece = read_exactly(self.source, self.position, min(CHUNK, end - self.position))
            self.found.update(piece)
            self.position += len(piece)
            self.count(len(piece))

    def require(self) -> None:
        """Insist on the hash that the source must have; what was not copied is read, too."""
        self.count = _nobody
        self(self.size - self.position)
        self.digest.require(self.path, self.found)


def _nobody(done: int) -> None:
    """Tell nobody of progress."""


def _parts(job: FileCopy, source: int) -> tuple[bytes | Span, ...]:
    return (Span(0, os.fstat(source).st_size),) if job.parts is None else job.parts


def _pieces(job: FileCopy, source: int) -> Iterator[bytes]:
    """The intended content of the destination, piece by piece."""
    for part in _parts(job, source):
        if not isinstance(part, Span):
            yield part
            continue
        for first, end, patch in _ranges(job.patches, part):
            if patch:
                for offset, length in patch.pieces():
                    yield patch.apply(read_exactly(source, offset, length))
                continue
            for begin in range(first, end, CHUNK):
                yield read_exactly(source, begin, min(CHUNK, end - begin))


def _ranges(patches: Sequence[Patch], span: Span) -> list[tuple[int, int, Patch | None]]:
    """`(begin, end, patch)` of all of a span, in order; None: as it was."""
    mine = [patch for patch in patches if span.begin <= patch.offset < span.end]
    gaps = [(begin, end, None) for begin, end in _gaps(mine, span)]
    changed = [(patch.offset, patch.offset + patch.length, patch) for patch in mine]
    return sorted([*gaps, *changed], key=itemgetter(0))


def _gaps(patches: Sequence[Patch], span: Span) -> Iterator[tuple[int, int]]:
    """The `(begin, end)` ranges of a span that no patch covers."""
    position = span.begin
    for patch in sorted(patches, key=lambda patch: patch.offset):
        if patch.offset < position or patch.offset + patch.length > span.end:
            raise AssertionError("patches overlap or reach beyond the file")
        if patch.offset > position:
            yield position, patch.offset
        position = patch.offset + patch.length
    if span.end > position:
        yield position, span.end


def _size(path: Path) -> int:
    with _source_errors(path):
        return path.stat().st_size


@contextmanager
def _reading(path: Path) -> Iterator[int]:
    with _source_errors(path):
        descriptor = open_to_read(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _source_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
