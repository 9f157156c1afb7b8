"""A directory held open: its lock, and files in it opened without following a link."""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zlib import crc32

from yarncli import hub
from yarncli.checkpoint import system
from yarncli.errors import CheckpointError, UsageError

# Left by an interrupted change in place (see `in_place`), together or alone.
JOURNAL_NAME = "yarncli-journal.bin"
PENDING_NAME = "config.json.yarncli-pending"

Lock = Literal["shared", "exclusive"]

PATIENCE = 5.0  # seconds to wait for another process, which may only be mending a config
_NAMED_BY_HASH = re.compile(r"(?:.*/)?sha256-[0-9a-f]{64}")
_LINK = {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}  # what O_NOFOLLOW answers, by system


@dataclass(frozen=True, slots=True)
class Directory:
    """An open directory. It stays the same one even if its path is renamed or replaced.

    Names are POSIX paths relative to it. No link is followed in any part of them.
    """

    path: Path
    """What the user calls it."""
    descriptor: int
    """Descriptor of the directory itself; the lock belongs to it."""

    def open(self, name: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
        """A descriptor of a file.

        Raises:
            CheckpointError: a part of the name is a link.
            OSError: as `os.open`.
        """
        with self._parent(name) as (parent, last), self._no_links(name):
            return os.open(last, flags | os.O_NOFOLLOW, mode, dir_fd=parent)

    def info(self, name: str) -> os.stat_result | None:
        """What lies at `name` (of a link: the link itself); None if there is nothing."""
        try:
            with self._parent(name) as (parent, last):
                return os.stat(last, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def read(self, name: str, limit: int = 1 << 30) -> bytes | None:
        """The content of a regular file of at most `limit` bytes; None if there is none.

        Raises:
            CheckpointError: it is a link, no regular file, or larger.
            OSError: it cannot be read.
        """
        found = self.info(name)
        if found is None:
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            what = "larger than such a file may be"
            if not stat.S_ISREG(found.st_mode):
                what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no regular file"
            raise CheckpointError(f"{self.path / name} is {what}. Put a real file there.")
        with os.fdopen(self.open(name, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(found.st_size + 1)  # the reader takes that much memory

    def write_new(self, name: str, data: bytes, like: os.stat_result | None = None) -> None:
        """Write a file that does not exist yet, and flush it to the disk.

        Args:
            name: of the file.
            data: all of it.
            like: its mode is taken over, and its owner where we may give files away.

        Raises:
            OSError: it exists, or cannot be written; nothing is left then.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = self.open(name, flags, 0o666 if like is None else 0o600)
        try:
            try:
                system.write_exactly(descriptor, data, 0)
                if like is not None:
                    _take_over(descriptor, like)
                system.flush(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            with suppress(OSError):
                self.remove(name)
            raise

    def stage(self, name: str, data: bytes, like: os.stat_result | None) -> str:
        """Write what `name` will hold to a hidden file beside it; returns that file's name."""
        parent, _, last = name.rpartition("/")
        temporary = "/".join(filter(None, (parent, temporary_name(last, "new"))))
        self.write_new(temporary, data, like)
        return temporary

    def replace(self, name: str, data: bytes, like: os.stat_result | None) -> None:
        """Make `name` hold `data`: it is the old file or the whole new one, never a part."""
        temporary = self.stage(name, data, like)
        try:
            self.rename(temporary, name)
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise

    def restore(self, name: str, data: bytes, owner: tuple[int, int, int] | None) -> None:
        """`replace` with the mode, user id and group id that a record holds."""
        mode, user, group = owner or (0o600, os.geteuid(), os.getegid())
        like = os.stat_result((mode & 0o777, 0, 0, 0, user, group, 0, 0, 0, 0))
        self.replace(name, data, like)

    def rename(self, old: str, new: str) -> None:
        """Rename within one directory of the tree, replacing what `new` was."""
        with self._parent(old) as (parent, last):
            name = new.rpartition("/")[2]
            os.rename(last, name, src_dir_fd=parent, dst_dir_fd=parent)

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        with suppress(FileNotFoundError), self._parent(name) as (parent, last):
            os.unlink(last, dir_fd=parent)

    def names(self) -> list[str]:
        """The entries at the top."""
        return sorted(os.listdir(self.descriptor))  # noqa: PTH208 of a descriptor, not a path

    def sync(self, *names: str) -> None:
        """Flush to the disk which entries the directories of `names` (and the top) have."""
        for parent in {"", *(name.rpartition("/")[0] for name in names)}:
            with self._parent(f"{parent}/x" if parent else "x") as (descriptor, _):
                system.flush(descriptor)

    def refuse_shared(self, name: str) -> None:
        """Refuse to change in place what others may share: a link, hard links, a cache.

        Raises:
            CheckpointError: it is one of them. A missing file passes.
        """
        found = self.info(name)
        if found is None:
            return
        if stat.S_ISLNK(found.st_mode):
            problem = "is a symbolic link"
        elif not stat.S_ISREG(found.st_mode):
            problem = "is not a regular file"
        elif found.st_nlink > 1:
            problem = "has several hard links"
        elif hub.in_cache((self.path / name).resolve()):
            problem = "lies in the Hub cache"
        elif _NAMED_BY_HASH.fullmatch(name):
            problem = "is named by the hash of its content, as Ollama stores files"
        else:
            return
        raise CheckpointError(
            f"{self.path / name} {problem}, so it is not changed in place. Write to a new "
            "place instead: give OUT."
        )

    @contextmanager
    def _parent(self, name: str) -> Iterator[tuple[int, str]]:
        """The descriptor of the directory that holds `name`, and the last part of the name."""
        *parents, last = name.split("/")
        descriptor = self.descriptor
        try:
            for part in parents:
                with self._no_links(name):
                    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                    inner = os.open(part, flags, dir_fd=descriptor)
                if descriptor != self.descriptor:
                    os.close(descriptor)
                descriptor = inner
            yield descriptor, last
        finally:
            if descriptor != self.descriptor:
                os.close(descriptor)

    @contextmanager
    def _no_links(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _LINK:
                raise
            raise CheckpointError(
                f"{self.path / name} leads through a symbolic link, which is not followed here."
            ) from error


class JournalError(CheckpointError):
    """A journal that cannot be used: incomplete, damaged, or not written by this user.

    Attributes:
        restores: what it would restore, a line each, where it can be read.
    """

    def __init__(self, message: str, restores: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.restores = tuple(restores)


class BusyError(CheckpointError):
    """Another process has locked the directory."""


@contextmanager
def hold(path: Path, lock: Lock) -> Iterator[Directory]:
    """Lock a directory for this process; the kernel releases the lock when the process ends.

    A change in place takes an exclusive lock; copying from the directory or sending it takes a
    shared one. The kernel locks the directory itself, so no lock file can be left behind.

    Args:
        path: the directory. A link that the user names is followed.
        lock: how.

    Raises:
        BusyError: another process has locked it, and did not release it within some seconds.
        CheckpointError: it cannot be opened.
        UsageError: exclusive, and this system or file system has no such locks.
    """
    if lock == "exclusive" and not system.can_change_in_place():
        raise UsageError(
            "Changes in place need file locks that this system does not have. Give the directory "
            "to write, OUT, instead."
        )
    try:
        with locked(path, lock, PATIENCE) as descriptor:
            if descriptor is None and lock == "exclusive":
                raise UsageError(
                    f"The file system of {path} has no locks, so nothing can be changed safely in "
                    "place there. Give the directory to write, OUT, instead."
                )
            yield Directory(path, -1 if descriptor is None else descriptor)
    except _CannotOpenError as error:
        raise CheckpointError(f"{path} cannot be opened: {error}.") from error


@contextmanager
def locked(path: Path, lock: Lock, patience: float = 0) -> Iterator[int | None]:
    """Lock a directory, waiting up to `patience` seconds for others.

    Yields:
        Its descriptor; None where the system or the file system has no locks.

    Raises:
        BusyError: another process has locked it.
    """
    if system.fcntl is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _CannotOpenError(error.strerror) from error
    try:
        yield descriptor if _lock(descriptor, path, lock, patience) else None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, lock: Lock, patience: float) -> bool:
    end = time.monotonic() + patience
    while True:
        try:
            return system.lock(descriptor, exclusive=lock == "exclusive")
        except BlockingIOError:
            if time.monotonic() >= end:
                raise BusyError(
                    f"Another process is using {path} right now. Wait until it has ended."
                ) from None
            time.sleep(0.005)


class _CannotOpenError(CheckpointError):
    """The directory itself cannot be opened."""


def _take_over(descriptor: int, like: os.stat_result) -> None:
    """Give a new file the mode of another file, and its owner if we have the right."""
    found = os.fstat(descriptor)
    if (found.st_uid, found.st_gid) != (like.st_uid, like.st_gid):
        with suppress(PermissionError):  # only root gives files away
            os.fchown(descriptor, like.st_uid, like.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(like.st_mode))


_TEMPORARY = re.compile(r"\..+\.yarncli-(?:new|old)-\d+-[0-9a-f]{8}")


def temporary_name(name: str, role: Literal["new", "old"]) -> str:
    """A hidden unused name in the directory of `name`; cut if it would be too long."""
    return f"{temporary_prefix(name)}{role}-{os.getpid()}-{os.urandom(4).hex()}"


def temporary_prefix(name: str) -> str:
    """What all temporary names of `name` begin with."""
    if len(name) > 50:
        name = f"{name[:40]}-{crc32(os.fsencode(name)):08x}"
    return f".{name}.yarncli-"


def is_temporary(name: str) -> bool:
    """Whether a name belongs to output that is being written, or that a killed run left."""
    return _TEMPORARY.fullmatch(name) is not None


def pending(directory: Path) -> bool:
    """Whether an in-place change of `directory` was interrupted, here or before it was copied."""
    return any(os.path.lexists(directory / name) for name in (JOURNAL_NAME, PENDING_NAME))


def require_not_pending(directory: Path) -> None:
    """Refuse a directory in the middle of an in-place change: its weights may be half changed.

    Raises:
        CheckpointError: with the command that restores it.
    """
    if pending(directory):
        raise CheckpointError(
            f"An in-place change of {directory} was interrupted. Restore its old state with: "
            f"yarncli bake --recover {shlex.quote(os.fspath(directory))}"
        )
