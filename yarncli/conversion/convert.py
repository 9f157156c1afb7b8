"""`convert` as a function: decide a context extension, write it, and report it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.checkpoint.completeness import require_complete
from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.in_place import using
from yarncli.checkpoint.naming import require_order
from yarncli.checkpoint.output import check_destination
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.conversion.conversion import Conversion, decide
from yarncli.conversion.options import ConvertOptions
from yarncli.conversion.writing import files_to_carry, write_copy, write_in_place
from yarncli.errors import UsageError
from yarncli.gguf.detection import is_gguf_folder, is_gguf_source
from yarncli.options import checked
from yarncli.planning.rope_plan import RopePlan
from yarncli.progress import ProgressCallback

if TYPE_CHECKING:
    from yarncli.conversion.gguf import GgufConversion
    from yarncli.conversion.gguf_folder import GgufFolderConversion

_DEFAULTS = ConvertOptions()


def plan(
    source: str | Path | Checkpoint, options: ConvertOptions = _DEFAULTS, **changes: Any
) -> RopePlan:
    """Decide every number of a context extension from config files; nothing is written.

    Args:
        source: a checkpoint directory, a config.json or a Hub id, or a GGUF file.
        options: the options of the conversion.
        changes: fields of `options` to change, by name.

    Raises:
        UsageError: contradictory options.
        CheckpointError: the config is damaged, or the model cannot take what is asked.

    Example:
        >>> plan("./model", factor=4).length  # doctest: +SKIP
        131072
    """
    options = checked(options, changes)
    if is_gguf_source(source):
        from yarncli.conversion.gguf import plan_gguf

        assert isinstance(source, str | Path)
        return plan_gguf(source, options)
    return decide(open_checkpoint(source), options).plan


def convert(
    source: str | Path | Checkpoint,
    out: str | Path | None = None,
    options: ConvertOptions = _DEFAULTS,
    *,
    progress: ProgressCallback | None = None,
    **changes: Any,
) -> Conversion | GgufConversion | GgufFolderConversion:
    """Write a context extension into a copy of a checkpoint or a GGUF file, or in place.

    The output is written completely or not at all. What was written is read back and compared with
    the plan.

    Args:
        source: a checkpoint directory, a config.json or a Hub id; or a GGUF file, here or
            `hf://org/name/file.gguf`, or a folder of quantisations of one model.
        out: the directory, or the GGUF file, to write; None in place, or in a dry run.
        options: the options of the conversion.
        progress: told how far the stages "Fetching" and "Copying" (or "Baking") are, in bytes.
        changes: fields of `options` to change, by name.

    Raises:
        UsageError: contradictory options, or the output is refused.
        CheckpointError: the source is damaged, or the model cannot take what is asked.
        HubError: a file cannot be fetched.
        OutputError: something cannot be written.

    Example:
        >>> convert("./model", "./model-128k", length=131072).plan.factor  # doctest: +SKIP
        4.0
    """
    options, out = checked(options, changes), Path(out) if out else None
    options.require_consistent(out)
    require_order(source, out, overwrite=options.overwrite)
    if is_gguf_source(source):
        from yarncli.conversion.gguf import convert_gguf

        assert isinstance(source, str | Path)
        return convert_gguf(source, out, options, progress=progress)
    if is_gguf_folder(source):
        from yarncli.conversion.gguf_folder import convert_gguf_folder

        assert isinstance(source, str | Path)
        return convert_gguf_folder(source, out, options, progress=progress)
    if options.from_ is not None:
        raise UsageError("--from writes into a GGUF file, and SOURCE is not one. Leave --from out.")
    in_place = out is None and not options.dry_run
    with using(source, in_place=in_place) as directory:
        return _convert(source, out, options, directory, progress)


def _convert(
    source: str | Path | Checkpoint,
    out: Path | None,
    options: ConvertOptions,
    directory: Directory | None,
    progress: ProgressCallback | None,
) -> Conversion:
    conversion = replace(decide(open_checkpoint(source), options), output=out)
    if not options.config_only:
        require_complete(conversion.checkpoint, conversion.rope.stored_layers)
    if out and not options.dry_run:  # before anything large is fetched
        origin = conversion.checkpoint.directory
        check_destination(out, source=origin, overwrite=options.overwrite)
    if options.bake:
        from yarncli.conversion.baked import bake_too  # numpy comes with it

        return bake_too(conversion, progress=progress)
    if options.dry_run:
        return conversion
    if out is None:
        write_in_place(conversion, directory)
    else:
        names = tuple(f.name for f in files_to_carry(conversion.checkpoint, options))
        copied = options.weights == "copy"
        local = conversion.checkpoint.download(names, copied=copied, progress=progress)
        write_copy(replace(conversion, checkpoint=local), out, progress=progress)
    return replace(conversion, written=True)
