"""`yarncli inspect`: what a checkpoint's RoPE is, and what a conversion would make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yarncli.cli import options
from yarncli.errors import UsageError

EXAMPLES = [
    ("yarncli inspect ./model", "Show what a local checkpoint is."),
    ("yarncli inspect Qwen/Qwen3-8B --table", "Read a Hub model's config and headers only."),
    ("yarncli inspect ./model --method yarn --length 128k", "Preview a conversion."),
    ("yarncli inspect model.gguf --table", "What llama.cpp computes from a GGUF file."),
    ("yarncli inspect ./model --factor 4 --plot rope.svg", "Draw it before and after."),
]


def inspect(
    source: options.AnySource,
    method: options.PreviewMethod = None,
    length: options.Length = None,
    factor: options.Factor = None,
    original_length: options.OriginalLength = None,
    table: Annotated[
        bool, typer.Option("--table", help="List every dimension of every scope.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw frequencies as a PNG, SVG or PDF."),
    ] = None,
    assume_like: options.AssumeLike = None,
    json: options.Json = False,
) -> None:
    """Show architecture, size, RoPE settings and cache cost of a checkpoint or a GGUF file.

    Reads the config, the tokenizer config and the shard headers, never weights. Of a GGUF file it
    shows what llama.cpp computes from its keys, and which of them change nothing. With --method,
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
            raise UsageError("--plot draws checkpoints, and SOURCE is a GGUF file. Leave it out.")

        plot_rope(found, plot)
    if json:
        console.print_json(found.to_json(table=table))
    elif isinstance(found, Description):
        inspect_print.print_description(found, table=table)
    else:
        from yarncli.cli.inspect_gguf_print import print_gguf_description

        print_gguf_description(found, table=table)
