"""How the commands that measure show a report: caveats, the result, and its figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from yarncli.cli import console


class Report(Protocol):
    """A report of check-passkey, perplexity or regress."""

    @property
    def caveats(self) -> Sequence[str]:
        """What a reader of the results must know; one sentence each."""

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`."""


def show_report(report: Report, print_results: Callable[[], None], *, json: bool) -> None:
    """Print the caveats, and the result as tables or as JSON.

    Args:
        report: what was measured.
        print_results: prints its tables.
        json: whether to print a JSON document instead.
    """
    for caveat in report.caveats:
        console.warn(caveat)
    if json:
        console.print_json(report.to_json())
    else:
        print_results()


def show_figure(draw: Callable[[Path], object], plot: Path | None) -> None:
    """Draw the figure if it is asked for, and say where it is.

    Raises:
        OutputError: it cannot be written; the result has been printed before.
    """
    if plot is not None:
        draw(plot)
        console.note(f"The figure is in {plot}.")
