"""What each engine's model files do with a RoPE setting: the tables in `wiring/`, made by scripts.

A table has a row per model type, found by running the engine's released code or reading it; see
`scripts/wiring/README.md`. A model without a row is not known, whatever the engine's shared
functions would make of its setting.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from yarncli.engines.types import Model, NotKnown, NotSupported

_FOLDER = Path(__file__).parent / "wiring"

Word = Literal["reads", "differs", "ignores", "refuses"]


@dataclass(frozen=True, slots=True)
class Row:
    """What one engine does with one model type."""

    table: Mapping[str, Any]
    """The table it is from."""
    model_type: str
    """The model type."""

    @property
    def entry(self) -> Mapping[str, Any]:
        """The row as it stands in the table; `scripts/wiring/table.py` explains its keys."""
        found: Mapping[str, Any] = self.table["model_types"][self.model_type]
        return found

    @property
    def release(self) -> str:
        """The engine and the version that was examined, for people."""
        return f"{self.table['engine']} {self.table['version']}"

    def word(self, rope_type: str) -> Word:
        """What becomes of a RoPE type as `convert` writes it; of plain RoPE always "reads".

        Raises:
            NotKnown: the table does not say.
        """
        if rope_type == "default":
            return "reads"
        found = self.entry.get("types", {}).get(rope_type)
        if found is None:
            raise NotKnown(
                f"Nobody examined what {self.release} does with {rope_type} in {self.model_type}."
            )
        return cast(Word, found)

    def outcome(self, probe: str) -> str:
        """What a probe gave, of the layers that are scaled: one line as the README there explains.

        Empty where the engine was read, not run.

        Args:
            probe: its name, such as "yarn both".
        """
        found = self._outcome(probe)
        if isinstance(found, Mapping):
            found = found.get("full_attention", next(iter(found.values())))
        return str(found)

    def has_one_setting(self) -> bool:
        """Whether a scaling reaches all layers alike, those that attend within a window too."""
        return isinstance(self._outcome("yarn legacy"), str)

    def _outcome(self, probe: str) -> Any:
        number = self.entry.get("outcome")
        if number is None or probe not in self.table["probes"]:
            return ""
        return self.table["outcomes"][number][self.table["probes"].index(probe)]

    def failure(self, probe: str) -> str:
        """The exception that a probe gave; empty where it gave none, or was not tried."""
        found = self.outcome(probe)
        return found if found[:1].isupper() else ""


@functools.cache
def load_table(engine: str) -> Mapping[str, Any]:
    """A table as it stands in its file.

    Args:
        engine: the name of the file, without its ending.
    """
    found: dict[str, Any] = json.loads((_FOLDER / f"{engine}.json").read_text(encoding="utf-8"))
    return found


def get_row(engine: str, model_type: str) -> Row | None:
    """The row of a model type, whatever it says; `None` where there is none."""
    table = load_table(engine)
    return Row(table, model_type) if model_type in table["model_types"] else None


def find_row(engine: str, model: Model) -> Row:
    """The row of a model, where the engine has code for it.

    Args:
        engine: the name of the table.
        model: the config; its `architectures` count where the table lists those of the engine.

    Raises:
        NotSupported: the engine has no class for this model.
        NotKnown: there is no row, or the model file could not be examined.
    """
    table = load_table(engine)
    row = Row(table, model.rope.model_type)
    named = model.config.get("architectures")
    has = table.get("architectures")
    if has and isinstance(named, list) and named and not model.assume_like:
        first = str(named[0])
        if first not in has:
            raise NotSupported(f"{row.release} has no class {first}.")
    if row.model_type not in table["model_types"]:
        raise NotKnown(f"Nobody examined what {row.release} does with {row.model_type}.")
    if row.entry["rope"] == "unsupported":
        raise NotSupported(f"{row.release} has no class for {row.model_type}.")
    if row.entry["rope"] == "unknown":
        raise NotKnown(f"The code of {row.release} for {row.model_type} could not be examined.")
    return row


def find_transformers_row(engine: str, model: Model) -> Row:
    """The row of a model in a release of transformers.

    A checkpoint of a model type that the release does not have runs its own code, if it has any.

    Args:
        engine: the name of the table, "transformers-5" or "transformers-4.57", say.
        model: the config.

    Raises:
        NotSupported: the release has no code for the model.
        NotKnown: the checkpoint's own code would run, or the model was not examined.
    """
    table = load_table(engine)
    release = f"transformers {table['version']}"
    if model.model_type not in _registered(table["version"]) and not model.assume_like:
        if "auto_map" in model.config:
            raise NotKnown(
                f"{release} does not know the model type {model.model_type!r}. The checkpoint's "
                "own code would run, which nobody examined."
            )
        raise NotSupported(f"{release} does not know the model type {model.model_type!r}.")
    row = get_row(engine, model.rope.model_type)
    if row is None or row.entry["rope"] in ("unknown", "own"):
        raise NotKnown(f"The code of {release} for {model.rope.model_type} was not examined.")
    if row.entry["rope"] == "unsupported":
        raise NotSupported(f"{release} has no code for the text part {model.rope.model_type!r}.")
    return row


@functools.cache
def _registered(version: str) -> frozenset[str]:
    """The model types that checkpoints of a transformers release may name."""
    known: set[str] = set()
    for row in load_table("transformers-types")["releases"]:
        if _numbers(row["release"]) > _numbers(version):
            break
        known = (known - {*row.get("dropped", ())}) | {*row.get("added", ())}
    return frozenset(known)


def _numbers(release: str) -> list[int]:
    return [int(part) for part in release.split(".")]
