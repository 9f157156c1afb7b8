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
    ("yarncli bake model.gguf out.gguf --attention-factor 1.1", "A temperature for llama.cpp."),
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
BakedFactor = Annotated[
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
CarrierOption = Annotated[
    Literal["key", "scale", "norm", "weights"] | None,
    typer.Option(
        "--carrier",
        help="GGUF: what carries the factor.",
        show_default="what is exact and changes no weights",
    ),
]
Adapter = Annotated[
    tuple[Path, Path] | None,
    typer.Option("--adapter", metavar="DIR OUT", help="Scale a LoRA adapter of SOURCE too."),
]
Recover = Annotated[
    bool, typer.Option("--recover", help="Undo an interrupted change in place of SOURCE.")
]
TrustJournal = Annotated[
    bool,
    typer.Option("--trust-journal", help="With --recover: obey a journal of another user or host."),
]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Compare all other bytes too, and bake a small random twin."),
]
VerifyLogits = Annotated[
    str | None,
    typer.Option("--verify-logits", metavar="TEXT", help="Run both checkpoints on TEXT."),
]


def bake(
    source: options.AnySource,
    out: options.OptionalOutput = None,
    form: FormOption = "neutral",
    side: SideOption = None,
    attention_factor: BakedFactor = None,
    engine: EngineOption = None,
    layout: LayoutOption = None,
    assume_like: options.AssumeLike = None,
    carrier: CarrierOption = None,
    adapter: Adapter = None,
    verify: Verify = False,
    verify_logits: VerifyLogits = None,
    in_place: options.InPlace = False,
    recover: Recover = False,
    trust_journal: TrustJournal = False,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    fsync: options.Fsync = False,
    json: options.Json = False,
) -> None:
    """Move the attention temperature from the config into the weights, or into a GGUF file.

    yarn multiplies attention by a factor that engines compute in different ways, or not at all.
    Baking helps those that leave it out; some others then apply it twice. How many engines are
    right before and after is printed. OUT appears whole or not at all.
    """
    from yarncli.baking import bake as baking
    from yarncli.baking.settings import BakeOptions
    from yarncli.cli import bake_print, console

    if recover:
        found = bake_print.recovered(source, trust_journal=trust_journal)
        if json:
            console.print_json(found.to_json())
        else:
            bake_print.print_recovery(source, found)
        return
    chosen = BakeOptions(
        form=form, side=side, attention_factor=attention_factor, layout=layout,
        assume_like=assume_like, engines=engine or (), adapter=adapter, verify=verify,
        verify_logits=verify_logits, carrier=carrier, in_place=in_place, dry_run=dry_run,
        overwrite=overwrite, fsync=fsync,
    )  # fmt: skip
    report = baking.bake(source, out, chosen, progress=console.ProgressBars())
    if json:
        console.print_json(report.to_json())
    elif isinstance(report, baking.BakeReport):
        bake_print.print_report(report)
    else:
        from yarncli.cli.gguf_print import print_gguf_bake

        print_gguf_bake(report)
