"""`yarncli engines`: what each inference engine will compute from a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from yarncli.cli import options
from yarncli.errors import UsageError

EXAMPLES = [
    ("yarncli engines ./model", "Judge all engines."),
    (
        "yarncli engines ./model --engine vllm --engine sglang",
        "Judge two engines, with launch lines.",
    ),
    ("yarncli engines Qwen/Qwen3-8B --explain llama.cpp", "Show everything about one engine."),
    (
        "yarncli engines Qwen/Qwen3-8B --factor 4",
        "Show lines that serve it extended, unchanged on disk.",
    ),
    ("yarncli engines ./model --length 128k --engine vllm", "Show the line for one engine."),
    ("yarncli engines ./model-128k --trainers", "Show what trainers do with its RoPE setting."),
    ("yarncli engines model.gguf", "Judge the engines that read GGUF files."),
    ("yarncli engines ./model --json", "Print the numbers that each engine will use, as JSON."),
]
HEADINGS = {
    "engine": "Engines",
    "method": "Target",
    "beta_fast": "Method settings",
    "original_length": "Existing scaling",
    "json": "Run",
}


def engines(
    source: options.AnySource,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="ID",
            help="Judge only this engine; may be repeated. Aphrodite runs the model code of vllm, "
            "KTransformers that of sglang.",
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="ID", help="Show everything about one engine."),
    ] = None,
    trainers: Annotated[
        bool, typer.Option("--trainers", help="Show what trainers do with SOURCE instead.")
    ] = False,
    method: options.ServedMethod = None,
    length: options.Length = None,
    factor: options.Factor = None,
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
    json: options.Json = False,
) -> None:
    """Show what each engine will compute: frequencies, temperature, length, launch line.

    For a GGUF file it judges llama.cpp, Ollama, LM Studio, KoboldCpp and transformers.

    Each engine is compared with the intended setting: that of yarncli.json if there is one, else
    what transformers 5 reads. With --length or --factor the intended setting is that extension,
    and the launch lines apply it to the checkpoint without writing anything.
    """
    from yarncli.cli import console, engines_print
    from yarncli.engines.judgement import Judgement, judge_checkpoint

    target = options.read_target(
        method, length, factor, rescale=rescale, replace_scaling=replace_scaling,
        beta_fast=beta_fast, beta_slow=beta_slow, attention_factor=attention_factor,
        truncate=truncate, rope_theta=rope_theta, low_freq_factor=low_freq_factor,
        high_freq_factor=high_freq_factor, short_factor=options.read_factors(short_factor),
        long_factor=options.read_factors(long_factor),
    )  # fmt: skip
    if original_length and not target:
        raise UsageError("--original-length goes with --length or --factor.")
    if trainers:
        if target or engine or explain:
            raise UsageError("--trainers goes with no option except --json.")
        from yarncli.cli.recipe_print import print_trainers

        print_trainers(source, json=json)
        return
    ids = [explain] if explain else engine or []
    found = judge_checkpoint(
        source,
        engines=ids,
        target=target,
        original_length=original_length,
        assume_like=assume_like,
    )
    if json:
        console.print_json(found.to_json())
    elif not isinstance(found, Judgement):
        from yarncli.cli.gguf_print import print_gguf_judgement

        print_gguf_judgement(found)
    elif target:
        engines_print.print_serving(found)
    elif explain:
        engines_print.print_explanation(found)
    else:
        engines_print.print_judgement(found, lines=bool(engine))
