"""Write what `finish` decided, as a complete copy or into the directory itself."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from yarncli.checkpoint import output
from yarncli.checkpoint.copying import fill, require_unchanged, require_written
from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.files import SourceFile
from yarncli.checkpoint.in_place import change
from yarncli.checkpoint.output import output_errors
from yarncli.errors import CheckpointError, UsageError
from yarncli.history import FILE_NAME
from yarncli.progress import ProgressCallback, stage
from yarncli.threads import in_parallel
from yarncli.training.casting import write_cast

if TYPE_CHECKING:
    from yarncli.training.deciding import Finish

_COPYING = "Copying"


def write_copy(
    found: Finish,
    destination: Path,
    *,
    overwrite: bool,
    fsync: bool,
    progress: ProgressCallback | None,
) -> None:
    """Write the finished model to a new directory, whole or not at all.

    Raises:
        UsageError: the destination is refused.
        CheckpointError: a file cannot be copied, or was changed meanwhile.
        WeightsError: a number does not fit into the dtype that it is cast to.
        OutputError: something cannot be written, or is different when it is read back.
    """
    files, carried, taken = _contents(found), _carried(found), _taken(found)
    size = sum(file.size for file in [*carried, *taken])
    cast = sum(each.nbytes for each in found.casts.values())
    output.require_space(destination.absolute().parent, size + cast)
    source, origin = (c.path("config.json").parent for c in (found.trained, found.converted))
    with (
        output.output_directory(
            destination,
            source=found.trained.directory,
            overwrite=overwrite,
            fsync=fsync,
            progress=progress,
        ) as staging,
        stage(progress, _COPYING, size + 2 * cast) as advance,
    ):
        like = source / "config.json"
        fill(staging, source, carried, files, like=like, progress=advance)
        fill(staging, origin, taken, {}, like=like, progress=advance)
        jobs = []
        for name, each in found.casts.items():
            output.make_parents(staging, name, source)
            jobs.append(partial(write_cast, each, source / name, staging / name))
        in_parallel(jobs, progress=advance)
        require_written(staging, files)
        require_unchanged(found.trained, [*(f.name for f in carried), *found.casts])
        require_unchanged(found.converted, (f.name for f in taken))


def write_in_place(found: Finish, directory: Directory | None) -> None:
    """Finish the trained directory itself, all or nothing; then remove leftovers if asked to.

    Raises:
        UsageError: it is not a directory on this machine.
        CheckpointError: a file is a link or belongs to the Hub cache.
        OutputError: something cannot be written; the old state is restored.
    """
    if directory is None:
        raise UsageError("--in-place needs a directory on this machine.")
    origin = found.converted.path("config.json").parent
    taken = {file.name: (origin / file.name).read_bytes() for file in _taken(found)}
    files = {**taken, **_contents(found)}
    change(directory, files, keep=[name for name in files if name != FILE_NAME])
    require_written(directory.path, files)
    if found.clean:
        remove(directory.path, found.leftovers)


def remove(root: Path, files: tuple[SourceFile, ...]) -> None:
    """Remove files and the folders that become empty. Links are never followed.

    Raises:
        OutputError: one cannot be removed.
    """
    folders = set()
    for file in files:
        with output_errors(str(root / file.name)):
            (root / file.name).unlink(missing_ok=True)
        folders |= {parent for parent in Path(file.name).parents if parent != Path()}
    for folder in sorted(folders, key=lambda path: -len(path.parts)):
        with suppress(OSError):  # the folder is not empty
            (root / folder).rmdir()


def _contents(found: Finish) -> dict[str, bytes]:
    files = {name: after.to_bytes() for name, (_, after) in found.files.items()}
    return {**files, FILE_NAME: found.history.to_bytes()}


def _carried(found: Finish) -> list[SourceFile]:
    """The files of the trained model that are copied as they are."""
    gone = {*_contents(found), *found.taken, *found.casts, *(f.name for f in found.leftovers)}
    files = [file for file in found.trained.files if file.name not in gone]
    return require_fit(files, found.trained.name)


def _taken(found: Finish) -> list[SourceFile]:
    files = [file for file in found.converted.files if file.name in found.taken]
    return require_fit(files, found.converted.name)


def require_fit(files: list[SourceFile], name: str) -> list[SourceFile]:
    """The files, if every one can be copied.

    Raises:
        CheckpointError: a file cannot be copied; the message names it.
    """
    for file in files:
        if file.problem:
            raise CheckpointError(
                f"{name}/{file.name} {file.problem}. Remove it or put a real file there."
            )
    return files
