"""What `fit` measured of each setting, which is the best, and whether that is more than chance."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from yarncli.evaluation.candidates import DEFAULT, Changes, changes_of_name
from yarncli.evaluation.result_file import SCHEMA_VERSION, read_results
from yarncli.evaluation.statistics import BLOCK, Mean, Sums, mean
from yarncli.planning.commands import option_words
from yarncli.rope.methods import DEFAULT_METHOD

Part = Literal["search", "held-out"]
"""Which prompts and texts: those on which the settings are searched, or those that decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one setting makes of the answer to a prompt, or of a stretch of text."""

    part: str
    """"search" or "held-out"."""
    what: str
    """"answer" or "text"."""
    number: int
    """Of the prompt, which stands for one place at every length, or of the stretch, in its part."""
    length: int
    """Of the prompt with its answer; of a text, the end of the positions that are scored."""
    tokens: int
    """That were scored."""
    nll: tuple[float, ...]
    """Sums of −log p, nats, over blocks of 64 tokens."""
    kl: tuple[float, ...] = ()
    """Sums of KL(the model as it is ‖ this setting), nats, over the same blocks; only within the
    original window."""

    @property
    def place(self) -> tuple[str, str, int, int]:
        """What tells it from all others of its setting."""
        return (self.part, self.what, self.number, self.length)

    @property
    def sums(self) -> Sums:
        """The losses with their numbers of tokens."""
        return Sums.in_blocks(self.nll, self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """One setting on one part, or the difference of two on it."""

    answers: Mean
    """−log p of an answer's tokens, nats per token, over all lengths alike; a place counts as one
    observation, with its prompts of every length."""
    answers_by_length: Mapping[int, Mean]
    """The same by the length of the prompt."""
    texts: Mapping[int, Mean]
    """−log p of text, nats per token, by the end of the positions."""
    kl: Mean | None = None
    """KL per token from the model as it is, within the original window; None without texts."""

    def to_json(self) -> dict[str, Any]:
        """Each as a number and its interval."""
        found: dict[str, Any] = {
            "answer_loss": _pair(self.answers),
            "answer_loss_by_length": {str(n): _pair(m) for n, m in self.answers_by_length.items()},
            "text_loss_by_length": {str(n): _pair(m) for n, m in self.texts.items()},
        }
        return found if self.kl is None else {**found, "kl": _pair(self.kl)}


@dataclass(frozen=True)
class FitReport:
    """A whole search: its settings, and what was measured of each candidate."""

    settings: Mapping[str, Any]
    """What was searched on what, as it is recorded in the result file."""
    measurements: Mapping[str, Sequence[Measurement]]
    """Of each setting, by its name, in the order of the search; the default first."""

    def numbers(self, name: str, part: Part) -> Numbers | None:
        """One setting on one part; None where it was not measured there, or not to the end."""
        found = list(self._complete(name, part).values())
        if not found:
            return None
        kl = [Sums.in_blocks(m.kl, m.tokens) for m in found if m.kl]
        numbers = summarise(found, [m.sums for m in found])
        return replace(numbers, kl=mean(Sums.joined(kl)) if kl else None)

    def difference(self, name: str, part: Part) -> Numbers | None:
        """A setting less the default on the same prompts and texts; below 0 is better."""
        mine, usual = self._complete(name, part), self._complete(DEFAULT, part)
        if not mine or not usual:
            return None
        changes = [mine[place].sums.minus(usual[place].sums) for place in mine]
        return summarise(list(mine.values()), changes)

    def _complete(self, name: str, part: Part) -> dict[Any, Measurement]:
        """By place, if all places of the default are there."""
        mine, usual = (
            {m.place: m for m in self.measurements.get(each, ()) if m.part == part}
            for each in (name, DEFAULT)
        )
        return mine if mine.keys() == usual.keys() else {}

    def score(self, name: str) -> float:
        """What the search goes by: the loss of answers; infinite where texts get worse."""
        found, change = self.numbers(name, "search"), self.difference(name, "search")
        if found is None or change is None or worse_texts(change):
            return math.inf
        return found.answers.value

    @property
    def best(self) -> str:
        """The name of the best setting of the search, on which the held-out part has its say."""
        return min(self.measurements, key=self.score, default=DEFAULT)

    @property
    def better(self) -> bool:
        """Whether the best is better than the default beyond chance, on the held-out part.

        It is where the 95 % interval of the paired difference of the answers lies below 0, and no
        text gets worse beyond chance. Only one setting is held against the default there, so that
        no choice among many can look like a gain.
        """
        change = None if self.best == DEFAULT else self.difference(self.best, "held-out")
        if change is None or change.answers.interval is None:
            return False
        return change.answers.interval[1] < 0 and not worse_texts(change)

    @property
    def convert(self) -> str:
        """The command that writes the best setting, or the default where that is not better."""
        asked = self.settings
        given: dict[str, Any] = {
            "method": asked["method"] if asked["method"] != DEFAULT_METHOD else None,
            "factor": asked["factor"],
            "original_length": asked["original_length"],
            "replace_scaling": asked["replace_scaling"] or None,
            **(changes_of_name(self.best) if self.better else {}),
        }
        words = [
            w for n, value in given.items() if value is not None for w in option_words(n, value)
        ]
        return shlex.join(["yarncli", "convert", asked["model"], "OUT", *words])

    def values(self, name: str) -> Changes:
        """The numbers of a setting: those of the default, with what it changes."""
        return {**self.settings["usual"], **changes_of_name(name)}

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "default": self._about(DEFAULT),
            "best": self._about(self.best),
            "better": self.better,
            "convert": self.convert,
            "candidates": [self._about(name) for name in self.measurements if name != DEFAULT],
            "settings": dict(self.settings),
        }

    def _about(self, name: str) -> dict[str, Any]:
        parts: tuple[Part, ...] = ("search", "held-out")
        found: dict[str, Any] = {"name": name, "values": dict(self.values(name))}
        for part in parts:
            numbers, change = self.numbers(name, part), self.difference(name, part)
            key = part.replace("-", "_")
            found[key] = numbers and numbers.to_json()
            found[f"{key}_difference"] = change and change.to_json()
        return found


def worse_texts(change: Numbers) -> list[int]:
    """The ends of the positions at which texts get worse beyond chance, of a difference."""
    return [n for n, m in change.texts.items() if m.interval and m.interval[0] > 0]


def summarise(measured: Sequence[Measurement], sums: Sequence[Sums]) -> Numbers:
    """The means over all places, of the losses or of differences of them.

    Args:
        measured: of one setting on one part.
        sums: what is averaged, of each.
    """
    answers: dict[int, list[Sums]] = {}
    by_length: dict[int, list[Sums]] = {}
    texts: dict[int, list[Sums]] = {}
    for m, each in zip(measured, sums, strict=True):
        if m.what == "text":
            texts.setdefault(m.length, []).append(each)
            continue
        whole = Sums((math.fsum(each.values),), (m.tokens,))
        answers.setdefault(m.number, []).append(whole)
        by_length.setdefault(m.length, []).append(whole)
    places = [Sums.joined(found) for found in answers.values()]
    return Numbers(
        answers=mean(Sums(tuple(math.fsum(p.values) for p in places),
                          tuple(sum(p.tokens) for p in places))),
        answers_by_length={n: mean(Sums.joined(found)) for n, found in sorted(by_length.items())},
        texts={n: mean(Sums.joined(found)) for n, found in sorted(texts.items())},
    )  # fmt: skip


def read_fit_report(path: Path) -> FitReport:
    """The report of a JSONL file, as far as it got.

    Raises:
        CheckpointError: it cannot be read, or is not a result file.
        UsageError: it is one of another command.
    """
    written = read_results(path)
    written.require("fit")
    return FitReport(written.settings, written.entries(read_measurement))


def read_measurement(entry: Mapping[str, Any]) -> Measurement:
    """The result of a line of a result file.

    Raises:
        TypeError, ValueError: it is none.
    """
    found = Measurement(**{**entry, "nll": tuple(entry["nll"]), "kl": tuple(entry["kl"])})
    if not all(type(n) is int and n >= 0 for n in (found.number, found.length, found.tokens)):
        raise TypeError("a field has the wrong type")
    if found.part not in ("search", "held-out") or found.what not in ("answer", "text"):
        raise ValueError("a measurement of no part")
    if not all(type(v) is float and math.isfinite(v) for v in (*found.nll, *found.kl)):
        raise TypeError("a sum is no number")
    blocks = -(-found.tokens // BLOCK)
    if not blocks or len(found.nll) != blocks or len(found.kl) not in (0, blocks):
        raise ValueError("a measurement has not the sums that its tokens have")
    return found


def _pair(found: Mean) -> dict[str, Any]:
    return {"mean": found.value, "interval": found.interval and list(found.interval),
            "tokens": found.tokens}  # fmt: skip
