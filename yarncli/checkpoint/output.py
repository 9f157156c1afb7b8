"""Output that appears whole or not at all: directories, single files, and what may be replaced."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

from yarncli.errors import CheckpointError, OutputError, UsageError

_CAUSES = {
    errno.ENOSPC: "the disk is full. Free some space, or choose another disk",
    errno.EDQUOT: "your disk quota is used up. Free some space, or choose another disk",
    errno.EFBIG: "the file would be larger than the system allows here",
    errno.EACCES: "permission denied. Choose a place that you may write to",
    errno.EPERM: "the operation is not permitted. Choose a place that you may write to",
    errno.EROFS: "the file system is read-only. Choose another place",
}
# Left by an interrupted change of weights in place (`journal`), together or alone.
JOURNAL_NAME = "yarncli-journal.bin"
PENDING_NAME = "config.json.yarncli-pending"
_TEMPORARY = re.compile(r"\..+\.yarncli-(?:new|old)-\d+-[0-9a-f]{8}")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@contextmanager
def output_errors(what: str) -> Iterator[None]:
    """Turn the operating system's refusals to write into `OutputError`.

    Args:
        what: what was being written, as shown in the message.

    Raises:
        OutputError: one sentence per cause. Errors without an `errno` (huggingface_hub's are
            `OSError` too) pass through.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        cause = _CAUSES.get(error.errno, (error.strerror or "unknown error").lower())
        raise OutputError(f"Cannot write {what}: {cause}.") from error


def require_space(directory: Path, nbytes: int) -> None:
    """Check that the file system of `directory` (existing) has `nbytes` free bytes.

    Raises:
        OutputError: it has not; the message states both sizes.
    """
    import shutil

    with output_errors(str(directory)):
        free = shutil.disk_usage(directory).free
    if nbytes > free:
        raise OutputError(
            f"{directory} has {free / 1e6:,.1f} MB free but {nbytes / 1e6:,.1f} MB are needed. "
            "Free some space, or choose another disk."
        )


def check_destination(destination: Path, *, source: Path | None, overwrite: bool) -> None:
    """Refuse a destination that must not be written, before any work is done.

    Raises:
        UsageError: it exists and `overwrite` is not set or may not replace it, it lies inside
            `source`, or its parent directory is missing.
    """
    parent = _parent(destination)
    real = parent / destination.name
    if source is not None and real.is_relative_to(source.resolve()) and real != source.resolve():
        raise UsageError(f"{destination} lies inside the source {source}. Choose another place.")
    if not os.path.lexists(real):
        return
    if not overwrite:
        raise UsageError(
            f"{destination} already exists. Choose another name, or replace it with --overwrite."
        )
    if real.is_symlink() or not real.is_dir() or not (real / "config.json").is_file():
        raise UsageError(
            f"{destination} is not a checkpoint directory (no config.json), so --overwrite leaves "
            "it alone. Choose another name."
        )
    kept = {"the home directory": Path.home(), "the current directory": Path.cwd()}
    if source is not None:
        kept["the source"] = source
    for name, path in kept.items():
        if path.resolve().is_relative_to(real):
            raise UsageError(f"{destination} is or holds {name}, so it cannot be overwritten.")


