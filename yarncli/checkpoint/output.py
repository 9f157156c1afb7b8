"""Output that appears whole or not at all: directories, single files, and what may be replaced."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from yarncli.checkpoint.directory import (
    BusyError,
    Directory,
    locked,
    temporary_name,
    temporary_prefix,
)
from yarncli.checkpoint.system import (
    can_change_in_place,
    flush_path,
    open_new,
    write_exactly,
)
from yarncli.errors import CheckpointError, OutputError, UsageError
from yarncli.progress import ProgressCallback, stage

_CAUSES = {
    errno.ENOSPC: "the disk is full. Free some space, or choose another disk",
    errno.EDQUOT: "your disk quota is used up. Free some space, or choose another disk",
    errno.EFBIG: "the file would be larger than the system allows here",
    errno.EACCES: "permission denied. Choose a place that you may write to",
    errno.EPERM: "the operation is not permitted. Choose a place that you may write to",
    errno.EROFS: "the file system is read-only. Choose another place",
}


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
    if source is not None and _holds(source, parent):
        raise UsageError(f"{destination} is inside the source {source}. Choose another place.")
    if not os.path.lexists(real):
        return
    if not overwrite:
        raise UsageError(
            f"{destination} already exists. Choose another name, or replace it with --overwrite."
        )
    if real.is_symlink() or not real.is_dir() or not (real / "config.json").is_file():
        raise UsageError(
            f"{destination} is not a checkpoint directory (no config.json), so --overwrite does "
            "not replace it. Choose another name."
        )
    kept = {"the home directory": Path.home(), "the current directory": Path.cwd()}
    if source is not None:
        kept["the source"] = source
    for name, path in kept.items():
        if _holds(real, path.resolve()):
            raise UsageError(f"{destination} is or holds {name}, so it cannot be overwritten.")


def _holds(folder: Path, path: Path) -> bool:
    """Whether `path`, a real one, is `folder` or lies in it, however either of them is spelled.

    If the file system does not distinguish capital and small letters, one folder has many names.
    """
    if not folder.exists():
        return False
    return any(each.exists() and each.samefile(folder) for each in (path, *path.parents))


@contextmanager
def output_directory(
    destination: Path,
    *,
    source: Path | None = None,
    overwrite: bool = False,
    fsync: bool = False,
    progress: ProgressCallback | None = None,
) -> Iterator[Path]:
    """Build a directory beside `destination` and rename it into place when the block succeeds.

    On any exception, Ctrl-C included, it is removed; after a SIGKILL the next run for the same
    destination removes it, and puts back a directory that was being replaced.

    Args:
        destination: the directory to make; see `check_destination` for what is refused.
        source: directory the data comes from, which must not be touched.
        overwrite: replace an existing checkpoint directory.
        fsync: flush every file and directory to the disk before the rename, and the rename itself.
        progress: told how far the stage "Flushing to the disk" of `fsync` is, in bytes.

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
    staging = final.with_name(temporary_name(final.name, "new"))
    with output_errors(str(destination)):
        staging.mkdir(_mode(source, 0o777) | 0o700)
    try:
        with locked(staging, "exclusive"), output_errors(str(destination)):
            yield staging
            if fsync:
                _sync_tree(staging, progress)
            check_destination(destination, source=source, overwrite=overwrite)  # still so?
            _put_in_place(staging, final)
            if fsync:
                flush_path(parent)
    except BaseException:
        _remove_tree(staging)
        raise


