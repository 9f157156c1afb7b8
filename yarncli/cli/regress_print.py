"""What regress prints: what it compares, a table, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yarncli.cli import console
from yarncli.cli.perplexity_print import interval_text
from yarncli.cli.report_print import show_figure, show_report
from yarncli.evaluation.regress import SAMPLED, RegressReport
from yarncli.evaluation.sentences import price_sentence


def announce(settings: Mapping[str, Any]) -> None:
    """Say what is compared before it starts."""
    count, length = settings["texts"], settings["length"]
    conversions = len(settings["variants"])
    passes = count * (1 + conversions)
    console.note(f"{count} texts of {length:,} tokens, {passes * length:,} tokens to read.")
    if settings["text"] == SAMPLED:
        console.note(
            "The texts were written by the base model. They do not show how it reads texts that "
            "people wrote. Give --text FILE to measure that."
        )


def show(report: RegressReport, *, plot: Path | None, json: bool) -> None:
    """Print the result, and draw it if asked.

    Raises:
        OutputError: the figure cannot be written; the result has been printed before.
    """
    from yarncli.figures.regress import plot_regress

    show_report(report, lambda: _print_results(report), json=json)
    show_figure(lambda path: plot_regress([report], path), plot)


def _print_results(report: RegressReport) -> None:
    columns = ["setting", "KL, nats", "95 % interval", "99 % below", "same top token",
               "perplexity before", "after"]  # fmt: skip
    rows: list[list[console.CellValue]] = []
    found = {name: report.regression(name) for name in report.divergences}
    for name, cost in found.items():
        rows.append(
            [
                name,
                f"{cost.kl.value:.4g}",
                interval_text(cost.kl.interval, ".4g"),
                f"{cost.kl_p99:.4g}",
                f"{100 * cost.top1_agreement:.1f} %",
                f"{cost.perplexity_before:.4g}",
                f"{cost.perplexity_after:.4g}",
            ]
        )
    console.print_table(columns, rows)
    length = report.settings["length"]
    for name, cost in found.items():
        console.print_text(f"{name}: {price_sentence(cost.ratio, length)}")
