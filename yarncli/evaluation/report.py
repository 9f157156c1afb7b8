"""Results of a passkey evaluation: accuracy per task and length, the JSON report, the JSONL."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from yarncli.checkpoint.files import read_file
from yarncli.checkpoint.output import output_errors
from yarncli.errors import CheckFailed, CheckpointError, OutputError, UsageError
from yarncli.evaluation.prompts import PasskeyPrompt
from yarncli.evaluation.tasks import PASSKEY
from yarncli.evaluation.variants import CONTROL, NONE

SCHEMA_VERSION = 1

_MAX_SIZE = 64 << 20  # bytes of a result file
_LONGEST = 2**31  # tokens of a prompt, or trials, of which a figure is drawn

_ENOUGH = 30  # prompts of a length, for a verdict on it
_SHARE = 0.85  # of what is found at the shortest length; RULER compares with 85.6 of 100

# What a file says nothing of that was written when there were no other tasks.
_TASKS = [PASSKEY]

# What may differ between two parts of one run: it does not change a verdict.
_FREE_SETTINGS = frozenset({"device", "concurrency"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The verdict on one prompt."""

    length: int
    """Of prompt and answer, in tokens."""
    depth: float
    """Where the key stood: 0 at the beginning of the text, 1 at its end."""
    trial: int
    """Number of the key at this length and depth, from 0."""
    key: str
    """What had to be found."""
    text: str
    """What the model said after the prompt, as far as the verdict needs it."""
    correct: bool
    """Whether the model found the key."""
    task: str = PASSKEY
    """What was asked, of `tasks.TASKS`."""

    @classmethod
    def of(cls, prompt: PasskeyPrompt, text: str, correct: bool) -> Cell:
        """The cell of `prompt`."""
        return cls(
            length=prompt.length, depth=prompt.depth, trial=prompt.trial, key=prompt.key,
            text=text, correct=correct, task=prompt.task,
        )  # fmt: skip

    @property
    def place(self) -> tuple[str, int, float, int]:
        """What tells a cell from all others of its variant: task, length, depth and trial."""
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
    """Share of prompts of which all that was asked for was found, 0 to 1."""
    interval: tuple[float, float]
    """Lower and upper end of the 95 % interval (Wilson) of `accuracy`."""
    trials: int
    """Prompts asked."""


@dataclass(frozen=True, slots=True)
class EffectiveLength:
    """The length up to which a model still finds what it finds in short texts."""

    length: int | None
    """Tokens; None where it cannot be told."""
    note: str | None = None
    """Why it cannot be told, or what is against it; None where there is nothing to say."""


