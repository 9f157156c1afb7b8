"""`yarncli plot`: draw saved runs, several in one figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
) -> None:
    """Draw saved runs of check-passkey, perplexity, regress or fit; several become one figure."""
    from yarncli.cli import console
    from yarncli.figures.results import plot_results

    for caveat in plot_results(results, out):
        console.warn(caveat)
    console.print_text(str(out))
