"""`yarncli plot`: draw saved passkey runs, several in one figure."""

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
    ] = Path("passkey.png"),
) -> None:
    """Draw saved check-passkey runs: a heatmap each, and their accuracy over length."""
    from yarncli.cli import console
    from yarncli.evaluation.report import read_report
    from yarncli.figures.passkey import plot_passkey

    reports = [read_report(path) for path in results]
    for path, report in zip(results, reports, strict=True):
        answered = sum(map(len, report.cells.values()))
        if answered < report.planned:
            console.note(
                f"{path} holds {answered:,} of {report.planned:,} prompts, and the figure shows "
                "those. Complete the run by its own command with --resume."
            )
    plot_passkey(reports, out)
    console.print_text(str(out))
