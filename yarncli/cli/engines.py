"""`yarncli engines`: what every inference engine will make of a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from yarncli.cli import options

EXAMPLES = [
    ("yarncli engines ./model", "Judge all engines."),
    ("yarncli engines ./model --engine vllm --engine sglang", "Judge two, with launch lines."),
    ("yarncli engines Qwen/Qwen3-8B --explain llama.cpp", "Everything known about one."),
    ("yarncli engines ./model --json", "The numbers each engine will use, as JSON."),
]


def engines(
    source: options.Source,
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
    assume_like: options.AssumeLike = None,
    json: options.Json = False,
) -> None:
    """Show what each engine will compute: frequencies, temperature, length, launch line.

    What is meant comes from yarncli.json if there is one, else from what transformers 5 reads.
    """
    from yarncli.cli import console, engines_print
    from yarncli.engines.judgement import judge_checkpoint

    ids = [explain] if explain else engine or []
    found = judge_checkpoint(source, engines=ids, assume_like=assume_like)
    if json:
        console.print_json(found.to_json())
    elif explain:
        engines_print.print_explanation(found)
    else:
        engines_print.print_judgement(found, lines=bool(engine))
