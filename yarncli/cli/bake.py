"""`yarncli bake`: move the attention factor from the config into the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from yarncli.cli import options

EXAMPLES = [
    (
        "yarncli bake ./model-128k ./baked",
        "Move the attention factor from the config into the weights.",
    ),
    ("yarncli bake ./model-128k ./baked --dry-run", "List the tensors that would change."),
    (
        "yarncli bake ./model-128k ./baked --verify",
        "Compare all bytes, and the logits of a small twin.",
    ),
    ("yarncli bake ./model-128k ./baked --engine mlx-lm", "Refuse if mlx-lm would differ."),
    (
        "yarncli bake ./linear ./baked --attention-factor 1.1",
        "Bake a factor that no config can hold.",
    ),
    ("yarncli bake ./base ./baked --adapter ./lora ./lora-baked", "Also scale its LoRA adapter."),
    ("yarncli bake model.gguf out.gguf --attention-factor 1.1", "Bake a factor for llama.cpp."),
    ("yarncli bake ./model-128k --in-place", "Change the directory itself, with an undo journal."),
    ("yarncli bake ./model-128k --recover", "Restore the old state after an interrupted bake."),
]

HEADINGS = {
    "attention_factor": "Target",
    "layout": "Model",
    "engine": "Engines and checks",
    "in_place": "Output",
    "recover": "Run",
}

FormOption = Annotated[
    Literal["neutral", "residual"],
    typer.Option(
        "--form",
        help="neutral: move the whole attention factor into the weights; residual: leave yarn's "
        "default in the config and move the rest.",
    ),
]
SideOption = Annotated[
    Literal["k", "q", "both"] | None,
    typer.Option(
        "--side",
        help="Scale the key projections, the query projections or both.",
        show_default="k; q where keys have a bias or a cache scale",
    ),
]
BakedFactor = Annotated[
    float | None,
    typer.Option(
        "--attention-factor",
        metavar="FACTOR",
        help="Bake this factor instead of the one in the config.",
    ),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="ID",
        help="Refuse if this engine would compute it differently; may be repeated.",
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="FAMILY",
        help="Bake a model that yarncli does not know with this weight layout.",
    ),
]
CarrierOption = Annotated[
    Literal["key", "scale", "norm", "weights"] | None,
    typer.Option(
        "--carrier",
        help="GGUF: where to put the factor.",
        show_default="an exact place that changes no weights",
    ),
]
Adapter = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--adapter", metavar="DIRECTORY OUT", help="Also scale this LoRA adapter of SOURCE."
    ),
]
Recover = Annotated[
    bool, typer.Option("--recover", help="Undo an interrupted --in-place change of SOURCE.")
]
TrustJournal = Annotated[
    bool,
    typer.Option(
        "--trust-journal", help="With --recover: accept a journal of another user or machine."
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify", help="Also compare all other bytes, and bake a small random twin of the model."
    ),
]
VerifyLogits = Annotated[
    str | None,
    typer.Option(
        "--verify-logits", metavar="TEXT", help="Compare the logits of both checkpoints on TEXT."
    ),
]


def bake(
    source: options.AnySource,
    out: options.OptionalOutput = None,
    attention_factor: BakedFactor = None,
    form: FormOption = "neutral",
    side: SideOption = None,
    carrier: CarrierOption = None,
    layout: LayoutOption = None,
    assume_like: options.AssumeLike = None,
    adapter: Adapter = None,
    engine: EngineOption = None,
    verify: Verify = False,
    verify_logits: VerifyLogits = None,
    in_place: options.InPlace = False,
    overwrite: options.Overwrite = False,
    fsync: options.Fsync = False,
    recover: Recover = False,
    trust_journal: TrustJournal = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Move the attention factor from the config into the weights, or into a GGUF file.

    yarn scales attention by a factor that engines compute in different ways, or not at all.
    Baking helps the engines that leave it out; some others then apply it twice. The report says
    how many engines are right before and after. OUT is written completely or not at all.
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
