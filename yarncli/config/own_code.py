"""Configs of model types that transformers does not have: their text part, and what is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from yarncli.config.families.family import Family
from yarncli.config.families.own_code_rows import OWN_CODE, SIZES, TEXT_PARTS
from yarncli.config.families.refused_types import KINDS, no_rope_types
from yarncli.config.families.table import FAMILIES
from yarncli.errors import UnknownArchitectureError, UnsupportedArchitectureError, UsageError
from yarncli.jsontext.fields import Fields, json_path

Level = tuple[tuple[str, ...], Mapping[str, Any]]

NO_NAMES: Mapping[str, str] = {}
_DEEPEST = 3  # levels of sub-configs, as in thinker_config.text_config


def text_levels(config: Mapping[str, Any]) -> Iterator[Level]:
    """The config itself and the sub-configs in it that may hold a text model, outermost first."""
    levels: list[Level] = [((), config)]
    for _ in range(_DEEPEST):
        yield from levels
        levels = [
            ((*path, key), values[key])
            for path, values in levels
            for key in TEXT_PARTS
            if isinstance(values.get(key), Mapping)
        ]


def text_base(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Path of the text part of a config of an unknown type: the first level that has sizes."""
    return next((path for path, values in text_levels(config) if has_sizes(values)), ())


def level_like(config: Mapping[str, Any], family: Family) -> Level:
    """The level of a config that may be read as a model type which is not its own.

    Raises:
        UsageError: none has the sizes that this type reads, or several have.
    """
    found = [level for level in text_levels(config) if has_sizes(level[1], family.names)]
    keys = [family.names.get(key, key) for key in SIZES]
    if not found:
        inside = ", ".join(json_path(path) for path, _ in text_levels(config) if path)
        raise UsageError(
            f"--assume-like {family.model_type} needs {', '.join(keys)}, which neither the config "
            f"nor a text part of it has{f' (looked in {inside})' if inside else ''}."
        )
    if len(found) > 1:
        places = ", ".join(json_path(path) or "the top level" for path, _ in found)
        raise UsageError(
            f"--assume-like {family.model_type} fits {places}, and it is not clear which is meant."
        )
    return found[0]


def find_own(config: Mapping[str, Any]) -> tuple[Family, tuple[str, ...], Mapping[str, Any]] | None:
    """The text part of a type that runs its own code; None if nothing is known about it.

    A known text model inside an unknown wrapper counts as known.
    """
    for path, values in text_levels(config):
        kind = values.get("model_type")
        own = OWN_CODE.get(str(kind))
        if own and has_sizes(values, own.family.names):
            read = own.values(values)
            _require_rope(own.family, read)
            return own.family, path, read
        family = FAMILIES.get(str(kind)) if path else None
        if family and not family.is_wrapper and has_sizes(values, family.names):
            return family, path, values
    return None


def _require_rope(family: Family, values: Mapping[str, Any]) -> None:
    """Insist on the fields from which its code computes RoPE and which have no known default.

    Raises:
        UnknownArchitectureError: names what is missing, or what the model has instead.
    """
    kind, key = family.model_type, family.theta_keys[0]
    if kind == "baichuan" and values.get("hidden_size") != 4096:
        raise UnknownArchitectureError(
            f"baichuan of this size is {KINDS['alibi']}. RoPE scaling does not apply."
        )
    blocks = [values.get(name) for name in ("rope_scaling", "rope_parameters")]
    if not any("rope_theta" in b for b in blocks if isinstance(b, Mapping)) and key not in values:
        raise UnknownArchitectureError(
            f"{kind} runs its own code, and the config states no {key}, so its θ is unknown."
        )


def refuse_unread(config: Mapping[str, Any], assume_like: str) -> None:
    """Insist that something reads what a conversion would write into a type with its own code.

    Raises:
        UnknownArchitectureError: it is known that nothing does.
    """
    for _, values in text_levels(config):
        own = OWN_CODE.get(str(values.get("model_type")))
        if own and not own.reads_scaling:
            raise UnknownArchitectureError(
                f"--assume-like {assume_like} cannot help with {own.family.model_type}: "
                f"{own.family.remark} Its code would not read what a conversion writes."
            )


def refusal(config: Mapping[str, Any], model_type: str) -> UnsupportedArchitectureError:
    """Why a config of an unknown type cannot be extended or judged."""
    for path, values in text_levels(config):
        kind = values.get("model_type")
        if path and kind in no_rope_types() and has_sizes(values):
            return UnsupportedArchitectureError(
                f"model_type {model_type!r} is not one that yarncli knows; its text part "
                f"{json_path(path)} is {KINDS[no_rope_types()[kind]]}. RoPE scaling does not apply."
            )
    own = find_own(config)
    if own is None:
        return unknown_type(model_type)
    family, path, _ = own
    if family.model_type not in OWN_CODE:
        return UnknownArchitectureError(
            f"model_type {model_type!r} is not one that yarncli knows; its text part "
            f"{json_path(path)} is a {family.model_type}. If its code reads that part as usual, "
            f"say so with --assume-like {family.model_type}."
        )
    row = OWN_CODE[family.model_type]
    inside = f" (text part {json_path(path)}: {family.model_type})" if path else ""
    told = f"{model_type}{inside} runs its own code, and it was not examined how to extend it."
    told += f" {row.family.remark}" if row.family.remark else ""
    if row.reads_scaling:
        told += " If that reads RoPE as llama's does, say so with --assume-like llama."
    return UnknownArchitectureError(told)


def unknown_type(model_type: str) -> UnsupportedArchitectureError:
    """The error for a model type about which nothing is known."""
    return UnsupportedArchitectureError(
        f"model_type {model_type!r} is not one that yarncli knows. If its code reads RoPE as a "
        "known type does (often llama), name that one with --assume-like MODEL_TYPE."
    )


def own_note(config: Mapping[str, Any], family: Family, path: tuple[str, ...]) -> str:
    """The note of inspect for numbers that were read without knowing the code of the model."""
    outer = str(config.get("model_type"))
    known = "" if family.model_type in OWN_CODE else f", whose text part is a {family.model_type}"
    where = f" in {json_path(path)}" if path else ""
    return (
        f"{outer} runs its own code{known}. The numbers{where} are those of the file; what an "
        "engine makes of them is unknown."
    )


def require_window(fields: Fields, assume_like: str) -> None:
    """Insist that a config read as another type states its window.

    Raises:
        UsageError: it does not; the default of the other type would be a guess.
    """
    if not fields.has("max_position_embeddings"):
        raise UsageError(
            f"{fields.where('max_position_embeddings')} is missing, and that of {assume_like} "
            "would be a guess. Give the window with --original-length N."
        )


def has_sizes(values: Mapping[str, Any], names: Mapping[str, str] = NO_NAMES) -> bool:
    """Whether a level has the sizes of a text model.

    Args:
        values: the level.
        names: the usual names of keys → its own.
    """
    keys = [names.get(key, key) for key in SIZES]
    return all(isinstance(values.get(key), (int, float)) for key in keys)
