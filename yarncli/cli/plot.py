"""`yarncli plot`: draw saved runs, several in one figure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from yarncli.cli import options
from yarncli.errors import UsageError

EXAMPLES = [
    ("yarncli plot run.jsonl --out run.png", "Draw one saved run again."),
    ("yarncli plot yarn.jsonl ntk.jsonl --out both.svg", "Compare runs of several models."),
    (
        "yarncli plot run.jsonl --out fig.pdf --title Retrieval --size 6.5x4",
        "Draw a figure for a paper.",
    ),
    ("yarncli plot run.jsonl --out run.csv", "Write a table for a spreadsheet or pandas."),
]


def plot(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...", show_default=False, help="Result files (JSONL) that --out wrote."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The PNG, SVG or PDF file to write, or a CSV file for a table.",
        ),
    ] = Path("results.png"),
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="Title of the figure.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Width and height in inches, such as 6.5x4."),
    ] = None,
    dpi: Annotated[
        int, typer.Option("--dpi", min=30, max=1200, help="Dots per inch of a PNG file.")
    ] = 160,
    json: options.Json = False,
) -> None:
    """Draw saved runs of check-passkey, perplexity, regress or fit; several become one figure.

    If the name ends in .csv, all results are written as a table, one line each.
    """
    from yarncli.cli import console

    if out.suffix.lower() == ".csv":
        from yarncli.evaluation.table import write_table

        caveats = write_table(results, out)
    else:
        from yarncli.figures import Look
        from yarncli.figures.results import plot_results

        look = Look(title=title, size=_size(size), dpi=dpi)
        caveats = plot_results(results, out, look)
    for caveat in caveats:
        console.warn(caveat)
    if json:
        console.print_document({"output": str(out), "messages": caveats})
    else:
        console.print_text(str(out))


def _size(text: str | None) -> tuple[float, float] | None:
    """The value of `--size`, inches: `6.5x4`.

    Raises:
        UsageError: it is not a width and a height from 1 to 100.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9.]{1,6})\s*[x×,]\s*([0-9.]{1,6})", text.strip().lower())
    try:
        width, height = (float(side) for side in match.groups()) if match else (0.0, 0.0)
    except ValueError:
        width = height = 0.0
    if not (1 <= width <= 100 and 1 <= height <= 100):
        raise UsageError(
            f"--size {text!r} is not a width and a height in inches. Write for example 6.5x4."
        )
    return width, height
