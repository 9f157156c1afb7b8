"""What `fit` measured for each setting, the best one, and whether it is better beyond chance."""

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
"""The part of prompts and texts: for the search, or held out for the decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The losses of one setting on the answer to a prompt, or on a piece of text."""

    part: str
    """"search" or "held-out"."""
    what: str
    """"answer" or "text"."""
    number: int
    """Number of the prompt (the same place at every length) or of the piece, within its part."""
    length: int
    """Length of the prompt with its answer; for a text, the end of the scored positions."""
    tokens: int
    """Number of scored tokens."""
    nll: tuple[float, ...]
    """Sums of −log p, nats, over blocks of 64 tokens."""
    kl: tuple[float, ...] = ()
    """Sums of KL(unchanged model ‖ this setting), nats, over the same blocks; only within the
    original window."""

    @property
    def place(self) -> tuple[str, str, int, int]:
        """What identifies it among the measurements of its setting."""
        return (self.part, self.what, self.number, self.length)

    @property
    def sums(self) -> Sums:
        """The losses with their numbers of tokens."""
        return Sums.in_blocks(self.nll, self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Means of one setting on one part, or of the difference between two settings."""

    answers: Mean
    """−log p of the answers' tokens, nats per token, with equal weight for all lengths. A place
    with its prompts of every length counts as one observation."""
    answers_by_length: Mapping[int, Mean]
    """The same for each length of the prompt."""
    texts: Mapping[int, Mean]
    """−log p of text, nats per token, by the end of the positions."""
    kl: Mean | None = None
    """KL per token from the unchanged model, within the original window; None without texts."""

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
    """The settings of the run, as recorded in the result file."""
    measurements: Mapping[str, Sequence[Measurement]]
    """Name of a setting → its measurements, in the order of the search; the default first."""

    def numbers(self, name: str, part: Part) -> Numbers | None:
        """The means of a setting on a part; None if it was not measured there completely."""
        found = list(self._complete(name, part).values())
        if not found:
            return None
        kl = [Sums.in_blocks(m.kl, m.tokens) for m in found if m.kl]
        numbers = summarise(found, [m.sums for m in found])
        return replace(numbers, kl=mean(Sums.joined(kl)) if kl else None)

    def difference(self, name: str, part: Part) -> Numbers | None:
        """A setting minus the default on the same prompts and texts; below 0 is better."""
        mine, usual = self._complete(name, part), self._complete(DEFAULT, part)
        if not mine or not usual:
            return None
        changes = [mine[place].sums.minus(usual[place].sums) for place in mine]
        return summarise(list(mine.values()), changes)

    def _complete(self, name: str, part: Part) -> dict[Any, Measurement]:
        """The measurements by place, if they cover all places of the default."""
        mine, usual = (
            {m.place: m for m in self.measurements.get(each, ()) if m.part == part}
            for each in (name, DEFAULT)
        )
        return mine if mine.keys() == usual.keys() else {}

    def score(self, name: str) -> float:
        """The score of the search: the loss of answers, or infinity if texts get worse."""
        found, change = self.numbers(name, "search"), self.difference(name, "search")
        if found is None or change is None or worse_texts(change):
            return math.inf
        return found.answers.value

    @property
    def best(self) -> str:
        """The name of the best setting of the search, which is then tested on the held-out part."""
        return min(self.measurements, key=self.score, default=DEFAULT)

    @property
    def better(self) -> bool:
        """Whether the best is better than the default beyond chance, on the held-out part.

        It is better if the 95 % interval of the paired difference of the answers is below 0 and no
        text gets worse beyond chance. Only one setting is compared with the default there, so that
        a choice among many cannot look like a gain.
        """
        change = None if self.best == DEFAULT else self.difference(self.best, "held-out")
        if change is None or change.answers.interval is None:
            return False
        return change.answers.interval[1] < 0 and not worse_texts(change)

    @property
    def convert(self) -> str:
        """The command that writes the best setting, or the default if the best is not better."""
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
        """The numbers of a setting: those of the default with its changes."""
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
    """The ends of the positions at which a difference shows that texts get worse beyond chance."""
    return [n for n, m in change.texts.items() if m.interval and m.interval[0] > 0]


def summarise(measured: Sequence[Measurement], sums: Sequence[Sums]) -> Numbers:
    """The means over all places, of losses or of their differences.

    Args:
        measured: the measurements of one setting on one part.
        sums: the sums to average, one for each measurement.
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
    """Read the report of a JSONL file, which may be incomplete.

    Raises:
        CheckpointError: it cannot be read, or is not a result file.
        UsageError: it is the file of another command.
    """
    written = read_results(path)
    written.require("fit")
    return FitReport(written.settings, written.entries(read_measurement))


def read_measurement(entry: Mapping[str, Any]) -> Measurement:
    """Read the result in a line of a result file.

    Raises:
        TypeError, ValueError: the line is not a result.
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
