"""`convert --bake`: the conversion and the bake in one pass over the files."""

from __future__ import annotations

from dataclasses import replace

from yarncli.baking.deciding import decide_bake, refuse_engines
from yarncli.baking.settings import BakeSettings
from yarncli.baking.writing import write_copy
from yarncli.conversion.conversion import Conversion
from yarncli.progress import ProgressCallback


def bake_too(conversion: Conversion, *, progress: ProgressCallback | None = None) -> Conversion:
    """Bake the conversion that was decided, and write the result unless it is a dry run.

    Raises:
        CheckpointError: there is nothing to bake, or a file of the source cannot be carried over.
        UnsupportedArchitectureError: the model cannot be baked exactly, or an engine of `engines`
            would compute something else.
        HubError, OutputError: a file cannot be fetched or written.
    """
    options = conversion.options
    baking = decide_bake(
        conversion.checkpoint,
        BakeSettings(assume_like=options.assume_like),
        config=conversion.config,
        history=conversion.history,
        others={name: after.to_bytes() for name, (_, after) in conversion.files.items()},
    )
    refuse_engines(baking, options.engines)
    if conversion.output and not options.dry_run:
        write_copy(
            baking,
            conversion.output,
            overwrite=options.overwrite,
            fsync=options.fsync,
            progress=progress,
        )
    return replace(conversion, baking=baking, written=not options.dry_run)
