"""A config with all that transformers 5 passes over taken out, so that nothing contradicts.

`read_rope` refuses what two places say differently, and what nobody reads. transformers 5 picks a
winner and goes on: what loses is removed here as `convert_rope_params_to_dict` does it, and
`read_rope` reads the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yarncli.config.families.family import Family, ScopeRule
from yarncli.engines.tables import get_row
from yarncli.engines.types import LoaderError
from yarncli.rope.parameters import HAVE_ORIGINAL, canonical_rope_type

BLOCKS = ("rope_scaling", "rope_parameters")
_ORIGINAL = "original_max_position_embeddings"
_THETA = "rope_theta"


def theta_keys(family: Family) -> set[str]:
    """The top-level keys that θ is read from."""
    return {*family.theta_keys, *(k for rule in family.scopes for k in rule.theta_keys)}


def unread_entries(text: Mapping[str, Any], family: Family) -> str:
    """A note on scaled entries per layer type, which a model with one setting ignores."""
    block = mapping(text.get("rope_scaling")) or mapping(text.get("rope_parameters"))
    found = {k: v for k, v in block.items() if isinstance(v, Mapping)}
    kinds = {str(v.get("rope_type") or v.get("type") or "default") for v in found.values()}
    if family.scopes or not kinds - {"default"}:
        return ""
    return f"reads no {' or '.join(found)} in rope_parameters: the scaling there is lost"


def without_settings(text: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The text part without its RoPE keys, from which only sizes and layers can be read."""
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
    _refuse_as_tried(text, family)
    found = _without_inner_theta(dict(text), family)
    return _nested(found, family) if family.scopes else _flat(found, family)


def _tried(family: Family, probe: str) -> str:
    """The exception of transformers 5 for a probe, if not caused by the probe's small sizes."""
    row = get_row("transformers-5", family.model_type)
    found = row.failure(probe) if row else ""
    return "" if found.startswith("RuntimeError") else found


def _refuse_as_tried(text: Mapping[str, Any], family: Family) -> None:
    """Refuse what single config classes fail on where the file gives no setting, or a null one.

    Raises:
        LoaderError: it is such a class.
    """
    for key in BLOCKS:
        if text.get(key) and not isinstance(text[key], Mapping):
            raise LoaderError(f"{key} is {text[key]!r:.40}; it must be a JSON object.")
    theta = text.get(_THETA)
    plain = "no theta" if theta is None or isinstance(theta, list) else "default legacy"
    has_block = bool(mapping(text.get("rope_parameters")))
    error = "" if has_block or text.get("rope_scaling") else _tried(family, plain)
    if error:
        raise LoaderError(f"Its config class does not load without rope_parameters: {error}.")
    if "rope_scaling" not in text or text["rope_scaling"]:
        return
    # Classes that do not take `rope_scaling` get it as another name of `rope_parameters`.
    error = _tried(family, "rope_scaling " + ("null" if text["rope_scaling"] is None else "empty"))
    if error and not _tried(family, "default legacy"):
        raise LoaderError(f"The empty rope_scaling overwrites rope_parameters: {error}. Remove it.")


def _without_entries(found: Mapping[str, Any], block: Any, family: Family) -> dict[str, Any]:
    """The block of a model with one setting, without entries per layer type, which nobody reads.

    Raises:
        LoaderError: its rotary class is given such an entry for the whole block.
    """
    entries = [key for key, value in block.items() if isinstance(value, Mapping)]
    if not entries:
        return dict(block)
    listed = found.get("layer_types")
    is_taken = isinstance(listed, list) and any(key in listed for key in entries)
    if is_taken or (not isinstance(listed, list) and _tried(family, "yarn turned")):
        raise LoaderError(
            f"rope_parameters has one entry per layer type; a {family.model_type} model has one "
            "RoPE setting for all layers: KeyError."
        )
    return {k: v for k, v in block.items() if k not in entries} or {"rope_type": "default"}


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
    block = _one_type(_without_entries(found, block, family))
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
    row = get_row("transformers-5", family.model_type)
    wins = row.entry.get("wins") if row else None
    if is_flat and (wins == "rope_parameters" or family.spelling == "both"):
        if scaling and family.fills_scopes:
            raise LoaderError("rope_parameters has no entry per layer type: KeyError.")
        del found["rope_parameters"]
        parameters = None
    if wins == "rope_parameters" and mapping(parameters):
        found.pop("rope_scaling", None)
        scaling = None
    if family.flat_parameters:
        _fold(found, family)
        return _without_lost_thetas(found, family)
    if not any(rule.takes_flat for rule in family.scopes) and (scaling or is_flat):
        return _spread(found, family)
    if isinstance(scaling, Mapping) and scaling:
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


def _spread(found: dict[str, Any], family: Family) -> dict[str, Any]:
    """dots3_note gives all its scopes the flat dict and the one θ; others need an entry for each.

    Raises:
        LoaderError: it is one of the others, or there are both spellings.
    """
    scaling, parameters = mapping(found.pop("rope_scaling", None)), found.get("rope_parameters")
    if (scaling and parameters) or _tried(family, "yarn turned"):
        raise LoaderError(
            "rope_parameters is flat, or a flat rope_scaling replaces it; a "
            f"{family.model_type} model needs one entry per layer type: KeyError."
        )
    theta = {_THETA: found.get(_THETA) or family.rope_theta}
    entry = _one_type({**theta, **(scaling or mapping(parameters))})
    found["rope_parameters"] = {rule.name: entry for rule in family.scopes}
    return _without_lost_thetas(found, family)


def _fold(found: dict[str, Any], family: Family) -> None:
    """DeepSeek-V4 folds a flat dict of either spelling into one scope, and takes no θ from it."""
    parameters = mapping(found.pop("rope_parameters", None))
    flat = mapping(found.pop("rope_scaling", None)) or parameters
    names = {rule.name for rule in family.scopes}
    if names <= {*flat}:
        found["rope_parameters"] = _entries(found, flat, family)
    elif flat:
        kept = {k: v for k, v in flat.items() if k not in {_THETA, *names}}
        found["rope_scaling"] = _one_type(kept)


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
