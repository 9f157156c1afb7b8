"""`yarncli convert`: write a context extension into a copy of a checkpoint, or in place."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from yarncli.cli import options
from yarncli.errors import UsageError
from yarncli.rope.methods import DEFAULT_METHOD

EXAMPLES = [
    (
        "yarncli convert ./model ./model-128k --length 128k",
        "Extend a copy to 131,072 tokens with YaRN.",
    ),
    (
        "yarncli convert ./model ./out --factor 4 --dry-run",
        "Show the plan and the diff, and write nothing.",
    ),
    ("yarncli convert ./model ./out --factor 4 --weights hardlink", "Do not copy the weights."),
    ("yarncli convert Qwen/Qwen3-8B ./out --length 128k --config-only", "Fetch no weights."),
    ("yarncli convert ./model --in-place --method ntk --factor 2", "Change the directory itself."),
    (
        "yarncli convert ./model ./out --method linear --factor 4 --for llama.cpp",
        "Write what one engine reads.",
    ),
    ("yarncli convert ./model ./out --factor 4 --bake", "Convert and bake in one pass."),
    (
        "yarncli convert ./mistral ./out --length 64k --sliding-window off",
        "Also switch off a sliding window.",
    ),
    ("yarncli convert model.gguf long.gguf --length 128k", "Extend a GGUF file; its weights stay."),
    (
        "yarncli convert model.gguf mended.gguf --from Qwen/Qwen3-8B",
        "Copy the RoPE setting of a checkpoint.",
    ),
    ("yarncli convert ./model --undo", "Undo the last conversion."),
]

HEADINGS = {
    "method": "Target",
    "beta_fast": "Method settings",
    "original_length": "Existing scaling",
    "for_": "Engines",
    "bake": "Output",
    "undo": "Run",
}

WeightsOption = Annotated[
    Literal["copy", "hardlink", "symlink"],
    typer.Option("--weights", help="Copy the weight files into OUT or link them."),
]
ConfigOnly = Annotated[
    bool, typer.Option("--config-only", help="Leave the weights and their index out of OUT.")
]
ForEngines = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="ENGINE[,ENGINE]",
        help="Write the spelling and fields that these engines read correctly, or refuse.",
    ),
]
Bake = Annotated[
    bool,
    typer.Option("--bake", help="Also move the attention factor into the weights."),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="CHECKPOINT",
        show_default=False,
        help="GGUF: copy the RoPE setting of this checkpoint or config.json exactly.",
    ),
]
Undo = Annotated[
    bool, typer.Option("--undo", help="Restore the fields that the last conversion changed.")
]


def convert(
    source: options.AnySource,
    out: options.OptionalOutput = None,
    method: options.MethodOption = DEFAULT_METHOD,
    length: options.Length = None,
    factor: options.Factor = None,
    sliding_window: options.SlidingWindowOption = None,
    from_: From = None,
    beta_fast: options.BetaFast = None,
    beta_slow: options.BetaSlow = None,
    attention_factor: options.AttentionFactor = None,
    truncate: options.Truncate = None,
    rope_theta: options.RopeTheta = None,
    low_freq_factor: options.LowFreqFactor = None,
    high_freq_factor: options.HighFreqFactor = None,
    short_factor: options.ShortFactor = None,
    long_factor: options.LongFactor = None,
    original_length: options.OriginalLength = None,
    rescale: options.Rescale = False,
    replace_scaling: options.ReplaceScaling = False,
    assume_like: options.AssumeLike = None,
    for_: ForEngines = None,
    spelling: options.SpellingOption = "both",
    bake: Bake = False,
    weights: WeightsOption = "copy",
    config_only: ConfigOnly = False,
    in_place: options.InPlace = False,
    overwrite: options.Overwrite = False,
    fsync: options.Fsync = False,
    undo: Undo = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Write a context extension into a checkpoint or a GGUF file: yarn, linear, ntk and more.

    Give the target as --length or --factor; every other setting follows from it. OUT is written
    completely or not at all. What was written is read back and compared with the plan.
    """
    from yarncli.cli import console, convert_print
    from yarncli.conversion.convert import convert as write
    from yarncli.conversion.options import ConvertOptions

    chosen = ConvertOptions(
        method=method, length=length, factor=factor, original_length=original_length,
        beta_fast=beta_fast, beta_slow=beta_slow, attention_factor=attention_factor,
        truncate=truncate, rope_theta=rope_theta, low_freq_factor=low_freq_factor,
        high_freq_factor=high_freq_factor, short_factor=options.read_factors(short_factor),
        long_factor=options.read_factors(long_factor), rescale=rescale,
        replace_scaling=replace_scaling, sliding_window=options.read_window(sliding_window),
        assume_like=assume_like, spelling=spelling,
        engines=tuple(name for name in (for_ or "").split(",") if name), bake=bake,
        weights=weights, config_only=config_only, in_place=in_place, dry_run=dry_run,
        overwrite=overwrite, fsync=fsync, from_=from_,
    )  # fmt: skip
    if undo:
        from yarncli.conversion.undo import undo as take_back

        if chosen != ConvertOptions(in_place=in_place) or (out and in_place):
            raise UsageError(
                "--undo takes back the last conversion of SOURCE. Give no other option with it, "
                "except --json. Give OUT only for a GGUF file that cannot be changed in place."
            )
        undone = take_back(source, out, progress=console.ProgressBars())
        convert_print.print_undone(undone, json=json)
        return
    convert_print.print_conversion(
        write(source, out, chosen, progress=console.ProgressBars()), json=json
    )
