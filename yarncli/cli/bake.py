"""`yarncli bake`: move the attention temperature from the config into the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from yarncli.cli import options

EXAMPLES = [
    ("yarncli bake ./model-128k ./baked", "The weights carry the temperature, the config none."),
    ("yarncli bake ./model-128k ./baked --dry-run", "List tensors, rows, powers and bytes."),
    (
        "yarncli bake ./model-128k ./baked --verify",
        "Compare all bytes, and a small twin's logits.",
    ),
    ("yarncli bake ./model-128k ./baked --engine mlx-lm", "Refuse if that engine would differ."),
    ("yarncli bake ./linear ./baked --attention-factor 1.1", "A temperature no config can hold."),
    ("yarncli bake ./base ./baked --adapter ./lora ./lora-baked", "Scale its LoRA adapter too."),
    ("yarncli bake ./model-128k --in-place", "Change the directory, under an undo journal."),
    ("yarncli bake ./model-128k --recover", "Put the old state back after an interrupted bake."),
]

FormOption = Annotated[
    Literal["neutral", "residual"],
    typer.Option(
        "--form",
        help="neutral: the weights carry all of it; residual: all but yarn's default.",
    ),
]
SideOption = Annotated[
    Literal["k", "q", "both"] | None,
    typer.Option(
        "--side",
        help="Scale keys, queries or both.",
        show_default="k; q where keys have a bias or a cache scale",
    ),
]
AttentionFactor = Annotated[
    float | None,
    typer.Option("--attention-factor", help="Bake this factor instead of the config's."),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option("--engine", metavar="ID", help="Refuse if this engine would read it wrong."),
]
LayoutOption = Annotated[
    str | None,
    typer.Option("--layout", metavar="FAMILY", help="Bake an unknown model as this layout."),
]
Adapter = Annotated[
    tuple[Path, Path] | None,
    typer.Option("--adapter", metavar="DIR OUT", help="Scale a LoRA adapter of SOURCE too."),
]
Recover = Annotated[
    bool, typer.Option("--recover", help="Undo an interrupted --in-place in SOURCE.")
]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Compare all other bytes too, and bake a small random twin."),
]
VerifyLogits = Annotated[
    str | None,
    typer.Option("--verify-logits", metavar="TEXT", help="Run both checkpoints on TEXT."),
]
OptionalOutput = Annotated[
    Path | None,
    typer.Argument(metavar="OUT", show_default=False, help="The directory to write."),
]


def bake(
    source: options.Source,
    out: OptionalOutput = None,
    form: FormOption = "neutral",
    side: SideOption = None,
    attention_factor: AttentionFactor = None,
    engine: EngineOption = None,
    layout: LayoutOption = None,
    assume_like: options.AssumeLike = None,
    adapter: Adapter = None,
    verify: Verify = False,
    verify_logits: VerifyLogits = None,
    in_place: options.InPlace = False,
    recover: Recover = False,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    fsync: options.Fsync = False,
    json: options.Json = False,
) -> None:
    """Move the attention temperature from the config into the weights.

    yarn multiplies attention by a factor that engines compute in different ways, or not at all.
    In the weights it is the same everywhere. OUT appears whole or not at all.
    """
    from yarncli.baking.baking import Options
    from yarncli.cli import bake_run

    if recover:
        bake_run.recover(source, json=json)
        return
    run = bake_run.Run(
        Options(form, side, attention_factor, layout, assume_like),
        out=out,
        adapter=adapter,
        engines=tuple(engine or ()),
        verify=verify,
        text=verify_logits,
        in_place=in_place,
        dry_run=dry_run,
        overwrite=overwrite,
        fsync=fsync,
    )
    bake_run.bake(source, run, json=json)
