"""`yarncli plot`: draw saved runs, several in one figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yarncli.cli import options

EXAMPLES = [
    ("yarncli plot run.jsonl --out run.png", "Draw one saved run again."),
    ("yarncli plot yarn.jsonl ntk.jsonl --out both.svg", "Compare runs of several models."),
]


def plot(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT...", show_default=False, help="Files of --out."),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The PNG or SVG to write.")
    ] = Path("results.png"),
    json: options.Json = False,
) -> None:
    """Draw saved runs of check-passkey, perplexity or regress; several runs become one figure."""
    from yarncli.cli import console
    from yarncli.figures.results import plot_results

    caveats = plot_results(results, out)
    for caveat in caveats:
        console.warn(caveat)
    if json:
        console.print_document({"output": str(out), "messages": caveats})
    else:
        console.print_text(str(out))
