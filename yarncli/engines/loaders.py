"""One config as each generation of loaders sees it: transformers 5, and readers of `rope_scaling`.

`read_rope` refuses a config that contradicts itself; a loader picks a winner and goes on. The
functions here resolve the contradictions as that loader does, and let `read_rope` do the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.config.families.family import Family
from yarncli.config.families.own_code_rows import OWN_CODE
from yarncli.config.families.shared import NEEDS_ORIGINAL
from yarncli.config.own_code import find_own
from yarncli.config.reading import RopeConfig, find_text, read_rope
from yarncli.engines.outer import refuse_outer
from yarncli.engines.resolving import BLOCKS, as_version_5, theta_keys, without_settings
from yarncli.engines.shared import ORIGINAL, refuse_gaps
from yarncli.engines.tables import Row, get_row
from yarncli.engines.types import LoaderError, Model, NotKnown
from yarncli.errors import ConfigError, NotComputedError
from yarncli.planning.plan import window_of
from yarncli.rope.parameters import HAVE_ORIGINAL, RopeParameters, canonical_rope_type


def read_model(
    config: Mapping[str, Any],
    *,
    source: str = "SOURCE",
    length: int | None = None,
    assume_like: str | None = None,
    own_code: bool = False,
) -> Model:
    """Prepare a config for the engines.

    Args:
        config: the JSON object of `config.json`.
        source: what to call the checkpoint in launch lines.
        length: the intended window, tokens; by default what transformers 5 reads.
        assume_like: treat an unknown model type as this one.
        own_code: also read types that come with their own code, for engines with a class for them.

    Raises:
        ConfigError: the sizes of the model cannot be read.
        UnsupportedArchitectureError: no RoPE, or a model type that is not known.
    """
    family, path, text = (own_code and find_own(config)) or find_text(config, assume_like)
    refusal, is_ours = "", False
    try:
        resolved = _with_text(config, path, as_version_5(text, family))
        rope = read_rope(resolved, assume_like=assume_like, own_code=own_code)
    except (ConfigError, LoaderError) as error:
        refusal, is_ours = str(error), isinstance(error, NotComputedError)
        sizes = _with_text(config, path, without_settings(text, family))
        rope = read_rope(sizes, assume_like=assume_like, own_code=own_code)
    return Model(
        source=source,
        config=config,
        text=_as_stated(config, path, text, family),
        rope=rope,
        refusal=refusal,
        is_ours=is_ours,
        length=length or intended_window(rope),
        assume_like=assume_like,
    )


def _as_stated(
    config: Mapping[str, Any], path: tuple[str, ...], text: Mapping[str, Any], family: Family
) -> Mapping[str, Any]:
    """The text part without a θ that only the model's own code would add."""
    own = OWN_CODE.get(family.model_type)
    if own is None or own.theta_ratio_key:
        return text
    for key in path:
        config = config[key]
    return config


def with_fields(model: Model, fields: Mapping[str, Any], *, keep_theta: bool = False) -> Model:
    """The model after its RoPE blocks and θ were replaced by `fields` of the text part.

    Args:
        model: the config.
        fields: what to put there.
        keep_theta: leave θ beside the blocks as it is, for loaders that have it as a field.
    """
    keys = {*BLOCKS, *(() if keep_theta else theta_keys(model.family))}
    kept = {k: v for k, v in model.text.items() if k not in keys}
    config = _with_text(model.config, model.text_path, {**kept, **fields})
    return read_model(
        config,
        source=model.source,
        length=model.length,
        assume_like=model.assume_like,
        own_code=model.rope.own_code,
    )


def intended_window(rope: RopeConfig) -> int:
    """The length in tokens that a config is written for.

    That of the plan's convention, or original length × factor where yarn was given a larger one.
    """
    window = window_of(rope)
    for scope in rope.scopes.values():
        p = scope.parameters
        if p.rope_type == "yarn":
            window = max(window, int(p.original_length * p.resolved_factor()))
    return window


