"""The losses of a perplexity run, and the results: per length, with intervals and gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.errors import CheckFailed
from yarncli.evaluation.readings import Layout
from yarncli.evaluation.result_file import SCHEMA_VERSION, read_results
from yarncli.evaluation.statistics import BLOCK, Interval, Mean, Sums, mean


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLoss:
    """The loss of a model on the scored tokens of one window."""

    length: int
    """Length of the context, tokens; by position: the end of the range of positions."""
    window: int
    """Number of the window in its layout."""
    tokens: int
    """Number of scored tokens."""
    nll: tuple[float, ...]
    """Sums of −log p, nats, over blocks of 64 tokens."""

    @property
    def place(self) -> tuple[int, int]:
        """What identifies it among the losses of its variant: length and window."""
        return (self.length, self.window)

    @property
    def sums(self) -> Sums:
        """The blocks with their numbers of tokens."""
        return Sums.in_blocks(self.nll, self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityResult:
    """The perplexity with one context."""

    length: int
    """Length of the context, tokens; by position: the end of the range of positions."""
    perplexity: float
    """exp of the mean −log p of the scored tokens, every token counted once."""
    interval: Interval | None
    """Its 95 % interval; None for too few tokens."""
    tokens: int
    """Number of scored tokens."""
    gain: float | None = None
    """Nested contexts: nats per token gained over the shortest context, on the same tokens."""
    gain_interval: Interval | None = None
    """Its 95 % interval, paired."""
    window_mean_perplexity: float | None = None
    """Sliding windows: exp of the mean over windows, as the paper's script averages."""

    def to_json(self) -> dict[str, Any]:
        """The fields that have a value."""
        found = {name: getattr(self, name) for name in self.__slots__}
        for name in ("interval", "gain_interval"):
            found[name] = found[name] and list(found[name])
        always = ("length", "perplexity", "interval", "tokens")
        return {name: v for name, v in found.items() if name in always or v is not None}


@dataclass(frozen=True)
class PerplexityReport:
    """A whole run: its settings and its losses."""

    settings: Mapping[str, Any]
    """The settings of the run, as recorded in the result file."""
    losses: Mapping[str, Sequence[WindowLoss]]
    """Name of a variant → its losses; the setting in question comes first."""
    max_perplexity: float | None = None
    """The largest perplexity allowed at any length; None for no limit."""
    caveats: Sequence[str] = ()
    """Caveats about the results, each as a sentence."""

    def results(self, variant: str | None = None) -> list[PerplexityResult]:
        """The results of one variant, of the setting in question by default, shortest first."""
        found = self.losses[next(iter(self.losses)) if variant is None else variant]
        return summarise(found, self.settings["layout"])

    def require_perplexity(self) -> None:
        """The gate of `--max-perplexity`.

        Raises:
            CheckFailed: a perplexity of the setting in question is above the limit.
        """
        if self.max_perplexity is None:
            return
        # Not `>`, because a NaN must count as above every limit.
        above = [r for r in self.results() if not r.perplexity <= self.max_perplexity]
        if above:
            named = ", ".join(f"{r.perplexity:.4g} at {r.length:,}" for r in above)
            raise CheckFailed(f"Perplexity is above {self.max_perplexity:g}: {named}.")

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`; `results` are those of the setting in question."""
        first, *others = self.losses
        return {
            "schema_version": SCHEMA_VERSION,
            "results": [result.to_json() for result in self.results(first)],
            "settings": dict(self.settings),
            "variants": {
                name: {"results": [result.to_json() for result in self.results(name)]}
                for name in others
            },
        }


def summarise(losses: Sequence[WindowLoss], layout: Layout) -> list[PerplexityResult]:
    """Perplexity per length, shortest first; nested contexts are compared with the shortest."""
    by_length: dict[int, list[WindowLoss]] = {}
    for loss in sorted(losses, key=lambda loss: loss.place):
        by_length.setdefault(loss.length, []).append(loss)
    results = []
    shortest = next(iter(by_length.values()), [])
    for length, here in by_length.items():
        found = mean(Sums.joined(loss.sums for loss in here)).exp
        gained = _gain(shortest, here) if layout == "nested" and here is not shortest else None
        results.append(
            PerplexityResult(
                length=length,
                perplexity=found.value,
                interval=found.interval,
                tokens=found.tokens,
                gain=gained.value if gained else None,
                gain_interval=gained.interval if gained else None,
                window_mean_perplexity=_window_mean(here) if layout == "sliding" else None,
            )
        )
    return results


def _gain(short: Sequence[WindowLoss], long: Sequence[WindowLoss]) -> Mean | None:
    """Nats per token gained by a longer context, over the windows that were read with both."""
    earlier = {loss.window: loss.sums for loss in short}
    pairs = [(earlier[loss.window], loss.sums) for loss in long if loss.window in earlier]
    if not pairs:
        return None
    return mean(Sums.joined(one.minus(other) for one, other in pairs))


def _window_mean(losses: Sequence[WindowLoss]) -> float:
    return math.exp(sum(sum(loss.nll) / loss.tokens for loss in losses) / len(losses))


def read_perplexity_report(path: Path) -> PerplexityReport:
    """Read the report of a JSONL file, which may be incomplete.

    Raises:
        CheckpointError: it cannot be read, or is not a result file.
        UsageError: it is the file of another command.
    """
    written = read_results(path)
    written.require("perplexity")
    return PerplexityReport(written.settings, losses=written.entries(read_loss))


def read_loss(entry: Mapping[str, Any]) -> WindowLoss:
    """Read the result in a line of a result file.

    Raises:
        TypeError, ValueError: the line is not a result.
    """
    loss = WindowLoss(**{**entry, "nll": tuple(entry["nll"])})
    if not all(type(value) is int for value in (loss.length, loss.window, loss.tokens)):
        raise TypeError("a loss's field has the wrong type")
    if not all(type(value) is float and math.isfinite(value) for value in loss.nll):
        raise TypeError("a loss is no number")
    if loss.tokens < 1 or len(loss.nll) != -(-loss.tokens // BLOCK) or loss.length < 1:
        raise ValueError("a loss's number is none that a run has")
    return loss
