"""`yarncli inspect`: the RoPE setting of a checkpoint, and what a conversion would change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yarncli.cli import options
from yarncli.errors import UsageError

EXAMPLES = [
    ("yarncli inspect ./model", "Show what a local checkpoint is."),
    ("yarncli inspect Qwen/Qwen3-8B --table", "Read only the config and headers of a Hub model."),
    ("yarncli inspect ./model --method yarn --length 128k", "Preview a conversion."),
    ("yarncli inspect model.gguf --table", "Show what llama.cpp computes from a GGUF file."),
    (
        "yarncli inspect ./model --factor 4 --plot rope.svg",
        "Draw the frequencies before and after.",
    ),
]


def inspect(
    source: options.AnySource,
    method: options.PreviewMethod = None,
    length: options.Length = None,
    factor: options.Factor = None,
    original_length: options.OriginalLength = None,
    table: Annotated[bool, typer.Option("--table", help="List every RoPE dimension.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw the frequencies as a PNG, SVG or PDF file."
        ),
    ] = None,
    assume_like: options.AssumeLike = None,
    json: options.Json = False,
) -> None:
    """Show architecture, size, RoPE settings and cache cost of a checkpoint or a GGUF file.

    Reads the config, the tokenizer config and the shard headers, never weights. For a GGUF file it
    shows what llama.cpp computes from the keys, and which keys have no effect. With --method,
    --length or --factor it previews a conversion and writes nothing.
    """
    from yarncli.cli import console, inspect_print
    from yarncli.inspection.description import Description
    from yarncli.inspection.description import inspect as inspect_source

    found = inspect_source(
        source,
        method=method,
        length=length,
        factor=factor,
        original_length=original_length,
        assume_like=assume_like,
    )
    if plot:
        from yarncli.figures.rope import plot_rope

        if not isinstance(found, Description):
            raise UsageError(
                "--plot cannot draw a GGUF file. Give a checkpoint, or leave --plot out."
            )

        plot_rope(found, plot)
    if json:
        console.print_json(found.to_json(table=table))
    elif isinstance(found, Description):
        inspect_print.print_description(found, table=table)
    else:
        from yarncli.cli.inspect_gguf_print import print_gguf_description

        print_gguf_description(found, table=table)
