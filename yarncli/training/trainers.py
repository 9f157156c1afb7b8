"""What is known of each trainer: its version, its own RoPE option, and the files to write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from yarncli.errors import UsageError
from yarncli.options import choose

FOLDER = Path(__file__).with_name("recipes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """One trainer, as described in `trainers.json`."""

    id: str
    """The value for `--trainer`."""
    name: str
    """Display name."""
    versions: str
    """The release that was examined."""
    evidence: Literal["run", "parsed", "read"]
    """The evidence: the files were run with it, its parser accepted them, or its code was read."""
    route: str
    """The trainer's own option for RoPE."""
    result: str
    """What this option does."""
    converted: str
    """What the trainer does with a converted checkpoint."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The files of its recipe: name → template below `recipes`; empty without a recipe."""
    form: Literal["binary", "ids", "text"] = "binary"
    """The form of the rows that it reads."""
    start: str = ""
    """The command that starts it."""
    saved: str = ""
    """Where it saves the model, below the directory of its output; empty: there itself."""
    refused: str = ""
    """Why it must not be used; empty if it may be used."""

    def to_json(self) -> dict[str, Any]:
        """The trainer as plain data."""
        names = ("id", "name", "versions", "evidence", "route", "result", "converted", "refused")
        return {name: getattr(self, name) for name in names}


@cache
def trainers() -> dict[str, Trainer]:
    """All examined trainers: id → trainer."""
    path = Path(__file__).with_name("trainers.json")
    entries = json.loads(path.read_text(encoding="utf-8"))
    return {name: Trainer(id=name, **entry) for name, entry in entries.items()}


def recipe_names() -> list[str]:
    """Ids of the trainers that a recipe can be written for."""
    return [each.id for each in trainers().values() if each.files and not each.refused]


def get_trainer(name: str) -> Trainer:
    """The trainer with an id, if a recipe can be written for it.

    Raises:
        UsageError: it is unknown, has no recipe, or must not be used. The message says why.
    """
    found = trainers()[choose(name, trainers(), "trainer")]
    if found.refused:
        raise UsageError(f"There is no recipe for {found.name}: {found.refused}.")
    if not found.files:
        raise UsageError(
            f"There is no recipe for {found.id!r}; there is one for {', '.join(recipe_names())}. "
            f"{found.name}: {found.converted}"
        )
    return found