@contextmanager
def output_files(
    destinations: Sequence[Path],
    *,
    check: Callable[[], None],
    fsync: bool = False,
    progress: ProgressCallback | None = None,
) -> Iterator[Path]:
    """Write files into a hidden directory, and rename them into place when the block succeeds.

    The first file is renamed last, so that whoever finds it also finds the others. On any
    exception, Ctrl-C included, the directory is removed; after a SIGKILL the next run for the same
    first file removes it.

    Args:
        destinations: the files to make, in one directory; one that exists is replaced.
        check: refuses what must not be replaced; called at the beginning, and before the renames.
        fsync: flush every file to the disk before the renames, and those, too.
        progress: as of `output_directory`.

    Yields:
        The hidden directory, existing and empty; the files get the names of the destinations.

    Raises:
        UsageError: there is no directory for them.
        OutputError: something cannot be written.
    """
    parent = _parent(destinations[0])
    final = parent / destinations[0].name
    with output_errors(str(destinations[0])):
        _clean_up_after_killed_runs(final)
    check()
    staging = final.with_name(temporary_name(final.name, "new"))
    with output_errors(str(destinations[0])):
        staging.mkdir(0o700)
    try:
        with locked(staging, "exclusive"), output_errors(str(destinations[0])):
            yield staging
            if fsync:
                _sync_tree(staging, progress)
            check()  # still so?
            for path in destinations[::-1]:
                (staging / path.name).replace(parent / path.name)
            if fsync:
                flush_path(parent)
    finally:
        _remove_tree(staging)


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that `path` is the old file or the whole new one, never a part.

    Raises:
        CheckpointError: `path` is a link, has several hard links, or lies in a Hub cache.
        OutputError: it cannot be written.
    """
    with output_errors(str(path)):
        if not can_change_in_place():
            _replace_by_path(path, data)
            return
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            directory = Directory(path.parent, descriptor)
            directory.refuse_shared(path.name)
            directory.replace(path.name, data, directory.info(path.name))
            directory.sync()
        finally:
            os.close(descriptor)


def write_new(path: Path, data: bytes, like: Path | None = None) -> None:
    """Write a file that does not exist yet, readable by those who may read `like`.

    Raises:
        OutputError: it cannot be written.
    """
    with output_errors(str(path)):
        descriptor = open_new(path, _mode(like, 0o666))
        try:
            write_exactly(descriptor, data, 0)
        finally:
            os.close(descriptor)


def make_parents(root: Path, name: str, like: Path | None = None) -> None:
    """Make the directories between `root` and its file `name`, with the modes of those in `like`.

    Raises:
        OutputError: one cannot be made.
    """
    for parent in [*Path(name).parents][-2::-1]:  # from the top, without "."
        with output_errors(str(root / parent)), suppress(FileExistsError):
            (root / parent).mkdir(_mode(like and like / parent, 0o777) | 0o700)


def _parent(destination: Path) -> Path:
    # Not resolve() on the whole path: a link at the destination itself must be seen as one.
    absolute = Path(os.path.abspath(destination))  # noqa: PTH100 resolve() would follow that link
    if not absolute.parent.is_dir():
        raise UsageError(f"The directory {absolute.parent} does not exist. Create it first.")
    return absolute.parent.resolve()


def _mode(like: Path | None, otherwise: int) -> int:
    """The mode of a file or directory, for a new one like it; a default if it cannot be read."""
    with suppress(OSError):
        if like is not None:
            return stat.S_IMODE(like.stat().st_mode) & 0o777 | 0o200
    return otherwise


def _replace_by_path(path: Path, data: bytes) -> None:
    """`atomic_write` for systems without descriptors of directories."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise CheckpointError(f"{path} is no regular file, so it is not replaced.")
    if path.exists() and path.stat().st_nlink > 1:
        raise CheckpointError(f"{path} has several hard links, so it is not replaced.")
    temporary = path.with_name(temporary_name(path.name, "new"))
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _put_in_place(staging: Path, final: Path) -> None:
    if not final.exists():
        staging.rename(final)
        return
    aside = final.with_name(temporary_name(final.name, "old"))
    with locked(final, "exclusive"):
        try:
            final.rename(aside)
            staging.rename(final)
        except BaseException:
            if aside.exists() and not final.exists():
                aside.rename(final)
            raise
        _remove_tree(aside)


def _clean_up_after_killed_runs(final: Path) -> None:
    """Remove staging directories that no process has locked; restore a directory set aside."""
    prefix = re.escape(temporary_prefix(final.name))
    pattern = re.compile(prefix + r"(new|old)-\d+-[0-9a-f]{8}")
    for entry in list(final.parent.iterdir()):
        match = pattern.fullmatch(entry.name)
        if not match or entry.is_symlink() or not entry.is_dir():
            continue
        with suppress(BusyError), locked(entry, "exclusive") as descriptor:
            if descriptor is None:
                continue
            if match[1] == "old" and not os.path.lexists(final):
                entry.rename(final)
            else:
                _remove_tree(entry)


def _remove_tree(directory: Path) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)


def _sync_tree(directory: Path, progress: ProgressCallback | None) -> None:
    paths = [
        path
        for root, _, names in os.walk(directory)
        for path in (Path(root), *(Path(root, name) for name in names))
        if not path.is_symlink()
    ]
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    with stage(progress, "Flushing to the disk", sum(sizes)) as advance:
        for path, size in zip(paths, sizes, strict=True):
            flush_path(path)
            advance(size)
