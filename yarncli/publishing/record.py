"""What yarncli.json records of a checkpoint, as publishing needs it: its origin, its conversion."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import ConfigError
from yarncli.history import FILE_NAME, Step, read_provenance

_HUB_SOURCE = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Conversion:
    """One conversion; lengths are in tokens.

    `scopes` maps a scope to its setting before and after, as `parameters_to_json` wrote it.
    """

    method: str
    length: int
    factor: float
    original_length: int
    original_source: str
    scopes: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]

    @classmethod
    def of(cls, step: Step) -> Conversion | None:
        """The conversion that a step made; None for a step of another kind.

        Raises:
            ConfigError: the step's plan is not one that yarncli wrote.
        """
        plan = step.plan
        if not plan.get("scopes"):
            return None
        try:
            scopes = {
                name: (dict(scope["before"]), dict(scope["after"]))
                for name, scope in plan["scopes"].items()
            }
            return cls(
                str(plan["method"]),
                int(plan["length"]),
                float(plan["factor"]),
                int(plan["original_max_position_embeddings"]),
                str(plan["original_source"]),
                scopes,
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{FILE_NAME} holds a plan that yarncli did not write. Restore the file, or remove "
                "it."
            ) from error


def steps_of(checkpoint: Checkpoint) -> tuple[Step, ...]:
    """What yarncli.json records, oldest first; empty without one.

    Raises:
        CheckpointError: the file is damaged, or not what yarncli writes.
    """
    history = read_provenance(checkpoint)
    steps = history.steps if history else ()
    for step in steps:
        Conversion.of(step)
    return steps


def last_conversion(steps: Sequence[Step]) -> Conversion | None:
    """The last conversion of what `steps_of` gave; None if there was none."""
    made = [conversion for step in steps if (conversion := Conversion.of(step))]
    return made[-1] if made else None


def origin_of(steps: Sequence[Step]) -> tuple[str, str] | None:
    """The Hub id and commit that the first step started from, if it was on the Hub."""
    match = _HUB_SOURCE.fullmatch(steps[0].source) if steps else None
    return (match[1], match[2]) if match else None