@dataclass(frozen=True)
class PasskeyReport:
    """A whole evaluation: its settings and its verdicts."""

    settings: Mapping[str, Any]
    """What was asked of whom, as it is recorded in the result file."""
    cells: Mapping[str, Sequence[Cell]]
    """The verdicts of each variant, by its name, the setting in question first."""
    caveats: Sequence[str] = ()
    """What should be known about the answers; a sentence each."""
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
        return summarise_tasks(cells, asked if isinstance(asked, list) else _TASKS)

    def effective_length(self, variant: str | None = None) -> EffectiveLength:
        """Up to which length one variant, by default the setting in question, can be trusted."""
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
    def planned(self) -> int:
        """How many prompts the settings ask for; 0 where they do not tell."""
        named = [self.settings.get(name) for name in ("lengths", "variants", "depths", "trials")]
        lengths, variants, *each = named
        if not isinstance(lengths, list) or not isinstance(variants, dict):
            return 0
        counts = [n if type(n) is int else 0 for n in each]
        tasks = self.settings.get("tasks", _TASKS)
        return len(lengths) * len(variants) * len(tasks) * math.prod(counts)

    @property
    def control_says_the_same(self) -> bool:
        """Whether there is a control, and it answered every prompt as the setting in question."""
        if CONTROL not in self.cells or self.first == CONTROL:
            return False
        said = [
            {cell.place: cell.text for cell in self.cells[name]} for name in (self.first, CONTROL)
        ]
        return said[0] == said[1]

    @property
    def failures(self) -> dict[str, list[TaskResult]]:
        """The tasks and lengths below `min_accuracy`, for every setting that is meant to work.

        Settings without scaling that stand beside another one are there to be compared with, and
        may be below.
        """
        if self.min_accuracy is None:
            return {}
        judged = [name for name in self.cells if name not in (NONE, CONTROL)] or list(self.cells)
        # Not `<`: a minimum that is no number is never reached.
        below = {
            name: [r for r in self.tasks(name) if not r.accuracy >= self.min_accuracy]
            for name in judged
        }
        return {name: results for name, results in below.items() if results}

    def require_accuracy(self) -> None:
        """The gate of `--min-accuracy`.

        Raises:
            CheckFailed: there are `failures`; all are named.
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
        """The document of `--json`, first of all the results of the setting in question."""
        document = {"schema_version": SCHEMA_VERSION, **self._variant(self.first)}
        document["settings"] = dict(self.settings)
        others = list(self.cells)[1:]
        document["variants"] = {name: self._variant(name) for name in others}
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
    """The 95 % Wilson score interval of a share; unlike the usual one it is sound near 0 and 1.

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
        cells: of one setting.
        original: the window the model was trained with, tokens; 0 if not known.
    """
    results = summarise(cells)
    inside = [result for result in results if result.length <= original]
    if not inside:
        return EffectiveLength(None, "no length within the original window was asked")
    if any(result.trials < _ENOUGH for result in results):
        return EffectiveLength(None, f"too few trials: it takes {_ENOUGH} prompts per length")
    short = inside[0]
    if not short.accuracy:
        return EffectiveLength(None, f"nothing is found in {short.length:,} tokens either")
    kept = [r.length for r in results if r.interval[0] >= _SHARE * short.accuracy]
    if not kept:
        return EffectiveLength(
            None, "no length surely keeps that accuracy; more trials would narrow the intervals"
        )
    missed = [f"{r.length:,}" for r in results if r.length < kept[-1] and r.length not in kept]
    return EffectiveLength(kept[-1], f"but not at {', '.join(missed)}" if missed else None)


class ResultFile:
    """The JSONL of a run: a line of settings, then one line per cell, written as they come.

    Use as a context manager. Cells of an interrupted run are in `done` when it is resumed. A new
    file that has no cell at the end is removed again.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Create the file, or open it again to go on.

        Raises:
            UsageError: it exists and `resume` is not set, or it is of a run with other settings.
            CheckpointError: it is not a result file.
            OutputError: it cannot be written.
        """
        self.path = path
        self.done: dict[str, list[Cell]] = {}
        refuse_existing(path, resume=resume)
        self._is_unused = not path.exists()  # made here, and without a cell so far
        begins = self._is_unused or path.stat().st_size == 0
        if not begins:
            earlier, end = _read(path)
            _refuse_other_settings(path, earlier.settings, settings)
            self.done = {name: list(cells) for name, cells in earlier.cells.items()}
            with output_errors(str(path)):
                os.truncate(path, end)  # a line that was being written when the run ended
        with output_errors(str(path)):
            # Without a buffer: what cannot be written is not tried again when the file is closed.
            self._file: BinaryIO = path.open("ab", buffering=0)
        if begins:
            try:
                self._write({"schema_version": SCHEMA_VERSION, "settings": dict(settings)})
            except OutputError:
                self.close()
                raise

    def add(self, variant: str, cell: Cell) -> None:
        """Append one cell; it is in the file when this returns.

        Raises:
            OutputError: the file cannot be written.
        """
        self._write({"variant": variant, **asdict(cell)})
        self._is_unused = False

    def _write(self, document: Mapping[str, Any]) -> None:
        data = json.dumps(document).encode() + b"\n"
        with output_errors(str(self.path)):
            while data:
                data = data[self._file.write(data) :]

    def close(self) -> None:
        """Close the file, and remove it if it is new and without a cell."""
        self._file.close()
        if self._is_unused:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def refuse_existing(path: Path, *, resume: bool) -> None:
    """Refuse to write over a result, before any work is done.

    Raises:
        UsageError: `path` exists and `resume` is not set.
    """
    if path.exists() and not resume:
        raise UsageError(
            f"{path} already exists. Continue that run with --resume, or choose another name."
        )


def read_report(path: Path) -> PasskeyReport:
    """The report of a JSONL file, as far as it got.

    Raises:
        CheckpointError: it cannot be read, or is not a result file.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[PasskeyReport, int]:
    """The report and the size in bytes of its complete lines."""
    data = read_file(path, _MAX_SIZE)
    end = data.rfind(b"\n") + 1
    lines = data[:end].splitlines()
    try:
        head = json.loads(lines[0]) if lines else {}
        settings = head["settings"]
        if head["schema_version"] != SCHEMA_VERSION or not isinstance(settings, dict):
            raise KeyError("schema_version")
        cells: dict[str, list[Cell]] = {name: [] for name in settings.get("variants", {})}
        for line in lines[1:]:
            entry = json.loads(line)
            cells.setdefault(entry.pop("variant"), []).append(_cell(entry))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a result file of yarncli check-passkey (or of a newer version)."
        ) from error
    return PasskeyReport(settings, cells=cells), end


def _cell(entry: Mapping[str, Any]) -> Cell:
    cell = Cell(**entry)
    kinds = (int, float, int, str, str, bool, str)
    values = (cell.length, cell.depth, cell.trial, cell.key, cell.text, cell.correct, cell.task)
    if not all(type(value) is kind for value, kind in zip(values, kinds, strict=True)):
        raise TypeError("a cell's field has the wrong type")
    if not (1 <= cell.length <= _LONGEST and 0 <= cell.depth <= 1 and 0 <= cell.trial <= _LONGEST):
        raise ValueError("a cell's number is none that a run has")
    return cell


def _refuse_other_settings(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    plain = json.loads(json.dumps(dict(new)))
    old = {"tasks": _TASKS, **old}
    for name in sorted({*old, *plain} - _FREE_SETTINGS):
        if old.get(name) != plain.get(name):
            raise UsageError(
                f"{path} was written with other settings ({name}: {_brief(old.get(name))} there, "
                f"{_brief(plain.get(name))} now). Repeat those, or choose another file."
            )


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
