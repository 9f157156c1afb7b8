"""transformers 4.x: three generations of YaRN, all reading `rope_scaling` and top-level θ only."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from yarncli.config.families.family import Release
from yarncli.engines.loaders import is_v5_only, legacy, refuse_aliases, with_inner_theta
from yarncli.engines.published import published_reading
from yarncli.engines.shared import (
    ORIGINAL,
    factor_by_lengths,
    from_pretrained,
    phimoe_scale,
    refuse_gaps,
    refuse_null_head_dim,
)
from yarncli.engines.tables import Row, find_transformers_row, get_row
from yarncli.engines.types import Engine, EngineCrash, LoaderError, Model, NotKnown, Reading, Used
from yarncli.rope.formulas import longrope_attention_factor
from yarncli.rope.parameters import RopeParameters, canonical_rope_type, mla_softmax

# Config classes that say so accept these keys of `rope_scaling` and no other, and these types.
_STRICT = {
    "two fields": (frozenset({"type", "factor"}), ("linear", "dynamic")),
    "three fields": (
        frozenset({"type", "short_factor", "long_factor"}),
        ("longrope", "su", "yarn"),
    ),
}

_IGNORES = "ignores rope_parameters without a word: θ and scaling are its defaults"

Yarn = Callable[[Model, RopeParameters], tuple[RopeParameters, float]]


def _yarn_50(model: Model, p: RopeParameters) -> tuple[RopeParameters, float]:
    """4.43 – 4.50: the window is the original length; no mscale, no truncate."""
    p = replace(
        p, original_max_position_embeddings=None, truncate=None, mscale=None, mscale_all_dim=None
    )
    return p, p.effective_attention_factor()


def _yarn_55(model: Model, p: RopeParameters) -> tuple[RopeParameters, float]:
    """4.51 – 4.55: the factor is the ratio of the lengths wherever the original one is given."""
    original = model.block("rope_scaling").get(ORIGINAL)
    if original is None:
        p = replace(p, original_max_position_embeddings=None)
    else:
        p = factor_by_lengths(p, original, "the two lengths")
    return p, p.effective_attention_factor()


def _yarn_57(model: Model, p: RopeParameters) -> tuple[RopeParameters, float]:
    """4.56 – 4.57: as transformers 5."""
    stated = model.block("rope_scaling") or model.family.rope_defaults
    p = replace(p, original_max_position_embeddings=stated.get(ORIGINAL))
    return p, p.effective_attention_factor()


def _longrope(model: Model, p: RopeParameters) -> tuple[RopeParameters, float]:
    """All of 4.x: only the top-level original length counts, and it overrides the factor."""
    original = model.text.get(ORIGINAL, model.family.original_max_position_embeddings)
    if model.rope.model_type == "phimoe":
        original = model.block("rope_scaling").get(ORIGINAL, original)
    if original:
        factor = p.max_position_embeddings / original
    elif p.factor is not None:
        factor, original = p.factor, p.max_position_embeddings
    else:
        raise EngineCrash("longrope without factor and top-level original_max_position_embeddings.")
    scale = p.attention_factor or longrope_attention_factor(factor, original)
    p = replace(p, original_max_position_embeddings=original, factor=max(factor, 1.0))
    return p, scale


def _reader(version: Release, yarn: Yarn) -> Callable[[Model], Reading]:
    engine = f"transformers-{version}"

    def read(model: Model) -> Reading:
        own = published_reading(engine, model)
        if own:
            return own
        row = find_transformers_row(engine, model)
        notes = (_IGNORES,) if is_v5_only(model) else ()
        if row.entry.get("flat") and model.text_path:
            raise NotKnown(f"Nobody examined {row.release} with a text part that it does not know.")
        if row.entry["rope"] == "ignores":
            text = {k: v for k, v in model.text.items() if k != "rope_scaling"}
            read_as = replace(model, text=text)
            if "inner_theta" in row.entry:
                read_as = with_inner_theta(read_as, row.entry["inner_theta"], _theta(row))
            plain = legacy(read_as, default_theta=_theta(row))
            return Reading({name: Used(p) for name, p in plain.items()}, notes=notes)
        refuse_aliases(model)
        _refuse_block(model, row)
        read_as = replace(model, text=_as_llama3(model, row))
        wins = not row.outcome("type yarn rope_type linear").startswith("linear")
        parameters = legacy(read_as, type_wins=wins, default_theta=_theta(row))
        scopes = {name: _used(model, p, row, version, yarn) for name, p in parameters.items()}
        if "full_attention" in scopes and row.has_one_setting():
            scopes = dict.fromkeys(scopes, scopes["full_attention"])
        return Reading(scopes, notes=notes)

    return read


def _theta(row: Row) -> float | None:
    """θ where the file has none."""
    theta = row.entry.get("theta")
    return theta if isinstance(theta, float) else None


def _as_llama3(model: Model, row: Row) -> Mapping[str, Any]:
    """Llama 4 computes llama3 whatever the type says.

    Raises:
        EngineCrash: there are no keys for it.
    """
    block = model.block("rope_scaling")
    if row.failure("yarn legacy") != "KeyError: 'low_freq_factor'" or not block:
        return model.text
    for key in ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL):
        if key not in block:
            raise EngineCrash(f"It computes llama3 whatever the type; without {key}: KeyError.")
    bare = {k: v for k, v in block.items() if k != "type"}
    return {**model.text, "rope_scaling": {**bare, "rope_type": "llama3"}}


def _refuse_block(model: Model, row: Row) -> None:
    """Refuse what the config class insists on, and what it computes with and is null.

    Raises:
        LoaderError: it is not given.
        EngineCrash: it is null, or there is no dict at all and the class reads it.
    """
    block, kind = model.text.get("rope_scaling"), model.rope.model_type
    error = row.failure("default legacy")
    if block is None and error and not error.startswith("RuntimeError"):
        raise EngineCrash(f"{kind} needs rope_scaling: {error}.")
    if not isinstance(block, Mapping):
        return
    error = row.failure("rope_scaling empty")
    if not block and error:
        raise LoaderError(f"rope_scaling is empty: {error}. Remove it.")
    _refuse_strict(model, block, error)
    key = row.entry.get("indexes")
    if key and key not in block:
        raise EngineCrash(f"rope_scaling without {key}: KeyError at the first token. Add it.")
    mscales = (block.get("short_mscale"), block.get("long_mscale"))
    if "short_mscale" in error and None in mscales:
        raise LoaderError(f"{kind} needs the numbers short_mscale and long_mscale.")
    named = block.get("rope_type") or block.get("type")
    if named is None and row.failure("yarn no type"):
        raise LoaderError(f"rope_scaling names no type: {row.failure('yarn no type')}.")
    if "rope_type" not in block and "rope_type" in row.entry.get("requires", ()):
        raise LoaderError("rope_scaling has no rope_type: KeyError. Rename `type`.")
    if named == "mrope" and row.failure("mrope"):
        raise LoaderError("It does not know rope_type 'mrope'; the name is default.")
    not_null = ["factor"] if row.failure("yarn factor null") else []
    not_null += ["beta_fast", "beta_slow"] if row.failure("yarn betas null") else []
    if canonical_rope_type(str(named)) != "default":
        refuse_gaps(block, str(named), not_null=not_null)


def _refuse_strict(model: Model, block: Mapping[str, Any], error: str) -> None:
    rule = next((rule for words, rule in _STRICT.items() if words in error), None)
    if rule is None:
        return
    keys, types = rule
    if set(block) != keys or block["type"] not in types:
        raise LoaderError(
            f"For {model.rope.model_type} it accepts rope_scaling with exactly the keys "
            f"{', '.join(sorted(keys))} and type {' or '.join(types)}."
        )


def _used(model: Model, p: RopeParameters, row: Row, version: Release, yarn: Yarn) -> Used:
    _crash_as_tried(model, p, row)
    refuse_null_head_dim(model, p, version)
    softmax = 1.0
    if p.rope_type != "default" and p.mscale_all_dim and "softmax" in row.outcome("yarn mscale"):
        softmax = mla_softmax(p)
    if p.rope_type == "yarn":
        p, scale = yarn(model, p)
        return Used(p, scale, softmax)
    if p.rope_type == "longrope":
        p, scale = _longrope(model, p)
        if model.rope.model_type == "phimoe":
            scale = phimoe_scale(p, model.length)
        return Used(p, scale, softmax)
    stated = model.block("rope_scaling") or model.family.rope_defaults
    if p.rope_type == "llama3" and ORIGINAL not in stated:
        raise EngineCrash("llama3 without original_max_position_embeddings: KeyError.")
    return Used(p, 1.0, softmax)


def _crash_as_tried(model: Model, p: RopeParameters, row: Row) -> None:
    """Refuse a type on which the model class failed, whatever else is written.

    Raises:
        EngineCrash: it is such a type.
    """
    error = "" if p.rope_type == "default" else row.failure(f"{p.rope_type} legacy")
    excused = ("fields", "short_mscale", "'low_freq_factor'")  # those depend on the keys
    if error and not any(word in error for word in excused):
        raise EngineCrash(f"{p.rope_type} for {model.rope.model_type}: {error}.")


def _settable(version: Release) -> Callable[[Model, str], bool]:
    def can_set(model: Model, key: str) -> bool:
        """A keyword that is no attribute of the config goes to the model class: TypeError."""
        row = get_row(f"transformers-{version}", model.rope.model_type)
        known = row.entry.get("attributes", ()) if row else ()
        return key not in ("rope_scaling", "rope_theta") or key in known or key in model.text

    return can_set


def _engine(version: Release, versions: str, yarn: Yarn, about: str) -> Engine:
    return Engine(
        id=f"transformers-{version}",
        name=f"transformers {version}",
        versions=versions,
        basis="run",
        read=_reader(version, yarn),
        launch=functools.partial(from_pretrained, engine=f"transformers-{version}"),
        override="legacy",
        settable=_settable(version),
        about=(
            about,
            "`rope_parameters` is ignored without a warning; `type` beats `rope_type`.",
            "longrope takes the original length from the top level only.",
        ),
    )


ENGINES = (
    _engine("4.57", "4.56 – 4.57", _yarn_57, "yarn as in transformers 5."),
    _engine(
        "4.55",
        "4.51 – 4.55",
        _yarn_55,
        "yarn: `factor` is replaced by max_position_embeddings / original_max_position_embeddings; "
        "a config that leaves the maximum at the original window switches YaRN off.",
    ),
    _engine(
        "4.50",
        "4.43 – 4.50",
        _yarn_50,
        "yarn: `original_max_position_embeddings`, `mscale` and `truncate` are not read; the ramp "
        "is placed for max_position_embeddings, which is wrong once that is extended.",
    ),
)
