"""Results of a passkey evaluation: verdicts, accuracy per task and length, the JSON report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yarncli.errors import CheckFailed
from yarncli.evaluation.prompts import PasskeyPrompt
from yarncli.evaluation.result_file import SCHEMA_VERSION, read_results
from yarncli.evaluation.tasks import PASSKEY
from yarncli.evaluation.variants import CONTROL, NONE

_LONGEST = 2**31  # the most tokens of a prompt, or trials, that a figure can show

_ENOUGH = 30  # prompts that a length needs for a verdict
_SHARE = 0.85  # of the accuracy at the shortest length; RULER uses 85.6 of 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The verdict on one prompt."""

    length: int
    """Length of prompt and answer, tokens."""
    depth: float
    """Position of the key: 0 at the beginning of the text, 1 at its end."""
    trial: int
    """Number of the key at this length and depth, from 0."""
    key: str
    """What the model had to find."""
    text: str
    """What the model wrote after the prompt, as far as the verdict needs it."""
    correct: bool
    """Whether the model found the key."""
    task: str = PASSKEY
    """Name of the task, from `tasks.TASKS`."""

    @classmethod
    def of(cls, prompt: PasskeyPrompt, text: str, correct: bool) -> Cell:
        """The cell of `prompt`."""
        return cls(
            length=prompt.length, depth=prompt.depth, trial=prompt.trial, key=prompt.key,
            text=text, correct=correct, task=prompt.task,
        )  # fmt: skip

    @property
    def place(self) -> tuple[str, int, float, int]:
        """What identifies a cell within its variant: task, length, depth and trial."""
        return (self.task, self.length, self.depth, self.trial)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthResult:
    """Accuracy at one length with its 95 % interval."""

    length: int
    """Of prompts with their answers, in tokens."""
    accuracy: float
    """Share of keys that were found, 0 to 1."""
    interval: tuple[float, float]
    """Lower and upper end of the 95 % interval (Wilson) of `accuracy`."""
    trials: int
    """Prompts asked at this length, at all depths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """Accuracy of one task at one length with its 95 % interval."""

    task: str
    """Of `tasks.TASKS`."""
    length: int
    """Of prompts with their answers, in tokens."""
    accuracy: float
    """Share of prompts for which the model found everything, 0 to 1."""
    interval: tuple[float, float]
    """Lower and upper end of the 95 % interval (Wilson) of `accuracy`."""
    trials: int
    """Prompts asked."""


@dataclass(frozen=True, slots=True)
class EffectiveLength:
    """The longest length at which a model finds nearly as much as in short texts."""

    length: int | None
    """The length, tokens; None if it is not known."""
    note: str | None = None
    """Why it is not known, or a caveat about it; None without either."""


@dataclass(frozen=True)
class PasskeyReport:
    """A whole evaluation: its settings and its verdicts."""

    settings: Mapping[str, Any]
    """The settings of the run, as recorded in the result file."""
    cells: Mapping[str, Sequence[Cell]]
    """Name of a variant → its verdicts; the setting in question comes first."""
    caveats: Sequence[str] = ()
    """Caveats about the answers, each as a sentence."""
    min_accuracy: float | None = None
    """The share of keys that must be found at every length; None if nothing is required."""

    def lengths(self, variant: str | None = None) -> list[LengthResult]:
        """Passkey results of one variant, of the setting in question by default, by length."""
        cells = self.cells[self.first if variant is None else variant]
        return summarise(cell for cell in cells if cell.task == PASSKEY)

    def tasks(self, variant: str | None = None) -> list[TaskResult]:
        """Results of one variant, of the setting in question by default, by task and length."""
        cells = self.cells[self.first if variant is None else variant]
        asked = self.settings.get("tasks")
        return summarise_tasks(cells, asked if isinstance(asked, list) else [PASSKEY])

    def effective_length(self, variant: str | None = None) -> EffectiveLength:
        """The effective length of one variant, by default of the setting in question."""
        name = self.first if variant is None else variant
        recorded = self.settings.get("variants")
        about = recorded.get(name) if isinstance(recorded, dict) else None
        original = about.get("original") if isinstance(about, dict) else None
        return effective_length(self.cells[name], original if isinstance(original, int) else 0)

    @property
    def first(self) -> str:
        """The name of the setting in question."""
        return next(iter(self.cells))

    @property
    def answered(self) -> int:
        """Number of answered prompts, of all settings together."""
        return sum(map(len, self.cells.values()))

    @property
    def planned(self) -> int:
        """Number of prompts that the settings ask for; 0 if they do not state it."""
        named = [self.settings.get(name) for name in ("lengths", "variants", "depths", "trials")]
        lengths, variants, *each = named
        if not isinstance(lengths, list) or not isinstance(variants, dict):
            return 0
        counts = [n if type(n) is int else 0 for n in each]
        tasks = self.settings.get("tasks", [PASSKEY])
        return len(lengths) * len(variants) * len(tasks) * math.prod(counts)

    @property
    def control_says_the_same(self) -> bool:
        """Whether there is a control that gave the same answer to every prompt."""
        if CONTROL not in self.cells or self.first == CONTROL:
            return False
        said = [
            {cell.place: cell.text for cell in self.cells[name]} for name in (self.first, CONTROL)
        ]
        return said[0] == said[1]

    @property
    def failures(self) -> dict[str, list[TaskResult]]:
        """The tasks and lengths below `min_accuracy`, for every setting that should work.

        A setting without scaling that is measured beside another one is only a comparison, so it
        may be below.
        """
        if self.min_accuracy is None:
            return {}
        judged = [name for name in self.cells if name not in (NONE, CONTROL)] or list(self.cells)
        # Not `<`, because a minimum of NaN must never count as reached.
        below = {
            name: [r for r in self.tasks(name) if not r.accuracy >= self.min_accuracy]
            for name in judged
        }
        return {name: results for name, results in below.items() if results}

    def require_accuracy(self) -> None:
        """The gate of `--min-accuracy`.

        Raises:
            CheckFailed: there are `failures`. The message names all.
        """
        low = []
        several = any(cell.task != PASSKEY for cells in self.cells.values() for cell in cells)
        for name, results in self.failures.items():
            named = ", ".join(
                f"{f'{r.task} ' if several else ''}{r.accuracy:.2f} at {r.length:,}"
                for r in results
            )
            low.append(f"{name} {named}" if len(self.cells) > 1 else named)
        if low:
            raise CheckFailed(f"Accuracy is below {self.min_accuracy:g}: {'; '.join(low)}.")

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`, with the results of every setting by its name.

        Those of the setting in question are also at the top level.
        """
        document = {"schema_version": SCHEMA_VERSION, **self._variant(self.first)}
        document["settings"] = dict(self.settings)
        document["variants"] = {name: self._variant(name) for name in self.cells}
        return document

    def _variant(self, name: str) -> dict[str, Any]:
        return {
            "lengths": [
                {**asdict(result), "interval": list(result.interval)}
                for result in self.lengths(name)
            ],
            "tasks": [
                {**asdict(result), "interval": list(result.interval)} for result in self.tasks(name)
            ],
            "effective_length": (effective := self.effective_length(name)).length,
            "effective_length_note": effective.note,
            "cells": [asdict(cell) for cell in self.cells[name]],
        }


