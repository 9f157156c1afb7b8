"""What `convert` prints: the plan, what changed, the notes, and the next command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from yarncli.cli import console
from yarncli.cli.engines_print import print_next, warn_of
from yarncli.conversion.conversion import Conversion
from yarncli.conversion.undo import Undone
from yarncli.history import GGUF_PARTS

if TYPE_CHECKING:
    from yarncli.conversion.gguf import GgufConversion
    from yarncli.conversion.gguf_folder import GgufFolderConversion


def print_conversion(
    conversion: Conversion | GgufConversion | GgufFolderConversion, *, json: bool
) -> None:
    """Print the plan in a line, the changed fields (of a dry run the diff), and the notes."""
    if json:
        console.print_json(conversion.to_json())
        return
    if plan := conversion.plan:
        console.print_text(
            f"{plan.method}: {plan.original_length:,} → {plan.length:,} tokens, factor "
            f"{plan.factor:g} (original from {plan.original_source})"
        )
    if isinstance(conversion, Conversion):
        _print_checkpoint(conversion)
    else:
        from yarncli.cli.gguf_print import print_gguf_conversions

        print_gguf_conversions(conversion)


def _print_checkpoint(conversion: Conversion) -> None:
    if conversion.written:
        for change in conversion.changes:
            console.print_text(f"  {change.describe()}")
    else:
        lines = conversion.diff().split("\n")
        # A chat template or a vocabulary may be a single line of a megabyte.
        console.print_text("\n".join(x[:1000] + "…" if len(x) > 1000 else x for x in lines))
    if conversion.baking:
        from yarncli.cli.bake_print import print_edits

        print_edits(conversion.baking)
    for text in conversion.plan.notes:
        console.note(text)
    if conversion.baking:
        from yarncli.cli.bake_print import print_notes

        print_notes(conversion.baking)
    else:
        warn_of(conversion.judgement)
    if conversion.written:
        _warn_of_gguf_files(conversion.output or conversion.checkpoint.directory)
        print_next(conversion.judgement, conversion.name)


def _warn_of_gguf_files(directory: Path | None) -> None:
    """Warn of GGUF files in the result: no conversion of a checkpoint changes them."""
    from yarncli.gguf.source import models_in

    for file in models_in(directory)[0] if directory else ():
        line = shlex.join(["yarncli", "convert", file.name, "--in-place", "--from", str(directory)])
        console.warn(f"{file.name} still has the setting from before. Extend it with: {line}")


def print_undone(undone: Undone, *, json: bool) -> None:
    """Say what was restored."""
    if json:
        console.print_json(undone.to_json())
        return
    for change in undone.changes:
        if change.file in GGUF_PARTS:
            from yarncli.cli.gguf_print import describe_change

            console.print_text(f"  {describe_change(change)}")
        else:
            console.print_text(f"  {change.describe()}")
    if undone.backups:
        console.note(
            f"Backups of other states remain: {', '.join(undone.backups)}. Remove them if you do "
            "not need them."
        )
