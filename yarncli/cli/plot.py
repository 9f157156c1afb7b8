"""`yarncli plot`: draw saved runs, several in one figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yarncli.cli import options

EXAMPLES = [
    ("yarncli plot run.jsonl --out run.png", "Draw one saved run again."),
    ("yarncli plot yarn.jsonl ntk.jsonl --out both.svg", "Compare runs of several models."),
    ("yarncli plot run.jsonl --out fig.pdf --title Retrieval --size 6.5x4", "For a paper."),
    ("yarncli plot run.jsonl --out run.csv", "A table for a spreadsheet or pandas."),
]


def plot(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT...", show_default=False, help="Files of --out."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="The PNG, SVG or PDF to write, or CSV: a table instead."
        ),
    ] = Path("results.png"),
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="Instead of the figure's own.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Width and height in inches, such as 6.5x4."),
    ] = None,
    dpi: Annotated[
        int, typer.Option("--dpi", min=30, max=1200, help="Dots per inch of a PNG.")
    ] = 160,
    json: options.Json = False,
) -> None:
    """Draw saved runs of check-passkey, perplexity, regress or fit; several become one figure.

    With a name that ends in .csv it writes all results as a table, one line for each.
    """
    from yarncli.cli import console

    if out.suffix.lower() == ".csv":
        from yarncli.evaluation.table import write_table

        caveats = write_table(results, out)
    else:
        from yarncli.figures import Look
        from yarncli.figures.results import plot_results

        look = Look(title=title, size=options.read_size(size), dpi=dpi)
        caveats = plot_results(results, out, look)
    for caveat in caveats:
        console.warn(caveat)
    if json:
        console.print_document({"output": str(out), "messages": caveats})
    else:
        console.print_text(str(out))
