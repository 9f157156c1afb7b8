"""What is known of a training run: the stamp of the guard, and the trainer's JSON state.

Pickles, such as training_args.bin and optimizer.pt, are never opened.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli import __version__
from yarncli.checkpoint.files import read_file
from yarncli.checkpoint.leftovers import STAMP_NAME
from yarncli.checkpoint.source import MAX_JSON_SIZE
from yarncli.errors import CheckpointError, ConfigError
from yarncli.history.weights import Trained
from yarncli.jsontext.fields import Fields
from yarncli.jsontext.text import JsonText
from yarncli.planning.rope_plan import parameters_from_json, parameters_to_json
from yarncli.rope.parameters import RopeParameters

SCHEMA_VERSION = 1
_STATE = "trainer_state.json"
_STEP = re.compile(r"checkpoint-(\d{1,12})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What the guard saw in the model that was trained."""

    length: int
    """The window of the conversion, tokens."""
    settings: dict[str, RopeParameters]
    """Scope → the setting whose frequencies the model had, at the start and at the end."""
    train_length: int | None = None
    """The length of the training texts, tokens."""
    steps: int | None = None
    """Number of optimizer steps."""

    def to_bytes(self) -> bytes:
        """The content of the file."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "tool_version": __version__,
            "length": self.length,
            "settings": {name: parameters_to_json(p) for name, p in self.settings.items()},
            "train_length": self.train_length,
            "steps": self.steps,
        }
        return (json.dumps(document, indent=2) + "\n").encode()


def read_stamp(directory: Path) -> Stamp | None:
    """Read the stamp in a directory. For an intermediate checkpoint, that is the one of its run.

    Raises:
        CheckpointError: it cannot be read, or the guard did not write it.
    """
    path = _beside(directory, STAMP_NAME)
    if path is None:
        return None
    document = JsonText.parse(read_file(path, MAX_JSON_SIZE), str(path)).value
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ConfigError(
            f"This yarncli cannot read {path}. Use a newer yarncli, or remove the file."
        )
    try:
        fields = Fields(document)
        settings = fields.required("settings", Fields.mapping)
        return Stamp(
            length=fields.positive("length", 0),
            settings={
                name: parameters_from_json(settings.required(name, Fields.mapping))
                for name in settings.values
            },
            train_length=fields.integer("train_length"),
            steps=fields.integer("steps"),
        )
    except ConfigError as error:
        raise ConfigError(f"{path} is not what the guard wrote: {error}") from error


def read_run(directory: Path, stamp: Stamp | None, *, adapter: bool = False) -> Trained:
    """What is known of the run that saved a directory.

    Args:
        directory: where the trainer saved the model.
        stamp: the stamp of the guard, if there is one.
        adapter: whether an adapter was trained.
    """
    return Trained(
        steps=(stamp.steps if stamp else None) or _steps(directory),
        train_length=stamp.train_length if stamp else None,
        guarded=stamp is not None,
        adapter=adapter,
    )


def _steps(directory: Path) -> int | None:
    """The number of steps in the trainer state of the directory or of its last checkpoint."""
    path = _beside(directory, _STATE)
    if path is None:
        numbered = {
            int(match[1]): entry
            for entry in directory.iterdir()
            if (match := _STEP.fullmatch(entry.name)) and (entry / _STATE).is_file()
        }
        path = numbered[max(numbered)] / _STATE if numbered else None
    if path is None:
        return None
    try:
        state: dict[str, Any] = json.loads(read_file(path, MAX_JSON_SIZE))
        steps = state.get("global_step")
    except (CheckpointError, ValueError, RecursionError, AttributeError):
        return None  # an unreadable state is ignored, because nothing depends on it
    return steps if type(steps) is int and 0 < steps < 1 << 53 else None


def _beside(directory: Path, name: str) -> Path | None:
    places = [directory]
    if _STEP.fullmatch(directory.resolve().name):
        places.append(directory.resolve().parent)
    return next((place / name for place in places if (place / name).is_file()), None)
