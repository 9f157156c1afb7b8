"""Copy files with the kernel's copy while some byte ranges pass through a function."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Literal, TypeVar

from yarncli.checkpoint.directory import read_at, read_exactly, write_exactly
from yarncli.checkpoint.files import SourceFile
from yarncli.checkpoint.output import output_errors
from yarncli.errors import CheckpointError, OutputError
from yarncli.hub import Digest
from yarncli.progress import Advance, ProgressCallback, stage

Result = TypeVar("Result")

CHUNK = 1 << 20  # bytes of a range that are in memory at once; more leave the processor's cache
_COPY_STEP = 64 << 20  # bytes per kernel copy: often enough for progress and Ctrl-C
_FICLONE = 0x40049409  # linux/fs.h, the same on every architecture but MIPS, PowerPC and SPARC
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


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
class FileCopy:
    """One file to be written."""

    source: Path
    """What it is made from."""
    destination: Path
    """The new file."""
    patches: tuple[Patch, ...] = ()
    """The ranges that become others on the way."""
    digest: Digest | None = None
    """The hash that the source must have; taken on the way, while its bytes are in memory."""


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


def in_parallel(
    jobs: Sequence[Callable[[Advance], None]],
    *,
    workers: int | None = None,
    progress: Advance | None = None,
) -> None:
    """Run jobs in several threads, in order; an error or Ctrl-C stops all of them.

    Args:
        jobs: each gets a function that it calls, often, with the number of bytes done; when the run
            is to stop, that function raises.
        workers: number of threads; by default one per processor, at most 4.
        progress: gets those numbers, one call at a time.
    """
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    stop = threading.Event()
    lock = threading.Lock()

    def count(done: int) -> None:
        if stop.is_set():
            raise _StoppedError
        if progress:
            with lock:
                if stop.is_set():
                    raise _StoppedError
                try:
                    progress(done)
                except BaseException:
                    stop.set()
                    raise

    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(job, count) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            if any(future.done() and future.exception() for future in futures):
                stop.set()
        except BaseException:
            stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=stop.is_set())
    errors = [e for future in futures if not future.cancelled() and (e := future.exception())]
    # Threads that were stopped are not the cause; one of them may have ended first.
    for error in sorted(errors, key=lambda e: isinstance(e, _StoppedError)):
        raise error


def in_order(jobs: Iterable[Callable[[], Result]], *, ahead: int = 4) -> Iterator[Result]:
    """The results of jobs, one after the other, while a few of the next are made by threads."""
    from collections import deque
    from concurrent.futures import ThreadPoolExecutor

    coming = iter(jobs)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting = deque(pool.submit(job) for job in islice(coming, ahead))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(job) for job in islice(coming, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)


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


def compare_outside(
    source: Path, destination: Path, patches: Sequence[Patch], *, progress: Advance | None = None
) -> int | None:
    """Offset near the first byte outside `patches` that differs between two files; None if none.

    Sizes are compared as well: a missing or extra tail counts as a difference where it starts.
    """
    with _reading(source) as old, _reading(destination) as new:
        size, new_size = os.fstat(old).st_size, os.fstat(new).st_size
        for begin, end in _gaps(patches, size):
            for offset in range(begin, end, CHUNK):
                length = min(CHUNK, end - offset)
                if read_at(old, offset, length) != read_at(new, offset, length):
                    return offset
                if progress:
                    progress(length)
    return None if size == new_size else min(size, new_size)


class _StoppedError(Exception):
    """Another thread failed; this one gives up quietly."""


def _copy(job: FileCopy, count: Advance) -> None:
    with _reading(job.source) as source:
        info = os.fstat(source)
        mode = info.st_mode & 0o777 | 0o200
        with output_errors(str(job.destination)):
            destination = os.open(job.destination, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        try:
            _write(job, source, destination, info.st_size, count)
        finally:
            with output_errors(str(job.destination)):
                os.close(destination)  # some file systems report a full disk only here


def _write(job: FileCopy, source: int, destination: int, size: int, count: Advance) -> None:
    behind = _Hash(job.source, job.digest, source, size, count) if job.digest else None
    count, cloned = behind or count, _clone(source, destination)
    for begin, end, patch in _parts(job.patches, size):
        if patch:
            for offset, length in patch.pieces():
                made = patch.apply(read_exactly(source, offset, length))
                with output_errors(str(job.destination)):
                    write_exactly(destination, made, offset)
                count(length)
        elif cloned:
            count(end - begin)
        else:
            with output_errors(str(job.destination)):
                _copy_range(source, destination, begin, end, count)
    if behind:
        behind.require()


class _Hash:
    """Takes the hash of a source right behind the copy, while its bytes are in memory."""

    def __init__(self, path: Path, digest: Digest, source: int, size: int, count: Advance) -> None:
        self.path, self.digest, self.found = path, digest, digest.start(size)
        self.source, self.position, self.count = source, 0, count

    def __call__(self, done: int) -> None:
        """The next `done` bytes have been copied."""
        end = self.position + done
        while self.position < end:
            with _source_errors(self.path):
                piece = read_exactly(self.source, self.position, min(CHUNK, end - self.position))
            self.found.update(piece)
            self.position += len(piece)
            self.count(len(piece))

    def require(self) -> None:
        """Insist on the hash that the source must have."""
        self.digest.require(self.path, self.found)


def _parts(patches: Sequence[Patch], size: int) -> list[tuple[int, int, Patch | None]]:
    """`(begin, end, patch)` of all of a file of `size` bytes, in order; None: as it was."""
    gaps = [(begin, end, None) for begin, end in _gaps(patches, size)]
    changed = [(patch.offset, patch.offset + patch.length, patch) for patch in patches]
    return sorted([*gaps, *changed], key=itemgetter(0))


def _gaps(patches: Sequence[Patch], size: int) -> Iterator[tuple[int, int]]:
    """The `(begin, end)` ranges of a file of `size` bytes that no patch covers."""
    position = 0
    for patch in sorted(patches, key=lambda patch: patch.offset):
        if patch.offset < position or patch.offset + patch.length > size:
            raise AssertionError("patches overlap or reach beyond the file")
        if patch.offset > position:
            yield position, patch.offset
        position = patch.offset + patch.length
    if size > position:
        yield position, size


def _clone(source: int, destination: int) -> bool:
    """Share the source's blocks with the destination (reflink) where the file system can."""
    try:
        import fcntl

        fcntl.ioctl(destination, _FICLONE, source)
    except (ImportError, OSError):
        return False
    return True


def _copy_range(source: int, destination: int, begin: int, end: int, count: Advance) -> None:
    in_kernel = hasattr(os, "copy_file_range")
    while begin < end:
        done = 0
        if in_kernel:
            try:
                step = min(_COPY_STEP, end - begin)
                done = os.copy_file_range(source, destination, step, begin, begin)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
        if not done:  # not supported between these two files, or the source became shorter
            in_kernel = False
            data = read_exactly(source, begin, min(CHUNK, end - begin))
            write_exactly(destination, data, begin)
            done = len(data)
        begin += done
        count(done)


def _size(path: Path) -> int:
    with _source_errors(path):
        return path.stat().st_size


@contextmanager
def _reading(path: Path) -> Iterator[int]:
    with _source_errors(path):
        descriptor = os.open(path, os.O_RDONLY)
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
