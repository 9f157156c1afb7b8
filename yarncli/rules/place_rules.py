"""Rules on RoPE settings that stand where no model reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from yarncli.config.outer import DeadBlock, dead_blocks, dead_levels
from yarncli.jsontext.text import Path, format_path
from yarncli.rope.parameters import canonical_rope_type
from yarncli.rules.config_view import BLOCK_KEYS, ConfigView, finite, whole
from yarncli.rules.finding import Edit, Finding

_TYPE_KEYS = ("rope_type", "type")
_PLAIN = (None, "default", "mrope")


def unread_block(view: ConfigView) -> Iterator[Finding]:
    """A RoPE dict beside the text part, or in a sub-config that is not the text part."""
    base = _text_path(view)
    for dead in dead_blocks(view.text.value, base):
        fault = _fault(dead) if view.family and dead.encloses else ""
        if not fault and (_is_known(view, dead) or not (dead.scales or _new_theta(view, dead))):
            continue
        where, inside = format_path(dead.path), format_path(base) or "the top level"
        if view.family is None:
            told = f"only the code of the model knows whether anything reads {where} there"
        elif fault:
            told = f"transformers 5 and vLLM stop at {where} ({fault})"
        else:
            told = f"{where} is ignored"
        yield view.finding(
            "unread-block",
            dead.path,
            f"The text model reads {inside}; {told}. Move it into {inside}, or remove it.",
            severity="error" if fault else "warning",
            edit=_move(view, dead) if view.family else None,
        )


def unread_value(view: ConfigView) -> Iterator[Finding]:
    """θ or a window beside a text part that states none."""
    if view.family is None or not view.base or view.refused:
        return
    said_theta = any("rope_theta" in block.values for block in view.blocks)
    keys = dict.fromkeys((*view.family.theta_keys, "rope_theta"))
    silent = not said_theta and all(view.top(key) is None for key in keys)
    thetas = {view.family.rope_theta, *(rule.rope_theta for rule in view.family.scopes)}
    for path, level in dead_levels(view.text.value, _text_path(view)):
        found = [k for k in keys if silent and finite(level.get(k)) not in (None, *thetas)]
        maximum = whole(level.get(view.length_key))
        if view.top(view.length_key) is None and maximum not in (None, view.maximum):
            found.append(view.length_key)
        for key in found:
            inside = format_path(view.base)
            yield view.finding(
                "unread-block",
                (*path, key),
                f"The text model reads {inside}, which states no {key}; "
                f"{format_path((*path, key))} is ignored. Move it into {inside}, or remove it.",
                severity="warning",
            )


def _text_path(view: ConfigView) -> tuple[str, ...]:
    """Where the text part is, or would be if a wrapper had it."""
    family = view.family
    if family and family.is_wrapper:
        return (family.names.get("text_config", family.text_key),)
    return tuple(str(key) for key in view.base)


def _fault(dead: DeadBlock) -> str:
    from yarncli.engines.outer import outer_fault

    return outer_fault(dead.beside, dead.path[-1])


def _new_theta(view: ConfigView, dead: DeadBlock) -> bool:
    """Whether a plain block states a θ that the text part does not have."""
    theta = finite(dead.values.get("rope_theta"))
    rope = view.rope
    used = {scope.parameters.rope_theta for scope in rope.scopes.values()} if rope else set()
    return theta is not None and theta not in used


def _is_known(view: ConfigView, dead: DeadBlock) -> bool:
    """Whether the text part says all that the block says, so that it is a mere copy."""
    return any(_says(block.values, dead.values) for block in view.blocks)


def _says(block: Mapping[str, Any], dead: Mapping[str, Any]) -> bool:
    said = {k: v for k, v in dead.items() if k not in _TYPE_KEYS}
    same = all(k in block and block[k] == v for k, v in said.items())
    return same and _type(block) == _type(dead)


def _type(block: Mapping[str, Any]) -> str:
    return canonical_rope_type(str(block.get("rope_type") or block.get("type") or "default"))


def _move(view: ConfigView, dead: DeadBlock) -> Edit | None:
    """Move the block to where it is read; None where that would decide something for the user."""
    family, gone = view.family, (dead.path,)
    if _is_known(view, dead):
        return Edit({}, gone)
    if family is None or family.is_wrapper or not dead.scales:
        return None
    values = dict(dead.values)
    if type(values.get("factor")) is int and whole(values["factor"]):
        values["factor"] = float(values["factor"])
    here = {key: view.top(key) for key in BLOCK_KEYS if isinstance(view.top(key), dict)}
    here = {key: block for key, block in here.items() if block}
    if family.scopes:
        flat = dead.path[-1] == "rope_scaling" and family.spelling == "both" and not here
        takes = any(rule.takes_flat for rule in family.scopes)
        return Edit({(*view.base, "rope_scaling"): values}, gone) if flat and takes else None
    if any(b.get("rope_type") or b.get("type") for b in here.values() if _type(b) not in _PLAIN):
        return None
    theta = finite(values.get("rope_theta"))
    rope = view.rope
    if rope and theta is not None and theta != rope.scopes["model"].parameters.rope_theta:
        return None
    changes: dict[Path, Any] = {}
    for key, block in (here or {dead.path[-1]: {}}).items():
        kept = {k: v for k, v in block.items() if k not in _TYPE_KEYS}
        changes[(*view.base, key)] = {**kept, **values}
    return Edit(changes, gone)


PLACE_RULES = (unread_block, unread_value)
