"""What perplexity prints: its cost, and a table of lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yarncli.cli import console
from yarncli.cli.report_print import show_figure, show_report
from yarncli.evaluation.losses import PerplexityReport, PerplexityResult
from yarncli.evaluation.readings import Pass
from yarncli.evaluation.statistics import Interval
from yarncli.evaluation.variants import Variant


def announce(readings: Sequence[Pass], settings: Sequence[Variant]) -> None:
    """Say what a run costs before it starts."""
    count = len(settings)
    passes = len(readings) * count
    tokens = sum(len(reading.ids) for reading in readings) * count
    text = f"{passes:,} pass{'es' * (passes > 1)}, {tokens:,} tokens"
    console.note(f"{text}, {count} settings." if count > 1 else f"{text}.")


def show(report: PerplexityReport, *, plot: Path | None, json: bool) -> None:
    """Print the result, and draw it if asked.

    Raises:
        OutputError: the figure cannot be written; the result has been printed before.
    """
    from yarncli.figures.perplexity import plot_perplexity

    show_report(report, lambda: _print_results(report), json=json)
    show_figure(lambda path: plot_perplexity([report], path), plot)


def _print_results(report: PerplexityReport) -> None:
    layout = report.settings["layout"]
    names = list(report.losses)
    first = "positions up to" if layout == "by position" else "context"
    columns = [first, *(["setting"] if len(names) > 1 else []), "perplexity", "95 % interval"]
    if layout == "nested":
        columns.append("gained, nats per token")
    elif layout == "sliding":
        columns.append("mean over windows")
    columns.append("tokens")
    found = {name: {r.length: r for r in report.results(name)} for name in names}
    rows: list[list[console.CellValue]] = []
    for length in sorted({length for results in found.values() for length in results}):
        for name in names:
            if length in found[name]:
                result = found[name][length]
                label: list[console.CellValue] = [name] if len(names) > 1 else []
                rows.append([length, *label, *_cells(result, layout), result.tokens])
    console.print_table(columns, rows)


def _cells(result: PerplexityResult, layout: str) -> list[console.CellValue]:
    cells: list[console.CellValue] = [
        f"{result.perplexity:.4g}",
        interval_text(result.interval, ".4g"),
    ]
    if layout == "nested":
        gained = None
        if result.gain is not None:
            gained = f"{result.gain:+.3f} ({interval_text(result.gain_interval, '+.3f')})"
        cells.append(gained)
    elif layout == "sliding":
        cells.append(f"{result.window_mean_perplexity:.4g}")
    return cells


def interval_text(interval: Interval | None, form: str) -> str:
    """An interval as text; – if there is none."""
    return "–" if interval is None else f"{interval[0]:{form}} – {interval[1]:{form}}"
