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
        typer.Option("--engine", metavar="ID", help="Judge this engine only; may be repeated."),
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
    from yarncli.checkpoint.source import open_checkpoint
    from yarncli.cli import console
    from yarncli.cli.engines_view import explained, judged, show, to_json

    ids = [explain] if explain else engine or []
    checkpoint = open_checkpoint(source)
    found = judged(checkpoint, ids, assume_like=assume_like)
    if json:
        console.print_json(to_json(checkpoint, found))
    elif explain:
        explained(found)
    else:
        show(found, lines=bool(engine))
