"""`convert --bake`: both in one pass over the files."""

from __future__ import annotations

from collections.abc import Sequence

from yarncli.baking.baking import Options, prepare
from yarncli.baking.view import to_json
from yarncli.cli import bake_run, console, convert_run
from yarncli.conversion.conversion import Conversion


def convert(
    conversion: Conversion, run: convert_run.Run, *, engines: Sequence[str], json: bool
) -> None:
    """Bake what the conversion would have written, write that, and report both."""
    baking = prepare(
        conversion.checkpoint,
        Options(assume_like=conversion.assume_like),
        config=conversion.config,
        history=conversion.history,
        others={name: after.text.encode() for name, (_, after) in conversion.files.items()},
    )
    bake_run.refuse_engines(baking, engines)
    if run.out and not run.dry_run:
        bake_run.write_copy(baking, run.out, overwrite=run.overwrite, fsync=run.fsync)
    if json:
        baked = to_json(baking)
        found = convert_run.to_json(conversion, run)
        console.print_json({**found, "engines": baked.pop("engines"), "bake": baked})
        return
    convert_run.show_changes(conversion, run)
    bake_run.show_edits(baking)
    for text in conversion.plan.notes:
        console.note(text)
    bake_run.show_notes(baking)
    if not run.dry_run:
        console.note(f"Next: yarncli engines {run.out}")
