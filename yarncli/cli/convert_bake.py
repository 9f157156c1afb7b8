"""`convert --bake`: both in one pass over the files."""

from __future__ import annotations

from collections.abc import Sequence

from yarncli.baking.deciding import BakeSettings, decide_bake, refuse_engines
from yarncli.baking.writing import write_copy
from yarncli.cli import bake_print, console, convert_run
from yarncli.conversion.conversion import Conversion


def convert(
    conversion: Conversion, run: convert_run.Run, *, engines: Sequence[str], json: bool
) -> None:
    """Bake what the conversion would have written, write that, and report both."""
    baking = decide_bake(
        conversion.checkpoint,
        BakeSettings(assume_like=conversion.assume_like),
        config=conversion.config,
        history=conversion.history,
        others={name: after.text.encode() for name, (_, after) in conversion.files.items()},
    )
    refuse_engines(baking, engines)
    if run.out and not run.dry_run:
        write_copy(
            baking,
            run.out,
            overwrite=run.overwrite,
            fsync=run.fsync,
            progress=console.ProgressBars(),
        )
    if json:
        found, views = convert_run.to_json(conversion, run), baking.judgement().brief()
        console.print_json({**found, "engines": views, "bake": baking.to_json()})
        return
    convert_run.show_changes(conversion, run)
    bake_print.print_edits(baking)
    for text in conversion.plan.notes:
        console.note(text)
    bake_print.print_notes(baking)
    if not run.dry_run:
        console.note(f"Next: yarncli engines {run.out}")