def wilson_interval(correct: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share. It is also correct for shares near 0 and 1.

    Reference: E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", JASA 22 (1927), 209–212.
    """
    z = 1.959963984540054
    share = correct / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = (centre - half) / scale, (centre + half) / scale
    return (0.0 if correct == 0 else low, 1.0 if correct == trials else high)


def summarise(cells: Iterable[Cell]) -> list[LengthResult]:
    """Accuracy per length, shortest first."""
    verdicts: dict[int, list[bool]] = {}
    for cell in cells:
        verdicts.setdefault(cell.length, []).append(cell.correct)
    return [
        LengthResult(
            length=length, accuracy=sum(v) / len(v), interval=wilson_interval(sum(v), len(v)),
            trials=len(v),
        )
        for length, v in sorted(verdicts.items())
    ]  # fmt: skip


def summarise_tasks(cells: Iterable[Cell], tasks: Sequence[str]) -> list[TaskResult]:
    """Accuracy per task, in the order of `tasks`, and length, shortest first."""
    found: dict[str, list[Cell]] = {task: [] for task in tasks}
    for cell in cells:
        found.setdefault(cell.task, []).append(cell)
    return [
        TaskResult(
            task=task, length=r.length, accuracy=r.accuracy, interval=r.interval, trials=r.trials
        )
        for task, own in found.items()
        for r in summarise(own)
    ]


def effective_length(cells: Iterable[Cell], original: int) -> EffectiveLength:
    """The longest length that surely keeps 85 % of the accuracy of short texts.

    All tasks count together. A length counts if the lower end of its interval reaches 85 % of the
    accuracy at the shortest length within the original window.

    Args:
        cells: the cells of one setting.
        original: the window the model was trained with, tokens; 0 if not known.
    """
    results = summarise(cells)
    inside = [result for result in results if result.length <= original]
    if not inside:
        return EffectiveLength(None, "no length within the original window was measured")
    if any(result.trials < _ENOUGH for result in results):
        return EffectiveLength(None, f"too few trials: {_ENOUGH} prompts per length are needed")
    short = inside[0]
    if not short.accuracy:
        return EffectiveLength(None, f"nothing is found in {short.length:,} tokens either")
    kept = [r.length for r in results if r.interval[0] >= _SHARE * short.accuracy]
    if not kept:
        return EffectiveLength(
            None,
            f"too few trials: even {short.length:,} tokens do not surely reach "
            f"{_SHARE:.0%} of their own accuracy".replace("%", " %"),
        )
    missed = [f"{r.length:,}" for r in results if r.length < kept[-1] and r.length not in kept]
    return EffectiveLength(kept[-1], f"but not at {', '.join(missed)}" if missed else None)


def read_report(path: Path) -> PasskeyReport:
    """Read the report of a JSONL file, which may be incomplete.

    Raises:
        CheckpointError: it cannot be read, or is not a result file.
        UsageError: it is the file of another command.
    """
    written = read_results(path)
    written.require("passkey")
    return PasskeyReport(written.settings, cells=written.entries(read_cell))


def read_cell(entry: Mapping[str, Any]) -> Cell:
    """Read the cell in a line of a result file.

    Raises:
        TypeError, ValueError: the line is not a cell.
    """
    cell = Cell(**entry)
    kinds = (int, float, int, str, str, bool, str)
    values = (cell.length, cell.depth, cell.trial, cell.key, cell.text, cell.correct, cell.task)
    if not all(type(value) is kind for value, kind in zip(values, kinds, strict=True)):
        raise TypeError("a cell's field has the wrong type")
    if not (1 <= cell.length <= _LONGEST and 0 <= cell.depth <= 1 and 0 <= cell.trial <= _LONGEST):
        raise ValueError("a cell's number is none that a run has")
    return cell
