"""The measurements in a card: retrieval, the price on short texts, perplexity by context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.evaluation.losses import PerplexityResult
from yarncli.evaluation.regress import SAMPLED, Regression
from yarncli.evaluation.report import PasskeyReport
from yarncli.evaluation.sentences import price_sentence
from yarncli.evaluation.statistics import Interval
from yarncli.evaluation.tasks import PASSKEY
from yarncli.publishing.markdown import code, listed, plain, table

RETRIEVAL, TASKS = "### Passkey retrieval\n", "### Tasks by length\n"
PRICE, CONTEXTS = "### Price on short texts\n", "### Perplexity by context\n"


@dataclass(frozen=True)
class Price:
    """What the published setting costs on texts that fit into the original window."""

    settings: Mapping[str, Any]
    """Settings of the run of regress."""
    cost: Regression
    """Results of the run."""

    def told(self) -> str:
        """The sentence."""
        text = price_sentence(self.cost.ratio, self.settings["length"])
        return text[0].upper() + text[1:]

    def lines(self) -> Iterator[str]:
        """The part of the card."""
        cost = self.cost
        yield PRICE
        yield (
            f"{self.told()} Compared with the original model, over {cost.kl.tokens:,} tokens of "
            f"{_texts(self.settings['text'])}: the predictions differ by {cost.kl.value:.3g} nats "
            f"per token (KL{_range(cost.kl.interval)}), and the most likely token is the "
            f"same at {100 * cost.top1_agreement:.1f} % of the positions."
        )


@dataclass(frozen=True)
class Contexts:
    """The perplexity of the published setting by length of context."""

    settings: Mapping[str, Any]
    """Settings of the run of perplexity."""
    results: tuple[PerplexityResult, ...]
    """One result per length."""

    def lines(self) -> Iterator[str]:
        """The part of the card."""
        layout, texts = self.settings["layout"], _texts(self.settings["text"])
        first, how = {
            "nested": (
                "context",
                f"for each length of context, the same last tokens of {texts} are predicted",
            ),
            "sliding": (
                "window",
                f"a window slides over {texts} in steps of {self.settings['sliding']} tokens "
                "(arXiv:2309.00071 §4.3.1)",
            ),
        }.get(layout, ("positions up to", f"the loss by position in whole windows of {texts}"))
        yield CONTEXTS
        yield f"Perplexity (lower is better) with its 95 % interval: {how}."
        yield ""
        gains = any(result.gain is not None for result in self.results)
        head = (f"{first}, tokens", "perplexity", "95 % interval",
                *(("gained, nats per token",) if gains else ()), "scored tokens")  # fmt: skip
        yield from table(head, map(self._row, self.results))

    def _row(self, result: PerplexityResult) -> tuple[str, ...]:
        nested = any(other.gain is not None for other in self.results)
        gain = "–"
        if result.gain is not None:
            gain = f"{result.gain:+.3f}{_bracket(result.gain_interval, '+.3f')}"
        return (
            f"{result.length:,}", f"{result.perplexity:.4g}", _ends(result.interval, ".4g"),
            *((gain,) if nested else ()), f"{result.tokens:,}",
        )  # fmt: skip


def retrieval(report: PasskeyReport, setting: str | None) -> Iterator[str]:
    """The results of check-passkey per setting, and the effective length of the published one.

    Args:
        report: the report of the run.
        setting: name of the published setting; None if it was not measured.
    """
    tasks = {row.task for row in report.tasks()}
    yield RETRIEVAL if PASSKEY in tasks else TASKS
    if tasks == {PASSKEY}:
        yield (
            "Share of hidden keys that the model finds in filler text of exactly that many tokens "
            "(greedy decoding), with the 95 % Wilson interval."
        )
    else:
        yield (
            "Share of prompts, each of exactly that many tokens, in which the model finds "
            "everything that was asked for (greedy decoding), with the 95 % Wilson interval. The "
            "tasks are like those of RULER but have other texts, so compare the numbers with each "
            "other, not with RULER's."
        )
    for variant in report.cells:
        if len(report.cells) > 1:
            yield from ("", f"Setting: {plain(variant)}")
        several = tasks != {PASSKEY}
        head = (*(("task",) if several else ()), "tokens", "accuracy", "95 % interval", "prompts")
        rows = [
            (*((plain(row.task),) if several else ()), f"{row.length:,}", f"{row.accuracy:.2f}",
             _ends(row.interval, ".2f"), f"{row.trials}")
            for row in report.tasks(variant)
        ]  # fmt: skip
        yield from ("", *table(head, rows))
    if setting is not None:
        yield from _effective(report, setting, always=tasks != {PASSKEY})


def _effective(report: PasskeyReport, setting: str, *, always: bool) -> Iterator[str]:
    """The effective length with its rule. If it is not known, `always` asks for the reason."""
    found = report.effective_length(setting)
    rule = (
        "the longest length at which the lower end of the interval, of all tasks together, "
        "reaches 85 % of the accuracy at the shortest length within the original window"
    )
    if found.length is not None:
        note = f", {found.note}" if found.note else ""
        yield from ("", f"**Effective length: {found.length:,} tokens**{note} ({rule}).")
    elif always:
        yield from ("", f"Effective length: not known, {found.note} ({rule}).")


def _texts(recorded: Any) -> str:
    """The names of the texts that were read, without their directories."""
    if recorded == SAMPLED:
        return "texts that the original model wrote itself"
    return listed([code(Path(name).name) for name in recorded])


def _ends(interval: Interval | None, form: str) -> str:
    return "–" if interval is None else f"{interval[0]:{form}} – {interval[1]:{form}}"


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f", 95 % interval {_ends(interval, '.3g')}"


def _bracket(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" ({_ends(interval, form)})"
