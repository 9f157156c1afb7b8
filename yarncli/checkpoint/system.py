"""What operating systems do differently: the one place that asks for what only some of them have.

Linux has all of it. macOS lacks leases of files and the copies that a kernel makes; Windows also
what a safe change in place needs. `docs/platforms.md` says what follows for users.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from yarncli.errors import CheckpointError

try:
    import fcntl as fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Flags that keep bytes unchanged and do not wait for a pipe; 0 where the system has no such flag.
_BINARY = getattr(os, "O_BINARY", 0)  # Windows, which else changes line ends, and ends at Ctrl-Z
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # a pipe that nobody writes to
_FICLONE = 0x40049409  # linux/fs.h, the same on every architecture but MIPS, PowerPC and SPARC
# If one of these is missing, files in a folder from an unknown source cannot be opened safely.
_NEEDED = ("O_NOFOLLOW", "O_DIRECTORY", "pread", "pwrite", "fchmod", "fchown", "geteuid")
_HAS_DIR_FD = {os.open, os.rename, os.unlink, os.stat} <= os.supports_dir_fd


def can_change_in_place() -> bool:
    """Whether this system has what a safe change in place needs (Linux and macOS do)."""
    return fcntl is not None and all(hasattr(os, name) for name in _NEEDED) and _HAS_DIR_FD


def open_to_read(path: Path, *, wait: bool = True) -> int:
    """A descriptor that gives the bytes of a file; without `wait` it opens a pipe at once.

    Raises:
        OSError: as `os.open`.
    """
    return os.open(path, os.O_RDONLY | _BINARY | (0 if wait else _NO_WAIT))


def open_new(path: Path, mode: int) -> int:
    """A descriptor that reads and writes the bytes of a file that does not exist yet.

    Raises:
        OSError: as `os.open`; it exists.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, mode)


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """Up to `length` bytes at `offset`; fewer only where the file ends."""
    data = b""
    while len(data) < length:
        if hasattr(os, "pread"):
            more = os.pread(descriptor, length - len(data), offset + len(data))
        else:  # Windows; no descriptor is used by two threads
            os.lseek(descriptor, offset + len(data), os.SEEK_SET)
            more = os.read(descriptor, length - len(data))
        if not more:
            break
        data = data + more if data else more
    return data


def read_exactly(descriptor: int, offset: int, length: int) -> bytes:
    """Read `length` bytes at `offset`, in as many calls as it takes.

    Raises:
        CheckpointError: the file ends earlier; it has changed since its size was taken.
    """
    data = read_at(descriptor, offset, length)
    if len(data) != length:
        raise CheckpointError("A source file became shorter while it was read. Run again.")
    return data


def write_exactly(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`, in as many calls as it takes."""
    view = memoryview(data)
    while view:
        if hasattr(os, "pwrite"):
            done = os.pwrite(descriptor, view, offset)
        else:
            os.lseek(descriptor, offset, os.SEEK_SET)
            done = os.write(descriptor, view)
        view, offset = view[done:], offset + done


def flush(descriptor: int) -> None:
    """Flush what was written to a file, or the entries of a directory, to the disk itself.

    On macOS `fsync` ends when the drive has the data, perhaps only in its memory; F_FULLFSYNC waits
    until they would survive a power cut (fcntl(2) there). File systems of a network may not know
    it.

    Raises:
        OSError: as `os.fsync`.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with suppress(OSError):
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


def flush_path(path: Path) -> None:
    """`flush` for a file or a directory by its path."""
    if sys.platform == "win32" and path.is_dir():  # which opens none, and needs no such flush
        return
    # Windows flushes only what was opened to be written.
    access = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY
    descriptor = os.open(path, access | _BINARY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def start_flush(descriptor: int, offset: int, length: int) -> None:
    """Ask the system to start writing to the disk, so that the flush at the end waits less.

    On Linux this advice starts the write of cached data, and drops no data that are not on disk.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


def lock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock an open directory without waiting; False where the system has no such lock.

    Raises:
        BlockingIOError: another process has it.
    """
    wanted = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(descriptor, wanted | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def clone(source: int, destination: int) -> bool:
    """Share the source's blocks with the destination (reflink) where the file system can."""
    if fcntl is None or not sys.platform.startswith("linux"):  # else the number means another call
        return False
    try:
        fcntl.ioctl(destination, _FICLONE, source)
    except OSError:
        return False
    return True


def next_data(descriptor: int, begin: int, end: int) -> tuple[int, int]:
    """`(begin, end)` of the next part of a file that is not a hole."""
    if not hasattr(os, "SEEK_DATA"):  # Windows
        return begin, end
    try:
        data = os.lseek(descriptor, begin, os.SEEK_DATA)
        return data, os.lseek(descriptor, data, os.SEEK_HOLE)
    except OSError as error:  # ENXIO: a hole to the end of the file
        return (end, end) if error.errno == errno.ENXIO else (begin, end)


def prepare_terminal() -> None:
    """Let a Windows console interpret colour codes, as other terminals do."""
    if sys.platform == "win32":
        import ctypes

        kernel, mode = ctypes.windll.kernel32, ctypes.c_ulong()
        for number in (-11, -12):  # the standard output, the standard error
            handle = kernel.GetStdHandle(number)
            if kernel.GetConsoleMode(handle, ctypes.byref(mode)):
                kernel.SetConsoleMode(handle, mode.value | 4)  # virtual terminal processing
