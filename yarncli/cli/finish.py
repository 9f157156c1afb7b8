"""`yarncli finish`: check a trained conversion, and restore what the trainer dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from yarncli.cli import options

EXAMPLES = [
    ("yarncli finish ./trained ./done --from ./model-128k", "Check it, and write it complete."),
    ("yarncli finish ./trained --from ./model-128k --in-place", "Change the directory itself."),
    ("yarncli finish ./trained ./done --from ./model-128k --dtype auto", "Restore the old dtype."),
    ("yarncli finish ./lora ./lora-done --from ./model-128k --adapter", "Finish a LoRA adapter."),
    ("yarncli finish ./trained --from ./model-128k --dry-run", "Check it and write nothing."),
]


def finish(
    trained: Annotated[
        Path,
        typer.Argument(
            metavar="TRAINED", show_default=False, help="The directory that the trainer wrote."
        ),
    ],
    out: options.OptionalOutput = None,
    converted: Annotated[
        str,
        typer.Option(
            "--from", metavar="CONVERTED", help="The conversion that the training started from."
        ),
    ] = "",
    adapter: Annotated[
        bool, typer.Option("--adapter", help="TRAINED is a LoRA adapter: record its plan.")
    ] = False,
    dtype: Annotated[
        Literal["keep", "auto"],
        typer.Option(
            "--dtype", help="keep: the dtype of the training; auto: the dtype of CONVERTED."
        ),
    ] = "keep",
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", help="Change TRAINED itself; the old config files are kept as *.orig."
        ),
    ] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="With --in-place: remove the trainer's leftover files.")
    ] = False,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    fsync: options.Fsync = False,
    json: options.Json = False,
) -> None:
    """Check that a trained model has the setting of its conversion, and make it complete again.

    Trainers save one spelling of the RoPE setting and drop yarncli.json. This restores both, the
    lengths and the tokenizer; the weights stay as they were trained. If the training changed the
    setting, the model is refused.
    """
    from yarncli.cli import console, finish_print
    from yarncli.errors import UsageError
    from yarncli.training.finish import finish as make_whole
    from yarncli.training.options import FinishOptions

    if not converted:
        raise UsageError("Give the conversion that the training started from: --from CONVERTED.")
    chosen = FinishOptions(
        adapter=adapter, dtype=dtype, in_place=in_place, clean=clean, dry_run=dry_run,
        overwrite=overwrite, fsync=fsync,
    )  # fmt: skip
    found = make_whole(trained, converted, out, chosen, progress=console.ProgressBars())
    if json:
        console.print_json(found.to_json())
    else:
        finish_print.print_finish(found)
