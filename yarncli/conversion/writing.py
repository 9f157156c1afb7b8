"""Carry out a conversion: write config files, copy all other files, and read them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yarncli.checkpoint import output
from yarncli.checkpoint.copying import fill, require_unchanged, require_written
from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.files import SourceFile
from yarncli.checkpoint.in_place import change
from yarncli.checkpoint.rewrite import link_file
from yarncli.checkpoint.source import Checkpoint
from yarncli.conversion.conversion import Conversion
from yarncli.conversion.options import ConvertOptions
from yarncli.errors import UsageError
from yarncli.history import FILE_NAME
from yarncli.progress import ProgressCallback, stage


def write_copy(
    conversion: Conversion, destination: Path, *, progress: ProgressCallback | None = None
) -> None:
    """Write the converted checkpoint to a new directory, completely or not at all.

    Args:
        conversion: what `decide` decided; its checkpoint must be local (see `download`).
        destination: the directory to write.
        progress: told how far the stages "Copying" and "Flushing to the disk" are, in bytes.

    Raises:
        UsageError: the destination is refused.
        CheckpointError: a file of the source cannot be copied, or a shard is missing, damaged,
            or changed during the copy.
        OutputError: something cannot be written, or does not read back.
    """
    checkpoint, options = conversion.checkpoint, conversion.options
    if not options.config_only:
        checkpoint.headers()  # an incomplete checkpoint is refused here, not later by an engine
    place: dict[str, Any] = {"source": checkpoint.directory, "overwrite": options.overwrite}
    output.check_destination(destination, **place)
    files, wanted = conversion.written_files, files_to_carry(checkpoint, options)
    carried = [file for file in wanted if file.name not in files]
    mode = options.weights
    linked = [file for file in carried if file.is_weights] if mode != "copy" else []
    copied = [file for file in carried if file not in linked]
    size = sum(file.size for file in copied)
    output.require_space(destination.absolute().parent, size)
    with (
        output.output_directory(
            destination, **place, fsync=options.fsync, progress=progress
        ) as staging,
        stage(progress, "Copying", size) as advance,
    ):
        config = checkpoint.path("config.json")
        fill(staging, config.parent, copied, files, like=config, progress=advance)
        for file in linked:
            assert mode != "copy"  # otherwise `linked` is empty
            output.make_parents(staging, file.name, checkpoint.directory)
            link_file(checkpoint.path(file.name), staging / file.name, mode)
        require_written(staging, files)
        require_unchanged(checkpoint, (file.name for file in wanted))


def write_in_place(conversion: Conversion, directory: Directory | None) -> None:
    """Replace the config files of the source, all or none, and keep the originals as `*.orig`.

    Args:
        conversion: decided while `directory` was held.
        directory: the source, locked for this process.

    Raises:
        UsageError: the source is not a directory on this machine.
        CheckpointError: a file is shared with others (a link, the Hub cache).
        OutputError: something cannot be written; the old state is back.
    """
    if directory is None or conversion.checkpoint.directory is None:
        raise UsageError("--in-place needs a checkpoint directory on this machine.")
    files = conversion.written_files
    change(directory, files, keep=[name for name in files if name != FILE_NAME])
    require_written(directory.path, files)


def files_to_carry(checkpoint: Checkpoint, options: ConvertOptions) -> list[SourceFile]:
    """The files of the source that belong in the output.

    Raises:
        CheckpointError: one of them cannot be copied; the message names it.
    """
    files = checkpoint.files_to_copy()
    return [file for file in files if not (options.config_only and file.is_weights)]
