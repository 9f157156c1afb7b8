"""Make a copy of a checkpoint or an adapter: some files are copied, others are newly written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from yarncli.checkpoint import output
from yarncli.checkpoint.files import SourceFile
from yarncli.checkpoint.rewrite import FileCopy, Patch, copy_files
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckpointError, OutputError
from yarncli.progress import Advance

_NONE: Mapping[str, Sequence[Patch]] = {}


def fill(
    staging: Path,
    source: Path,
    carried: Iterable[SourceFile],
    written: Mapping[str, bytes],
    patches: Mapping[str, Sequence[Patch]] = _NONE,
    *,
    like: Path | None,
    progress: Advance | None = None,
) -> None:
    """Fill a directory with files of another one and with new files, and take over file modes.

    Args:
        staging: the directory; see `output.output_directory`.
        source: the directory that it is a copy of.
        carried: the files of `source` that are copied.
        written: name → content of the new files.
        patches: name → byte ranges that are rewritten during the copy.
        like: the file whose mode the written ones take over.
        progress: called with the number of bytes copied.

    Raises:
        CheckpointError: a source cannot be read.
        HubError: a file of the Hub is not what the Hub has.
        OutputError: something cannot be written.
    """
    copies = []
    for file in carried:
        output.make_parents(staging, file.name, source)
        mine = tuple(patches.get(file.name, ()))
        copy = FileCopy(
            source / file.name, destination=staging / file.name, patches=mine, digest=file.digest
        )
        copies.append(copy)
    copy_files(copies, progress=progress)
    for name, data in written.items():
        output.write_new(staging / name, data, like)


def require_written(directory: Path, files: Mapping[str, bytes]) -> None:
    """Insist that small files hold what was written to them.

    Raises:
        OutputError: one does not, or cannot be read.
    """
    for name, data in files.items():
        with output.output_errors(str(directory / name)):
            found = (directory / name).read_bytes()
        if found != data:
            raise OutputError(
                f"{directory / name} does not read back as it was written. The disk may be "
                "failing. Run again."
            )


def require_unchanged(checkpoint: Checkpoint, names: Iterable[str]) -> None:
    """Insist that a local checkpoint is still what it was when it was listed and read.

    Our own commands lock its directory; an editor, a download or a trainer does not.

    Args:
        checkpoint: as it was opened.
        names: of the files that were used, besides those whose content was read.

    Raises:
        CheckpointError: a file was changed or removed meanwhile; names it.
    """
    directory, read = checkpoint.directory, checkpoint.contents_read
    for name in {*names, *read} if directory else ():
        path, file = Path(directory or "", name), checkpoint.file(name)
        try:
            info = path.stat()
            same = file is not None and (info.st_size, info.st_mtime_ns) == (
                file.size,
                file.modified,
            )
            if same and name in read:
                same = path.read_bytes() == read[name]
        except OSError:
            same = False
        if not same:
            raise CheckpointError(
                f"{path} was changed by something else while it was used, so the result would be "
                "a mixture. Wait until that has ended, then run again."
            )
