"""What fit prints: cost, search, held-out results, a verdict, and the next command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yarncli.cli import console
from yarncli.cli.perplexity_print import interval_text
from yarncli.evaluation.candidates import DEFAULT
from yarncli.evaluation.fit_report import FitReport, worse_texts
from yarncli.evaluation.regress import SAMPLED
from yarncli.evaluation.statistics import Mean


def announce(settings: Mapping[str, Any], tokens: int) -> None:
    """Say what is searched, and what it costs at most, before it starts."""
    lengths = " and ".join(f"{n:,}" for n in settings["lengths"])
    console.note(
        f"At most {settings['budget']} settings and the default, {tokens:,} tokens to read: "
        f"{settings['prompts']} prompts of {lengths} tokens for the search, as many held out."
    )
    if settings["text"] == SAMPLED:
        console.note(
            "The texts were written by the model within its original window. They do not show how "
            "it reads long texts. Give --text FILE to measure that."
        )


def interrupted(out: Path | None) -> None:
    """Say what is kept of an interrupted run, and how to go on."""
    if out is None:
        console.note("Interrupted, and nothing was kept. Give --out FILE to keep every result.")
    elif out.exists():
        console.note(f"Interrupted. {out} has what was measured; the same command with --resume "
                     "goes on from there.")  # fmt: skip
    else:
        console.note("Interrupted before the first result.")


def show(report: FitReport, *, plot: Path | None, json: bool) -> None:
    """Print the result, and draw it if asked.

    Raises:
        OutputError: the figure cannot be written; the result has been printed before.
    """
    if json:
        console.print_json(report.to_json())
    else:
        _print_search(report)
        console.print_text()
        _print_held_out(report)
        console.print_text(verdict(report))
        console.print_text(f"Write it with: {report.convert}")
    if plot is not None:
        from yarncli.figures.fit import plot_fit

        plot_fit([report], plot)
        console.note(f"The figure is in {plot}.")


def _print_search(report: FitReport) -> None:
    rows: list[list[console.CellValue]] = []
    ends: list[str] = []
    for name in report.measurements:
        numbers, change = report.numbers(name, "search"), report.difference(name, "search")
        if numbers is None or change is None:
            continue
        ends = [f"perplexity to {n:,}" for n in numbers.texts]
        rows.append(
            [
                name,
                f"{numbers.answers.value:.3f}",
                None if name == DEFAULT else _signed(change.answers),
                *(f"{mean.exp.value:.4g}" for mean in numbers.texts.values()),
                f"{numbers.kl.value:.3f}" if numbers.kl else None,
            ]
        )
    columns = ["search", "answers, nats", "less the default", *ends, "KL, nats"]
    console.print_table(columns, rows)


def _print_held_out(report: FitReport) -> None:
    """Print the numbers that decide, with intervals: one row each, one column per setting."""
    names = list(dict.fromkeys((DEFAULT, report.best)))
    each = [found for name in names if (found := report.numbers(name, "held-out"))]
    change = report.difference(report.best, "held-out") if len(names) > 1 else None
    less = [change] if change else []
    rows = [_row("answers, nats", [n.answers for n in each], [d.answers for d in less])]
    for length in each[0].answers_by_length:
        means, last = ([n.answers_by_length[length] for n in some] for some in (each, less))
        rows.append(_row(f"answers at {length:,}", means, last))
    for length in each[0].texts:
        means, last = ([n.texts[length] for n in some] for some in (each, less))
        rows.append(_row(f"perplexity to {length:,}", [mean.exp for mean in means], last))
    rows.append(_row("KL, nats", [n.kl for n in each if n.kl], []))
    columns = ["held out", *names, *(["difference, nats"] if change else [])]
    console.print_table(columns, [[*row, None][: len(columns)] for row in rows])


def _row(title: str, means: Sequence[Mean], changes: Sequence[Mean]) -> list[console.CellValue]:
    form = ".4g" if title.startswith("perplexity") else ".3f"
    shown = [f"{mean.value:{form}} ({interval_text(mean.interval, form)})" for mean in means]
    return [title, *shown, *map(_signed, changes)]


def verdict(report: FitReport) -> str:
    """What the held-out prompts and texts say, in a sentence."""
    best, change = report.best, report.difference(report.best, "held-out")
    if best == DEFAULT or change is None:
        return "No setting of the search is better than the default. The default is kept."
    answers = f"answers differ by {_signed(change.answers)} nats per token"
    if report.better:
        return (
            f"{best} is better than the default: {answers}, and no text gets worse beyond chance."
        )
    worse = " and ".join(f"{n:,}" for n in worse_texts(change))
    if worse:
        return (
            f"{best} is not better than the default: texts get worse at positions up to {worse} "
            f"({answers}). The default is kept."
        )
    return f"{best} is not better than the default beyond chance: {answers}. The default is kept."


def _signed(mean: Mean) -> str:
    return f"{mean.value:+.3f} ({interval_text(mean.interval, '+.3f')})"
