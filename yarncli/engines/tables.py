"""What each engine's model files do with a RoPE setting: the tables in `wiring/`, made by scripts.

A table has a row per model type, found by running the engine's released code or reading it; see
`scripts/wiring/README.md`. A model without a row is not known, whatever the engine's shared
functions would make of its setting.
"""

from __future__ import annotations

import functools
import json
import re
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

    def require_class(self, model: Model) -> None:
        """Insist that the class which the config names is one that the row is about.

        Raises:
            NotKnown: the engine loads it through another class, which was not examined.
        """
        named = model.config.get("architectures")
        known = {self.entry.get("class"), *self.entry.get("also", ())}
        known |= {*self.entry.get("through", ())}
        first = named[0] if isinstance(named, list) and named else None
        if first is not None and first not in known and not model.assume_like:
            raise NotKnown(
                f"{self.release} loads {self.model_type} here through its class {first}, which "
                "nobody examined."
            )

    def outcome(self, probe: str, layers: str = "full_attention") -> str:
        """What a probe gave: one line as the README there explains.

        Empty where the engine was read, not run, and where the probe is not of this model type.

        Args:
            probe: its name, such as "yarn both".
            layers: which of them, where the engine treats layers differently; by default those that
                are scaled.
        """
        found = self._outcome(probe)
        if isinstance(found, Mapping):
            found = found.get(layers, next(iter(found.values())))
        return "" if found is None else str(found)

    def has_one_setting(self) -> bool:
        """Whether a scaling applies to all layers alike, also to those with a sliding window."""
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


def default_theta(engine: str, model: Model, scope: str) -> float | None:
    """θ that an engine's own class takes if the config has none; `None` if that is not known.

    Args:
        engine: its id.
        model: the config.
        scope: of which layers.
    """
    while (_FOLDER / f"{engine}.json").is_file():
        row = Row(load_table(engine), model.rope.model_type)
        entry = row.table["model_types"].get(row.model_type, {})
        if "backend" in entry:
            engine = entry["backend"]
            continue
        found = re.search(r"theta=([\d.e+]+)", row.outcome("no theta", scope)) if entry else None
        return float(found[1]) if found else None
    return None


def get_row(engine: str, model_type: str) -> Row | None:
    """The row of a model type, whatever it says; `None` where there is none."""
    table = load_table(engine)
    return Row(table, model_type) if model_type in table["model_types"] else None


def loads_more(row: Row) -> bool:
    """Whether the engine loads spellings of this model type that transformers 5 refuses."""
    theirs = get_row("transformers-5", row.model_type)
    return theirs is None or any(
        bool(theirs.failure(probe)) and not row.failure(probe)
        for probe in ("yarn both", "yarn legacy", "linear both")
    )


def find_row(engine: str, model: Model, kind: str | None = None) -> Row:
    """The row of a model, where the engine has code for it.

    Args:
        engine: the name of the table.
        model: the config; its `architectures` count where the table lists those of the engine.
        kind: the model type by which the engine goes; by default that of the text part.

    Raises:
        NotSupported: the engine has no class for this model.
        NotKnown: there is no row, or the model file could not be examined.
    """
    has = load_table(engine).get("architectures")
    named = named_classes(model)
    if has and named and named[0] not in has:
        raise NotSupported(f"{Row(load_table(engine), '').release} has no class {named[0]}.")
    return row_of(engine, model, kind)


def named_classes(model: Model) -> list[str]:
    """The `architectures` of a config; none where the model is to be treated as another type."""
    named = model.config.get("architectures")
    return [str(n) for n in named] if isinstance(named, list) and not model.assume_like else []


def row_of(engine: str, model: Model, kind: str | None = None) -> Row:
    """The row of a model type, whatever class the config names.

    Args:
        engine: the name of the table.
        model: the config.
        kind: the model type by which the engine goes; by default that of the text part.

    Raises:
        NotSupported: the engine has no class for this model type.
        NotKnown: there is no row, or the model file could not be examined.
    """
    row = Row(load_table(engine), kind or model.rope.model_type)
    if row.model_type not in row.table["model_types"]:
        if row.table.get("others") == "unsupported":
            raise NotSupported(f"{row.release} has no model file for {row.model_type}.")
        raise NotKnown(f"Nobody examined what {row.release} does with {row.model_type}.")
    if row.entry["rope"] == "unsupported":
        raise NotSupported(f"{row.release} has no class for {row.model_type}.")
    if row.entry["rope"] == "unknown":
        raise NotKnown(f"The code of {row.release} for {row.model_type} could not be examined.")
    return row


def find_transformers_row(engine: str, model: Model) -> Row:
    """The row of a model in a release of transformers.

    Args:
        engine: the name of the table, "transformers-5" or "transformers-4.57", say.
        model: the config.

    Raises:
        NotSupported: the release has no code for the model.
        NotKnown: the model was not examined, or the checkpoint's own code that would run.
    """
    release = f"transformers {load_table(engine)['version']}"
    if not model.assume_like and not has_type(engine, model.model_type):
        if brings_config(model.config):
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


def brings_config(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint brings a config class of its own, without which its code never runs.

    Args:
        config: the JSON object of `config.json`.

    Source: transformers 4.50.3 (run) and 5.23, `AutoConfig.from_pretrained`, `has_remote_code`.
    """
    auto_map = config.get("auto_map")
    return bool(auto_map) and (not isinstance(auto_map, Mapping) or "AutoConfig" in auto_map)


def class_in(config: Mapping[str, Any], key: str) -> str:
    """The class that `auto_map` names for a key, without its file; empty where it names none.

    Args:
        config: the JSON object of `config.json`.
        key: such as "AutoConfig".
    """
    auto_map = config.get("auto_map")
    named = auto_map.get(key) if isinstance(auto_map, Mapping) else None
    return named.rpartition(".")[2] if isinstance(named, str) else ""


def has_type(engine: str, kind: str) -> bool:
    """Whether an engine has a model type itself: a release of transformers, or TGI.

    Args:
        engine: its id.
        kind: the model type that a checkpoint names.
    """
    table = load_table(engine)
    if engine.startswith("transformers-"):
        return kind in registered_types(table["version"])
    return any(kind in table[key] for key in ("registered", "causal", "unsure"))


def runs_own_code(engine: str, config: Mapping[str, Any]) -> bool:
    """Whether a release of transformers, or TGI on it, runs the code that a checkpoint brings.

    Args:
        engine: its id.
        config: the JSON object of `config.json`.
    """
    return brings_config(config) and not has_type(engine, str(config.get("model_type")))


@functools.cache
def registered_types(version: str) -> frozenset[str]:
    """The model types that checkpoints of a transformers release may name.

    Args:
        version: the release, such as "4.57.6".
    """
    known: set[str] = set()
    for row in load_table("transformers-types")["releases"]:
        if _numbers(row["release"]) > _numbers(version):
            break
        known = (known - {*row.get("dropped", ())}) | {*row.get("added", ())}
    return frozenset(known)


def _numbers(release: str) -> list[int]:
    return [int(part) for part in release.split(".")]