@contextmanager
def output_directory(
    destination: Path, *, source: Path | None = None, overwrite: bool = False, fsync: bool = False
) -> Iterator[Path]:
    """Build a directory beside `destination` and rename it into place when the block succeeds.

    On any exception, Ctrl-C included, it is removed; after a SIGKILL the next run for the same
    destination removes it, and puts back a directory that was being replaced.

    Args:
        destination: the directory to be; see `check_destination` for what is refused.
        source: directory the data comes from, which must not be touched.
        overwrite: replace an existing checkpoint directory.
        fsync: flush every file and directory to the disk before the rename, and the rename itself.

    Yields:
        The staging directory, existing and empty.

    Raises:
        UsageError: `check_destination` refuses.
        OutputError: something cannot be written.
    """
    parent = _parent(destination)
    final = parent / destination.name
    with output_errors(str(destination)):
        _clean_up_after_killed_runs(final)
    check_destination(destination, source=source, overwrite=overwrite)
    staging = _sibling(final, "new")
    with output_errors(str(destination)):
        staging.mkdir()
    try:
        with locked_directory(staging):
            try:
                yield staging
            except OSError as error:
                if error.errno not in _FULL:  # anything else in the block may be about other files
                    raise
                with output_errors(str(destination)):
                    raise
            with output_errors(str(destination)):
                if fsync:
                    _sync_tree(staging)
                check_destination(destination, source=source, overwrite=overwrite)  # still so?
                _put_in_place(staging, final)
                if fsync:
                    sync(parent)
    except BaseException:
        _remove_tree(staging)
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that `path` is the old file or the whole new one, never a part.

    Raises:
        CheckpointError: `path` is a link, has several hard links, or lies in a Hub cache.
        OutputError: it cannot be written.
    """
    refuse_shared_file(path)
    with output_errors(str(path)):
        temporary = _write_sibling(path, data)
        try:
            if path.exists():
                temporary.chmod(path.stat().st_mode & 0o777)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def replace_keeping_original(path: Path, data: bytes) -> Path:
    """Replace an existing file atomically and keep what it held as `<name>.orig`.

    An existing backup is never overwritten: later ones are numbered (`.orig.1`, …), and none is
    made where the newest already holds the same bytes.

    Returns:
        The backup.

    Raises:
        CheckpointError: `path` is a link, has several hard links, or is in a Hub cache.
        OutputError: it is missing or cannot be written.
    """
    refuse_shared_file(path)
    with output_errors(str(path)):
        old = path.read_bytes()
        backups = originals(path)
        backup = backups[-1] if backups else None
        if backup is None or backup.read_bytes() != old:
            temporary = _write_sibling(path, old)
            try:
                backup = move_to_original(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    atomic_write(path, data)
    return backup


def originals(path: Path) -> list[Path]:
    """The backups of `path`, oldest first."""
    found = [
        entry
        for entry in path.parent.iterdir()
        if entry.name.startswith(path.name + ".orig") and _number(entry) >= 0
    ]
    return sorted(found, key=_number)


def move_to_original(file: Path, path: Path) -> Path:
    """Rename `file` to the first unused `<name of path>.orig[.N]`, which it returns."""
    backups = originals(path)
    if backups and backups[-1].samefile(file):  # a run was killed between the two steps below
        file.unlink()
        return backups[-1]
    number = _number(backups[-1]) + 1 if backups else 0
    backup = path.with_name(f"{path.name}.orig" + (f".{number}" if number else ""))
    try:
        backup.hardlink_to(file)  # unlike rename, refuses to overwrite what appears meanwhile
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        file.rename(backup)  # a file system without hard links
        return backup
    file.unlink()
    return backup


def refuse_shared_file(path: Path) -> None:
    """Refuse to change a file in place that others may share: a link, hard links, a Hub cache.

    Raises:
        CheckpointError: it is one of them. A missing file passes.
    """
    if path.is_symlink():
        problem = "is a symbolic link"
    elif path.exists() and not path.is_file():
        problem = "is not a regular file"
    elif path.exists() and path.stat().st_nlink > 1:
        problem = "has several hard links"
    elif re.search(r"/models--[^/]+/(blobs|snapshots)/", str(path.resolve())):
        problem = "lies in the Hub cache"
    else:
        return
    raise CheckpointError(
        f"{path} {problem}, so it is not changed in place. Write to a new directory instead."
    )


def pending(directory: Path) -> bool:
    """Whether an in-place change of `directory` was interrupted and needs `recover`."""
    return any(os.path.lexists(directory / name) for name in (JOURNAL_NAME, PENDING_NAME))


def require_not_pending(directory: Path) -> None:
    """Refuse a directory in the middle of an in-place change.

    Raises:
        CheckpointError: with the command that restores it.
    """
    if pending(directory):
        raise CheckpointError(
            f"An in-place change of {directory} was interrupted. "
            f"Restore its old state with: yarncli bake --recover {directory}"
        )


def is_temporary(name: str) -> bool:
    """Whether a file or directory name is that of output in the making (or of a killed run)."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_temporaries(directory: Path) -> None:
    """Remove the files that killed runs of `atomic_write` left; no run may be active there."""
    for entry in list(directory.iterdir()):
        if is_temporary(entry.name) and not entry.is_dir():
            entry.unlink()


def sync(path: Path) -> None:
    """Flush a file, or a directory's entries (renames, new names), to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked_directory(directory: Path) -> Iterator[bool]:
    """Hold a directory for this process; the kernel lets go of it when the process ends.

    Yields:
        False where the file system has no locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    locked = True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(descriptor)


def _parent(destination: Path) -> Path:
    # Not resolve() on the whole path: a link at the destination itself must be seen as one.
    absolute = Path(os.path.abspath(destination))  # noqa: PTH100 resolve() would follow that link
    if not absolute.parent.is_dir():
        raise UsageError(f"The directory {absolute.parent} does not exist. Create it first.")
    return absolute.parent.resolve()


def _sibling(path: Path, role: str) -> Path:
    """A hidden unused name beside `path`; long names are cut so that the result stays legal."""
    return path.with_name(f"{_prefix(path)}{role}-{os.getpid()}-{os.urandom(4).hex()}")


def _prefix(path: Path) -> str:
    name = path.name
    if len(name) > 50:
        name = f"{name[:40]}-{crc32(os.fsencode(name)):08x}"
    return f".{name}.yarncli-"


def _write_sibling(path: Path, data: bytes) -> Path:
    temporary = _sibling(path, "new")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _number(backup: Path) -> int:
    """N of `name.orig.N`, 0 of `name.orig`, -1 of any other name."""
    match = re.search(r"\.orig(?:\.([1-9][0-9]{0,8}))?$", backup.name)
    return int(match[1] or 0) if match else -1


def _put_in_place(staging: Path, final: Path) -> None:
    if not final.exists():
        staging.rename(final)
        return
    aside = _sibling(final, "old")
    with locked_directory(final):
        try:
            final.rename(aside)
            staging.rename(final)
        except BaseException:
            if aside.exists() and not final.exists():
                aside.rename(final)
            raise
        _remove_tree(aside)


def _clean_up_after_killed_runs(final: Path) -> None:
    """Remove staging directories that no process holds; put back a directory set aside."""
    pattern = re.compile(re.escape(_prefix(final)) + r"(new|old)-\d+-[0-9a-f]{8}")
    for entry in list(final.parent.iterdir()):
        match = pattern.fullmatch(entry.name)
        if not match or entry.is_symlink() or not entry.is_dir():
            continue
        with suppress(BlockingIOError), locked_directory(entry) as locked:
            if not locked:
                continue
            if match[1] == "old" and not os.path.lexists(final):
                entry.rename(final)
            else:
                _remove_tree(entry)


def _remove_tree(directory: Path) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)


def _sync_tree(directory: Path) -> None:
    for root, _, names in os.walk(directory):
        for path in (Path(root), *(Path(root, name) for name in names)):
            if not path.is_symlink():
                sync(path)