def version_5(model: Model) -> dict[str, RopeParameters]:
    """What transformers 5 reads, per scope.

    A type without a key that it needs is a KeyError while the config is loaded. A null `factor` of
    yarn is max_position_embeddings / original length, null betas are 32 and 1, and a dict that
    names no type is plain RoPE.

    Raises:
        LoaderError: it does not load the config.
        NotKnown: it may load it, but yarncli does not compute with such a value.

    Source: transformers 5.23 `modeling_rope_utils.py`, `convert_rope_params_to_dict` (775-804),
        `standardize_rope_params` (806-866), `validate_rope` and `_check_received_keys`.
    """
    if model.refusal:
        raise (NotKnown if model.is_ours else LoaderError)(model.refusal)
    refuse_outer(model.config, model.text_path)
    refuse_float_window(model)
    found = {}
    for name, scope in model.rope.scopes.items():
        kind = scope.parameters.rope_type
        _refuse_missing(model, model.winning_block(name), kind)
        reason = model.family.refuses.get(kind)
        # What its attention lacks is missed when it runs, not while it loads.
        if reason and reason != NEEDS_ORIGINAL and not model.family.refused_types_load:
            raise LoaderError(f"{model.rope.model_type} cannot load it: {reason}.")
        found[name] = scope.parameters
    return found


def refuse_float_window(model: Model) -> None:
    """Refuse a window like 65536.0: config classes check the types of their fields.

    Args:
        model: the config.

    Raises:
        LoaderError: it is written so.

    Source: run with 5.23 on every type; bailing_hybrid alone sets it after the check.
    """
    found = model.text.get(model.rope.length_key)
    if isinstance(found, float) and model.rope.model_type != "bailing_hybrid":
        raise LoaderError(
            f"{model.rope.length_key} is {found}, not an integer: "
            "StrictDataclassFieldValidationError."
        )


def _refuse_missing(model: Model, block: Mapping[str, Any], rope_type: str) -> None:
    """Refuse a dict without a key that its config class insists on.

    Raises:
        LoaderError: names the key.
        NotKnown: what it takes in its place is not the file's.
    """
    if "rope_theta" in block and block["rope_theta"] is None:
        raise LoaderError("rope_theta is null, which it computes with: TypeError. Leave it out.")
    if not block or rope_type == "default":
        return
    refuse_gaps(block, rope_type)
    row = get_row("transformers-5", model.rope.model_type)
    needs = row.entry.get("requires", ()) if row else ()
    has_original = ORIGINAL in block or model.text.get(ORIGINAL) is not None
    if ORIGINAL in needs and rope_type in HAVE_ORIGINAL and not has_original:
        raise LoaderError(f"{model.rope.model_type} with {rope_type} needs {ORIGINAL}: KeyError.")
    if row and rope_type in HAVE_ORIGINAL and not has_original and _takes_own_length(model, row):
        raise NotKnown(f"{model.rope.model_type} takes an {ORIGINAL} of its own. Add the key.")
    mscales = (block.get("short_mscale"), block.get("long_mscale"))
    if model.family.longrope_scale_key and not all(isinstance(m, int | float) for m in mscales):
        raise LoaderError(
            f"{model.rope.model_type} needs the numbers short_mscale and long_mscale: TypeError."
        )


def _takes_own_length(model: Model, row: Row) -> bool:
    """Whether the original length that is missing becomes another than the file's window.

    So it is where the config class sets the window late, by an alias (bailing_hybrid).
    """
    alias = model.rope.length_key != "max_position_embeddings"
    return alias and row.outcome("yarn no original").startswith("other")


def legacy(
    model: Model, *, type_wins: bool = True, default_theta: float | None = None
) -> dict[str, RopeParameters]:
    """What a loader reads that knows `rope_scaling` and top-level θ only, per scope.

    Args:
        model: the config.
        type_wins: whether `type` beats `rope_type` where they differ.
        default_theta: what it assumes without a θ; by default the family's.

    Raises:
        LoaderError: it does not load the config.
    """
    text = _as_legacy(model.text, model.family, type_wins)
    key = model.family.theta_keys[0]
    if default_theta is not None and text.get(key) is None:
        text = {**text, key: default_theta}
    config = _with_text(model.config, model.text_path, text)
    try:
        rope = read_rope(config, assume_like=model.assume_like, own_code=model.rope.own_code)
    except NotComputedError as error:
        raise NotKnown(str(error)) from error
    except ConfigError as error:
        raise LoaderError(str(error)) from error
    found = {name: scope.parameters for name, scope in rope.scopes.items()}
    theta = text.get(key)
    for rule in model.family.scopes:
        # These readers have one θ for every scope that has no key of its own.
        if rule.name in found and not rule.theta_keys and theta is not None:
            found[rule.name] = replace(found[rule.name], rope_theta=float(theta))
    return found


