"""Write an edited GGUF file and the other files of a split model, completely or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from yarncli.checkpoint.directory import hold
from yarncli.checkpoint.output import output_errors, output_files, require_space
from yarncli.checkpoint.rewrite import FileCopy, Patch, Span, copy_files, first_difference
from yarncli.checkpoint.system import open_to_read, read_at
from yarncli.errors import CheckpointError, OutputError, UsageError
from yarncli.gguf.layout import Layout
from yarncli.gguf.record import Rewrite
from yarncli.gguf.source import GgufFile, identify, looks_like_gguf, split_names
from yarncli.progress import ProgressCallback, stage


def write_gguf(
    file: GgufFile,
    rewrite: Rewrite,
    destination: Path,
    *,
    overwrite: bool = False,
    verify: bool = False,
    fsync: bool = False,
    progress: ProgressCallback | None = None,
) -> tuple[Path, ...]:
    """Write an edited file; of a split model, also copies of its other files.

    Args:
        file: the old file, on this machine.
        rewrite: the change that was decided for this file.
        destination: the new file; for a split model the first, named `…-00001-of-0000N.gguf`.
        overwrite: replace an existing GGUF file.
        verify: read everything again, and compare it with the old file.
        fsync: flush everything to the disk before the files get their names.
        progress: called with the progress of "Copying" and "Verifying", in bytes.

    Returns:
        The files that were written, the one with the keys first.

    Raises:
        UsageError: the destination is refused.
        CheckpointError: a file of the source is missing, unreadable, or changes while it is read.
        OutputError: something cannot be written, or is different when it is read back.
    """
    sources = file.shards()
    targets = target_paths(file, destination)
    before = {path: _identity(path) for path in sources}
    if file.identity != before[sources[0]]:
        raise _changed(sources[0])
    check = partial(_check, targets, sources, overwrite=overwrite)
    size = rewrite.layout.size + sum(before[path][2] for path in sources[1:])
    with (
        hold(sources[0].absolute().parent, "shared"),
        output_files(targets, check=check, fsync=fsync, progress=progress) as staging,
    ):
        require_space(staging, size)
        copies = _copies(sources, [staging / path.name for path in targets], rewrite.layout)
        with stage(progress, "Copying", size) as advance:
            copy_files(copies, progress=advance)
        for path in sources:
            if _identity(path) != before[path]:
                raise _changed(path)
        _require_written(copies[0].destination, rewrite.layout, destination)
        if verify:
            with stage(progress, "Verifying", size) as advance:
                for copy, target in zip(copies, targets, strict=True):
                    if first_difference(copy, progress=advance) is not None:
                        raise _failing(target)
    return targets


def _require_written(path: Path, layout: Layout, name: Path) -> None:
    """Refuse a file that lacks the decided header or has another length."""
    with output_errors(str(name)):
        descriptor = open_to_read(path)
        try:
            found = read_at(descriptor, 0, len(layout.header))
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    if found != layout.header or size != layout.size:
        raise _failing(name)


def require_free(file: GgufFile, destination: Path, *, overwrite: bool) -> None:
    """Refuse a destination before anything large is fetched. `write_gguf` checks it again.

    Raises:
        UsageError: the destination is refused.
    """
    sources = file.shards() if file.path else ()
    _check(target_paths(file, destination), sources, overwrite=overwrite)


def target_paths(file: GgufFile, destination: Path) -> tuple[Path, ...]:
    """The files that are written; for a split model one for each of its files.

    Raises:
        UsageError: the name does not fit the first of that many files.
    """
    if file.split_count == 1:
        return (destination,)
    try:
        names = split_names(destination.name, file.split_count)
    except CheckpointError:
        raise UsageError(
            f"{file.name} is a split model of {file.split_count} files, so the name of the first "
            f"file to write must end in -00001-of-{file.split_count:05}.gguf."
        ) from None
    return tuple(destination.with_name(name) for name in names)


def _check(targets: Sequence[Path], sources: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse what must not be replaced."""
    for path in targets:
        if not os.path.lexists(path):
            continue
        if any(path.exists() and path.samefile(source) for source in sources):
            raise UsageError(f"{path} is the source itself. Choose another name or use --in-place.")
        if not overwrite:
            raise UsageError(
                f"{path} already exists. Choose another name, or replace it with --overwrite."
            )
        if path.is_symlink() or not looks_like_gguf(path):
            raise UsageError(
                f"{path} is not a GGUF file, so --overwrite does not replace it. Choose another "
                "name."
            )


def _copies(
    sources: Sequence[Path], destinations: Sequence[Path], layout: Layout
) -> list[FileCopy]:
    whole: list[tuple[tuple[Patch, ...], tuple[bytes | Span, ...] | None]]
    whole = [(layout.patches, (layout.header, *layout.parts)), *[((), None)] * (len(sources) - 1)]
    return [
        FileCopy(source, destination=destination, patches=patches, parts=parts)
        for source, destination, (patches, parts) in zip(sources, destinations, whole, strict=True)
    ]


def _identity(path: Path) -> tuple[int, ...]:
    try:
        info = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(info.st_mode):
        raise CheckpointError(f"{path} is not a regular file.")
    return identify(info)


def _changed(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} was changed by another program while yarncli read it, so the result would mix "
        "old and new content. Wait until the other program has ended, then run again."
    )


def _failing(path: Path) -> OutputError:
    return OutputError(
        f"{path} differs from what was written to it. The disk may be failing. Run again."
    )
