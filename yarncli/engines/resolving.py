"""A config with all that transformers 5 passes over taken out, so that nothing contradicts.

`read_rope` refuses what two places say differently, and what nobody reads. transformers 5 picks a
winner and goes on: what loses is removed here as `convert_rope_params_to_dict` does it, and
`read_rope` reads the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yarncli.config.families.family import Family, ScopeRule
from yarncli.engines.types import LoaderError
from yarncli.rope.parameters import HAVE_ORIGINAL, canonical_rope_type

BLOCKS = ("rope_scaling", "rope_parameters")
_ORIGINAL = "original_max_position_embeddings"
_THETA = "rope_theta"


def theta_keys(family: Family) -> set[str]:
    """The top-level keys that θ is read from."""
    return {*family.theta_keys, *(k for rule in family.scopes for k in rule.theta_keys)}


def without_settings(text: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The text part without all that says how it rotates: good for sizes and layers."""
    said = {*BLOCKS, _ORIGINAL, _THETA, *theta_keys(family)}
    return _without_inner_theta({k: v for k, v in text.items() if k not in said}, family)


def as_version_5(text: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The text part with what transformers 5 reads of it only.

    Args:
        text: the text part of a config.
        family: what is known about its model type.

    Raises:
        LoaderError: its config class fails on it.

    Source: transformers 5.23 `modeling_rope_utils.py` (775-866), and the methods of that name in
        `models/*/configuration_*.py`.
    """
    found = _without_inner_theta(dict(text), family)
    return _nested(found, family) if family.scopes else _flat(found, family)


def _flat(found: dict[str, Any], family: Family) -> dict[str, Any]:
    scaling = mapping(found.pop("rope_scaling", None))
    if family.spelling == "nested":
        scaling = {}
    key, block = "rope_scaling", scaling
    if not block:
        key, block = "rope_parameters", mapping(found.get("rope_parameters"))
    found.pop("rope_parameters", None)
    if not block and found.get(_ORIGINAL) is not None:
        key, block = "rope_parameters", family.rope_defaults
    if not family.layer_rule and "layer_types" not in found:
        # One entry per layer type is a key that nobody asks for.
        flat = {k: v for k, v in block.items() if not isinstance(v, Mapping)}
        block = flat if flat or not block else {"rope_type": "default"}
    block = _one_type(block)
    kind = canonical_rope_type(str(block.get("rope_type") or block.get("type")))
    if found.get(_ORIGINAL) is not None and kind in HAVE_ORIGINAL:
        block.pop(_ORIGINAL, None)
    if block:
        found[key] = block
    unread = {_THETA} - {*family.theta_keys}
    if _THETA in (block or family.rope_defaults):
        unread |= {*family.theta_keys}
    return {k: v for k, v in found.items() if k not in unread}


def _nested(found: dict[str, Any], family: Family) -> dict[str, Any]:
    scaling, parameters = found.get("rope_scaling"), found.get("rope_parameters")
    names = {rule.name for rule in family.scopes}
    is_flat = isinstance(parameters, Mapping) and bool(parameters) and not names & {*parameters}
    if is_flat and family.fills_scopes and family.spelling == "both":
        if scaling:
            raise LoaderError("rope_parameters has no entry per layer type: KeyError.")
        del found["rope_parameters"]
        parameters = None
    if isinstance(scaling, Mapping) and scaling:
        if not any(rule.takes_flat for rule in family.scopes):
            raise LoaderError(
                "rope_scaling replaces rope_parameters, and has no entry per layer type: KeyError."
            )
        if family.fills_scopes and "rope_type" not in scaling:
            # Gemma 3 merges the dict into one that says rope_type "default".
            scaling = {k: v for k, v in scaling.items() if k != "type"}
        if isinstance(parameters, Mapping):
            del found["rope_scaling"]
            takers = [rule.name for rule in family.scopes if rule.takes_flat]
            merged = {name: {**mapping(parameters.get(name)), **scaling} for name in takers}
            parameters = {**parameters, **merged}
        else:
            found["rope_scaling"] = _one_type(scaling)
    if isinstance(parameters, Mapping):
        found["rope_parameters"] = _entries(found, parameters, family)
    return _without_lost_thetas(found, family)


def _entries(
    found: Mapping[str, Any], parameters: Mapping[str, Any], family: Family
) -> dict[str, Any]:
    """The entries of a nested dict, each with one type and, where some place gives one, its θ."""
    entries = {k: _one_type(v) if isinstance(v, Mapping) else v for k, v in parameters.items()}
    for rule in family.scopes:
        entry, theta = entries.get(rule.name), _top_theta(found, rule)
        if isinstance(entry, dict) and theta is not None:
            entry.setdefault(_THETA, theta)
    return entries


def _top_theta(found: Mapping[str, Any], rule: ScopeRule) -> Any:
    stated = (found.get(key) for key in rule.theta_keys)
    return next((t for t in stated if t is not None and not isinstance(t, list)), None)


def _without_lost_thetas(found: dict[str, Any], family: Family) -> dict[str, Any]:
    entries = mapping(found.get("rope_parameters"))
    flat = mapping(found.get("rope_scaling"))
    read = set()
    for rule in family.scopes:
        block = flat if flat and rule.takes_flat else mapping(entries.get(rule.name))
        if _THETA not in block:
            read |= {*rule.theta_keys}
    is_list = isinstance(found.get(_THETA), list)
    kept = {_THETA} if is_list and family.theta_list else set()
    unread = {_THETA, *theta_keys(family)} - read - kept
    return {k: v for k, v in found.items() if k not in unread}


def _without_inner_theta(found: dict[str, Any], family: Family) -> dict[str, Any]:
    """DBRX keeps a θ in `attn_config` that transformers does not read."""
    inner = found.get(family.attention_key) if family.attention_key else None
    if isinstance(inner, Mapping):
        found[family.attention_key] = {k: v for k, v in inner.items() if k != _THETA}
    return found


def _one_type(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block with one name of its type: transformers 5 prefers `rope_type`."""
    if block.get("rope_type") and block.get("type"):
        return {k: v for k, v in block.items() if k != "type"}
    return dict(block)


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a JSON object, else an empty one."""
    return value if isinstance(value, Mapping) else {}
