"""Write a decided bake, as a copy or in place, and read back what was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from yarncli.baking.deciding import Baking
from yarncli.checkpoint import output, rewrite
from yarncli.checkpoint.copying import fill, require_unchanged, require_written
from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.in_place import change
from yarncli.checkpoint.safetensors import Header
from yarncli.errors import OutputError, UsageError
from yarncli.progress import Advance, ProgressCallback, stage
from yarncli.threads import in_parallel

BAKING = "Baking"


def write_copy(
    baking: Baking,
    destination: Path,
    *,
    overwrite: bool = False,
    fsync: bool = False,
    verify: bool = False,
    progress: ProgressCallback | None = None,
    beside: Callable[[], None] | None = None,
) -> Baking:
    """Write the baked checkpoint to a new directory, completely or not at all.

    A source on the Hub is fetched first. Every edited range is read back, and every shard is opened
    with safetensors' own reader.

    Args:
        baking: what `decide_bake` decided.
        destination: the directory to write.
        overwrite: replace an existing checkpoint directory.
        fsync: flush the output to the disk, to survive a power failure.
        verify: compare every other byte of the shards with the source as well.
        progress: told how far the stages "Fetching" and "Baking" are, in bytes.
        beside: writes the adapter; called when only the last rename remains.

    Returns:
        The bake with the checkpoint on this machine.

    Raises:
        UsageError: the destination is refused.
        HubError: a file cannot be fetched.
        CheckpointError: a file of the source cannot be copied.
        WeightsError: a value leaves the range of its dtype.
        OutputError: something cannot be written, or does not read back.
    """
    checkpoint = baking.checkpoint
    output.check_destination(destination, source=checkpoint.directory, overwrite=overwrite)
    checkpoint = checkpoint.download(copied=True, progress=progress)
    baking = replace(baking, checkpoint=checkpoint)
    files = baking.files
    carried = [file for file in checkpoint.files_to_copy() if file.name not in files]
    output.require_space(destination.absolute().parent, sum(file.size for file in carried))
    with (
        stage(progress, BAKING, _work(baking, verify=verify)) as advance,
        output.output_directory(
            destination,
            source=checkpoint.directory,
            overwrite=overwrite,
            fsync=fsync,
            progress=progress,
        ) as staging,
    ):
        config = checkpoint.path("config.json")
        fill(staging, config.parent, carried, files, baking.patches, like=config, progress=advance)
        # Check before the directory gets its name, so that a wrong copy never appears.
        _read_back(baking, staging, verify, advance)
        require_unchanged(checkpoint, (file.name for file in carried))
        if beside:
            beside()
    return baking


def _work(baking: Baking, *, verify: bool) -> int:
    """The bytes that `write_copy` reports: every byte copied, every byte read back."""
    copied = sum(file.size for file in baking.checkpoint.files if file.name not in baking.files)
    patched = _patched(baking)
    compared = sum(header.file_size for header in baking.checkpoint.headers().values())
    return copied + patched + (compared - patched if verify else 0)


def _patched(baking: Baking) -> int:
    return sum(patch.length for patches in baking.patches.values() for patch in patches)


def write_in_place(
    baking: Baking, directory: Directory | None, *, progress: ProgressCallback | None = None
) -> Path:
    """Bake the source itself, all of it or nothing (see `checkpoint.in_place`).

    Args:
        baking: what `decide_bake` decided while `directory` was held.
        directory: the source, locked for this process.
        progress: told how far the stage "Baking" is, in bytes.

    Returns:
        The backup of the old `config.json`.

    Raises:
        UsageError: the source is not a directory on this machine.
        CheckpointError: a file is shared with others.
        OutputError: something cannot be written; the old state is back.
    """
    if directory is None or baking.checkpoint.directory is None:
        raise UsageError("--in-place needs a checkpoint directory on this machine.")
    # Three passes: old bytes into the journal, new bytes into the file, and reading back.
    with stage(progress, BAKING, 3 * _patched(baking)) as advance:
        kept = change(
            directory, baking.files, baking.patches, keep=["config.json"], progress=advance
        )
    for name in baking.patches:
        _open(directory.path / name, baking.checkpoint.headers()[name])
    return directory.path / kept["config.json"]


def _read_back(baking: Baking, staging: Path, verify: bool, progress: Advance) -> None:
    checks = [
        partial(_check_shard, baking, staging, name, verify) for name in baking.checkpoint.headers()
    ]
    in_parallel(checks, progress=progress)
    require_written(staging, baking.files)


def _check_shard(baking: Baking, staging: Path, name: str, verify: bool, progress: Advance) -> None:
    source, made = baking.checkpoint.path(name), staging / name
    patches = baking.patches.get(name, ())
    wrong = rewrite.first_wrong_patch(source, made, patches, progress=progress)
    if wrong is None and verify:
        wrong = rewrite.compare_outside(source, made, patches, progress=progress)
    if wrong is not None:
        raise OutputError(
            f"{name} does not read back as it was written, near byte {wrong}. The disk may be "
            "failing, or the source has changed meanwhile. Run the command again."
        )
    _open(made, baking.checkpoint.headers()[name])


def _open(path: Path, header: Header) -> None:
    """Check that the reader of safetensors finds the tensors of the source."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            names = set(file.keys())
    except SafetensorError as error:
        raise OutputError(f"safetensors cannot open the new {path.name}: {error}.") from error
    if names != set(header.tensors):
        raise OutputError(f"{path.name} holds other tensors than the source. Run it again.")