def with_inner_theta(model: Model, key: str, default: float | None = None) -> Model:
    """The model with the θ that a part of its config has, whatever its own keys say.

    Args:
        model: the config.
        key: the part.
        default: θ where it has none.

    Raises:
        NotKnown: it has none, and there is no default.
    """
    theta = model.block(key).get("rope_theta", default)
    if theta is None:
        raise NotKnown(f"Nobody examined {model.model_type} without {key}.rope_theta.")
    inner = {k: v for k, v in model.block(key).items() if k != "rope_theta"}
    return replace(model, text={**model.text, key: inner, model.family.theta_keys[0]: theta})


def refuse_aliases(model: Model) -> None:
    """Insist on type names that transformers' own model classes know.

    Raises:
        LoaderError: names the one that is unknown.
    """
    for name in model.rope.scopes:
        block = model.winning_block(name)
        said = str(block.get("rope_type") or block.get("type") or "default")
        known = (said == "mrope" and model.rope.mrope) or (
            said == "su" and model.family.yarn_means_longrope
        )
        if said != canonical_rope_type(said) and not known:
            raise LoaderError(f"rope_type {said!r} is not one that transformers knows.")


def is_v5_only(model: Model) -> bool:
    """Whether `rope_parameters` says something that readers of the older spelling miss."""
    block = model.block("rope_parameters")
    if not block or model.block("rope_scaling"):
        return False
    entries = [e for e in block.values() if isinstance(e, Mapping)] or [block]
    scaled = any(e.get("rope_type", e.get("type", "default")) != "default" for e in entries)
    keys = theta_keys(model.family)
    return scaled or all(model.text.get(key) is None for key in keys)


def states_theta(model: Model, scope: str) -> bool:
    """Whether the file says which θ a scope has, in any spelling."""
    rule = next((rule for rule in model.family.scopes if rule.name == scope), None)
    keys = (rule.theta_keys if rule else ()) or model.family.theta_keys
    stated = [model.text.get(key) for key in keys]
    blocks = (model.winning_block(scope), model.block("rope_parameters"))
    return any(value is not None for value in (*stated, *(b.get("rope_theta") for b in blocks)))


def _with_text(
    config: Mapping[str, Any], path: tuple[str, ...], text: Mapping[str, Any]
) -> dict[str, Any]:
    if not path:
        return dict(text)
    return {**config, path[0]: _with_text(config[path[0]], path[1:], text)}


def _as_legacy(text: Mapping[str, Any], family: Family, type_wins: bool) -> dict[str, Any]:
    read = {key for rule in family.scopes for key in rule.theta_keys} or {*family.theta_keys}
    unread = {"rope_parameters"} | ({"rope_theta"} - read)
    found = {k: v for k, v in text.items() if k not in unread}
    scaling = found.get("rope_scaling")
    if isinstance(scaling, Mapping) and scaling:
        ignored = {"rope_theta", "partial_rotary_factor"}
        block = {k: v for k, v in scaling.items() if k not in ignored}
        names = [block.get("type"), block.get("rope_type")]
        name = next((n for n in (names if type_wins else names[::-1]) if n), "default")
        block.pop("type", None)
        found["rope_scaling"] = {**block, "rope_type": name}
        if found.get(ORIGINAL) is not None:
            found.pop(ORIGINAL)  # each reader says itself which of the two it prefers
            found["rope_scaling"].setdefault(ORIGINAL, text[ORIGINAL])
    elif "rope_scaling" in found and family.rope_defaults:
        # An explicit null switches the class's own default off.
        found["rope_scaling"] = {"rope_type": "default"}
    elif family.rope_defaults and found.get("rope_theta") is not None:
        # θ is beside that default, not inside it.
        default = {k: v for k, v in family.rope_defaults.items() if k != "rope_theta"}
        found["rope_scaling"] = default
    return found
