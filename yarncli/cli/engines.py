"""`yarncli engines`: what every inference engine will make of a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from yarncli.cli import options
from yarncli.errors import UsageError

EXAMPLES = [
    ("yarncli engines ./model", "Judge all engines."),
    ("yarncli engines ./model --engine vllm --engine sglang", "Judge two, with launch lines."),
    ("yarncli engines Qwen/Qwen3-8B --explain llama.cpp", "Everything known about one."),
    ("yarncli engines Qwen/Qwen3-8B --factor 4", "Lines that serve it extended, as it is."),
    ("yarncli engines ./model --length 128k --engine vllm", "The same for one engine."),
    ("yarncli engines ./model-128k --trainers", "What trainers do with its RoPE setting."),
    ("yarncli engines model.gguf", "What llama.cpp, Ollama and others make of a GGUF file."),
    ("yarncli engines ./model --json", "The numbers each engine will use, as JSON."),
]


def engines(
    source: options.AnySource,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="ID",
            help="Judge this engine only; may be repeated. Aphrodite runs vLLM's model code, "
            "KTransformers SGLang's.",
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="ID", help="Show everything about one engine."),
    ] = None,
    method: options.ServedMethod = None,
    length: options.Length = None,
    factor: options.Factor = None,
    original_length: options.OriginalLength = None,
    beta_fast: options.BetaFast = None,
    beta_slow: options.BetaSlow = None,
    attention_factor: options.AttentionFactor = None,
    truncate: options.Truncate = None,
    rope_theta: options.RopeTheta = None,
    low_freq_factor: options.LowFreqFactor = None,
    high_freq_factor: options.HighFreqFactor = None,
    short_factor: options.ShortFactor = None,
    long_factor: options.LongFactor = None,
    rescale: options.Rescale = False,
    replace_scaling: options.ReplaceScaling = False,
    assume_like: options.AssumeLike = None,
    trainers: Annotated[
        bool, typer.Option("--trainers", help="Show what trainers do with it instead.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what each engine will compute: frequencies, temperature, length, launch line.

    SOURCE may be a GGUF file: then of llama.cpp, Ollama, LM Studio, KoboldCpp and transformers.

    What is meant comes from yarncli.json if there is one, else from what transformers 5 reads.
    With --length or --factor it is that extension, and the launch lines bring it to the checkpoint
    as it is: nothing is written.
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
            raise UsageError("--trainers goes with no option but --json.")
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
