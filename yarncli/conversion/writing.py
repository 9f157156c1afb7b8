"""A conversion carried out: config files written, the rest carried over, all read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yarncli.checkpoint import output
from yarncli.checkpoint.files import SourceFile
from yarncli.checkpoint.rewrite import FileCopy, copy_files, link_file
from yarncli.checkpoint.source import Checkpoint
from yarncli.conversion.conversion import Conversion
from yarncli.conversion.options import ConvertOptions
from yarncli.errors import CheckpointError, UsageError
from yarncli.history import FILE_NAME
from yarncli.progress import ProgressCallback, stage


def write_copy(
    conversion: Conversion, destination: Path, *, progress: ProgressCallback | None = None
) -> None:
    """Write the converted checkpoint to a new directory, whole or not at all.

    Args:
        conversion: what `decide` decided; its checkpoint must be local (see `download`).
        destination: the directory to be.
        progress: told how far the stage "Copying" is, in bytes.

    Raises:
        UsageError: the destination is refused.
        CheckpointError: a file of the source cannot be carried over, a shard is missing or
            damaged, or what was read back is not what was planned.
        OutputError: something cannot be written.
    """
    checkpoint, options = conversion.checkpoint, conversion.options
    if not options.config_only:
        checkpoint.headers()  # half a checkpoint is refused here, not by an engine later
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
        output.output_directory(destination, **place, fsync=options.fsync) as staging,
        stage(progress, "Copying", size) as advance,
    ):
        for file in carried:
            (staging / file.name).parent.mkdir(parents=True, exist_ok=True)
        copy_files(
            [FileCopy(checkpoint.path(f.name), staging / f.name) for f in copied], progress=advance
        )
        for file in linked:
            assert mode != "copy"  # or nothing is linked
            link_file(checkpoint.path(file.name), staging / file.name, mode)
        for name, data in files.items():
            (staging / name).write_bytes(data)
        _read_back(staging, files)


def write_in_place(conversion: Conversion) -> None:
    """Replace the config files of the source, keeping the originals as `*.orig`.

    `config.json` is written last. Until then every engine still reads the old setting, and
    `yarncli.json` already knows how to undo.

    Raises:
        UsageError: the source is not a directory on this machine.
        CheckpointError: a file is shared with others (a link, the Hub cache).
        OutputError: something cannot be written.
    """
    directory = conversion.checkpoint.directory
    if directory is None or conversion.checkpoint.is_remote:
        raise UsageError("--in-place needs a checkpoint directory on this machine.")
    files = conversion.written_files
    for name in files:
        output.refuse_shared_file(directory / name)
    for name in sorted(files, key=lambda name: name == "config.json"):
        path = directory / name
        if path.exists() and name != FILE_NAME:
            output.replace_keeping_original(path, files[name])
        else:
            output.atomic_write(path, files[name])
    _read_back(directory, files)


def files_to_carry(checkpoint: Checkpoint, options: ConvertOptions) -> list[SourceFile]:
    """The files of the source that belong into the output.

    Raises:
        CheckpointError: one of them cannot be carried over; named.
    """
    files = checkpoint.files_to_copy()
    return [file for file in files if not (options.config_only and file.is_weights)]


def _read_back(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        if (directory / name).read_bytes() != data:
            raise CheckpointError(f"{directory / name} does not hold what was written to it.")
