"""Rules on how a RoPE setting is spelled: two dicts, two places for θ, two names for the method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from yarncli.errors import CheckpointError
from yarncli.jsontext.text import Path, format_path
from yarncli.rope.parameters import canonical_rope_type
from yarncli.rules.config_view import Block, ConfigView, finite
from yarncli.rules.finding import Edit, Finding

_TYPE_KEYS = ("rope_type", "type")
_ORIGINAL = "original_max_position_embeddings"


def spelling_conflict(view: ConfigView) -> Iterator[Finding]:
    """The two dicts say different things."""
    legacy, v5 = view.legacy(), _counterpart(view)
    if legacy is None or v5 is None:
        return
    if legacy.rope_type != v5.rope_type:
        yield _conflict(view, legacy, v5, "rope_type", legacy.rope_type, v5.rope_type)
    keys = [*legacy.values, *(key for key in v5.values if key not in legacy.values)]
    for key in keys:
        if key in _TYPE_KEYS or key == "rope_theta":
            continue
        one, other = (_value(view, block, key) for block in (legacy, v5))
        if not _equal(one, other):
            yield _conflict(view, legacy, v5, key, one, other)


def _conflict(
    view: ConfigView, legacy: Block, v5: Block, key: str, one: Any, other: Any
) -> Finding:
    message = (
        f"{format_path(legacy.path)} has {key} {_shown(one)}, "
        f"{format_path(v5.path)} has {_shown(other)}."
    )
    path = (*legacy.path, key)
    return view.finding("spelling-conflict", path, message)


def _counterpart(view: ConfigView) -> Block | None:
    """The dict of `rope_parameters` that a flat `rope_scaling` is merged into, or stands for."""
    if view.family is None or not view.family.scopes:
        return next((b for b in view.v5() if b.scope is None), None)
    flat = {rule.name for rule in view.family.scopes if rule.takes_flat}
    return next((b for b in view.v5() if b.scope in flat), None)


def _value(view: ConfigView, block: Block, key: str) -> Any:
    found = block.values.get(key)
    if found is None and key == "partial_rotary_factor" and view.family:
        return next((v for k in view.family.partial_keys if (v := view.top(k))), 1)
    if found is None and key == "original_max_position_embeddings":
        return view.top(key)
    return found


def v5_only(view: ConfigView) -> Iterator[Finding]:
    """Some engines read neither this θ nor this scaling."""
    blocks = view.v5()
    if not blocks or view.family is None or view.legacy():
        return
    if view.family.spelling == "nested" or view.family.transformers_since == "5":
        return  # transformers 4 does not know the model type, so it cannot misread it
    lost = [block for block in blocks if _is_lost(view, block)]
    if not lost:
        return
    readers = _misreaders(view)
    if not readers:
        return
    flat = blocks[0].scope is None
    yield view.finding(
        "v5-only",
        lost[0].path,
        f"The setting is only in rope_parameters; {' and '.join(readers)} "
        f"{_without(view, lost[0], one=len(readers) == 1)}.",
        edit=_legacy_edit(view, blocks[0]) if flat else None,
    )


def _misreaders(view: ConfigView) -> list[str]:
    """Which readers of the older spelling miss what `rope_parameters` says, by their own rules."""
    from yarncli.engines.judgement import judge

    engines = {"transformers-4.57": "transformers 4", "mlx-lm": "mlx-lm"}
    try:
        judged = judge(view.text.value, engines=("transformers-5", *engines), launch=False)
    except CheckpointError:
        return list(engines.values())
    meant, *found = judged.verdicts
    if not meant.has_reading:
        return list(engines.values())
    return [engines[v.engine.id] for v in found if v.status in ("ignores", "differs")]


def _is_lost(view: ConfigView, block: Block) -> bool:
    """Whether something in the block differs from what a reader without it assumes."""
    assert view.family is not None
    if block.rope_type not in (None, "default"):
        return True
    theta = block.number("rope_theta")
    rules = {rule.name: rule for rule in view.family.scopes}
    rule = rules.get(block.scope or "")
    keys = rule.theta_keys if rule else view.family.theta_keys
    if any(view.top(key) is not None for key in keys):
        return False
    return theta is not None and theta != (rule or view.family).rope_theta


def _without(view: ConfigView, block: Block, *, one: bool) -> str:
    """What readers that miss the block do; `one` for a single reader."""
    assert view.family is not None
    rule = next((rule for rule in view.family.scopes if rule.name == block.scope), None)
    keys = rule.theta_keys if rule else view.family.theta_keys
    said = any(view.top(key) is not None for key in keys)
    unscaled = block.rope_type not in (None, "default")
    s, do = ("s", "does") if one else ("", "do")
    theta = "" if said else f"use{s} {(rule or view.family).rope_theta:g} as rope_theta"
    lost = filter(None, (theta, f"use{s} no scaling" if unscaled else ""))
    return " and ".join((f"{do} not read it", *lost))


def _legacy_edit(view: ConfigView, block: Block) -> Edit:
    """The same setting as `rope_theta` and `rope_scaling`."""
    from yarncli.planning.writing import NEEDS_TYPE

    assert view.family is not None
    changes: dict[Path, Any] = {}
    theta_key, partial_key = view.family.theta_keys[0], view.family.partial_keys[0]
    if block.values.get("rope_theta") is not None and view.top(theta_key) is None:
        changes[(*view.base, theta_key)] = block.values["rope_theta"]
    partial = block.values.get("partial_rotary_factor")
    if partial is not None and all(view.top(k) is None for k in view.family.partial_keys):
        changes[(*view.base, partial_key)] = partial
    scaling = {key: value for key, value in block.values.items() if key != "rope_theta"}
    if block.rope_type in NEEDS_TYPE:
        scaling.setdefault("type", block.rope_type)
    said_elsewhere = {"rope_type", "type", "partial_rotary_factor"}
    if block.rope_type not in (None, "default") or scaling.keys() - said_elsewhere:
        changes[(*view.base, "rope_scaling")] = scaling
    return Edit(changes)


def legacy_only(view: ConfigView) -> Iterator[Finding]:
    """A scaling in the old spelling alone: read everywhere today."""
    legacy = view.legacy() if view.family else None
    if legacy and not view.v5() and legacy.rope_type not in (None, "default"):
        yield view.finding(
            "legacy-only",
            legacy.path,
            "The scaling is spelled only as rope_scaling, the older of the two spellings.",
        )


def theta_conflict(view: ConfigView) -> Iterator[Finding]:
    """θ at top level and inside a dict differ."""
    if view.family is None:
        return
    rules = {rule.name: rule for rule in view.family.scopes}
    for block in view.blocks:
        inside = block.number("rope_theta")
        keys = view.family.theta_keys
        if rules:
            flat = [rule.name for rule in view.family.scopes if rule.takes_flat]
            scope = block.scope or (flat[0] if flat else "")
            keys = rules[scope].theta_keys if scope in rules else ()
        for key in keys:
            top = finite(view.top(key))
            if inside is not None and top is not None and top != inside:
                yield view.finding(
                    "theta-conflict",
                    (*block.path, "rope_theta"),
                    f"{format_path(block.path)} has rope_theta {inside:g}, "
                    f"{format_path((*view.base, key))} is {top:g}.",
                )
    flat_blocks = [b for b in view.blocks if b.scope is None]
    thetas = [t for b in flat_blocks if (t := b.number("rope_theta")) is not None]
    tops = [view.top(key) for key in view.family.theta_keys]
    if len(thetas) == 2 and thetas[0] != thetas[1] and not any(tops):
        yield view.finding(
            "theta-conflict",
            (*flat_blocks[0].path, "rope_theta"),
            f"rope_scaling has rope_theta {thetas[0]:g}, rope_parameters {thetas[1]:g}.",
        )


def theta_lost(view: ConfigView) -> Iterator[Finding]:
    """`rope_scaling` replaces the dict that alone has θ."""
    legacy = view.legacy()
    v5 = next((b for b in view.v5() if b.scope is None), None)
    if legacy is None or v5 is None or view.family is None or view.family.scopes:
        return
    theta = v5.number("rope_theta")
    if theta is None or legacy.number("rope_theta") is not None:
        return
    if any(view.top(key) is not None for key in view.family.theta_keys):
        return
    if theta != view.family.rope_theta:
        key = view.family.theta_keys[0]
        yield view.finding(
            "theta-lost",
            (*v5.path, "rope_theta"),
            f"rope_theta {theta:g} is only in rope_parameters, which rope_scaling replaces, so "
            f"{view.family.rope_theta:g} is used.",
            edit=Edit({(*view.base, key): v5.values["rope_theta"]}),
        )


def copy_differs(view: ConfigView) -> Iterator[Finding]:
    """A multimodal config repeats a field of its text part at the root, with another value."""
    if not view.base or view.family is None:
        return
    for key in (*view.family.theta_keys, "rope_scaling", "rope_parameters", view.length_key):
        root, text = view.text.get((key,)), view.top(key)
        if root is not None and text is not None and not _equal(root, text):
            yield view.finding(
                "copy-differs",
                (key,),
                f"{key} is {_shown(root)} here and {_shown(text)} in {format_path(view.base)}.",
            )


def type_conflict(view: ConfigView) -> Iterator[Finding]:
    """`type` and `rope_type` differ after old names are replaced."""
    for block in view.blocks:
        named = [block.values.get(key) for key in _TYPE_KEYS]
        if all(isinstance(name, str) for name in named):
            one, other = (canonical_rope_type(str(name)) for name in named)
            if one != other:
                yield view.finding(
                    "type-conflict",
                    (*block.path, "type"),
                    f"{format_path(block.path)} has rope_type {named[0]!r} and type {named[1]!r}.",
                )


def type_missing(view: ConfigView) -> Iterator[Finding]:
    """A scaling without its method, or a factor where no scaling dict is."""
    for block in view.blocks:
        if block.rope_type is None and "factor" in block.values:
            yield view.finding(
                "type-missing",
                block.path,
                f"{format_path(block.path)} has a factor but neither rope_type nor type, so "
                "transformers 5 uses no scaling.",
            )


def type_old(view: ConfigView) -> Iterator[Finding]:
    """The old name of longrope, at which some engines stop."""
    for block in view.blocks if view.family else ():
        old = [key for key in _TYPE_KEYS if block.values.get(key) == "su"]
        if not old or (block.values.get("rope_type") or "su") != "su":
            continue
        inside, top = block.values.get(_ORIGINAL), view.top(_ORIGINAL)
        changes: dict[Path, Any] = {(*block.path, key): "longrope" for key in old}
        if inside is None and top is not None:
            changes[(*block.path, _ORIGINAL)] = top
        elif inside is not None and top is None and block.spelling == "legacy":
            changes[(*view.base, _ORIGINAL)] = inside
        # Only Phi's config classes accept the old name; they read the length in the dict only.
        loads = inside is not None and view.family is not None and view.family.yarn_means_longrope
        stops = "SGLang stops" if loads else "transformers 5 and SGLang stop"
        yield view.finding(
            "type-old",
            (*block.path, old[0]),
            f"{format_path((*block.path, old[0]))} is 'su', the old name of longrope; {stops} "
            "at it. Write longrope.",
            severity="warning" if loads else "error",
            edit=Edit(changes),
        )


def theta_missing(view: ConfigView) -> Iterator[Finding]:
    """No place states θ, so that each reader takes a default."""
    if view.rope is None or view.family is None:
        return
    block = next((b for b in view.blocks if _lacks_theta(view, b)), None)
    if block is None:
        return
    from yarncli.engines.assumed import assumed_thetas
    from yarncli.engines.loaders import read_model

    scope = next((n for n in (block.scope, *view.rope.scopes) if n in view.rope.scopes), "model")
    try:
        taken = assumed_thetas(read_model(view.text.value), scope)
    except CheckpointError:
        taken = {}
    # Old files may leave out a θ that is every reader's default.
    if block.spelling == "legacy" and len(taken) < 2:
        return
    told = "; ".join(f"{', '.join(names)} {does}" for does, names in taken.items())
    yield view.finding(
        "theta-missing",
        block.path,
        f"rope_theta is stated nowhere{f': {told}' if told else ''}. Write the one that the model "
        f"was trained with into {format_path(block.path)}.",
    )


def _lacks_theta(view: ConfigView, block: Block) -> bool:
    assert view.family is not None
    rules = {rule.name: rule for rule in view.family.scopes}
    flat = next((rule for rule in view.family.scopes if rule.takes_flat), None)
    rule = rules.get(block.scope or "", flat)
    keys = {*(rule.theta_keys if rule else ()), *view.family.theta_keys, "rope_theta"}
    others = [b for b in view.blocks if b.scope in (None, block.scope)]
    return not any(view.top(key) is not None for key in keys) and not any(
        b.values.get("rope_theta") is not None for b in others
    )


def nested_truncate(view: ConfigView) -> Iterator[Finding]:
    """transformers 5 reads `truncate` beside the scopes, not inside them."""
    for block in view.v5():
        if block.scope is not None and block.values.get("truncate") is False:
            yield view.finding(
                "nested-truncate",
                (*block.path, "truncate"),
                f"transformers 5 ignores truncate inside {format_path(block.path)}; vLLM and "
                "SGLang use it.",
            )


def _equal(one: Any, other: Any) -> bool:
    """Equal as JSON values: 4 is 4.0, and dicts that differ in the name of the method are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "{…}" if isinstance(value, dict) else f"a list of {len(value)}"
    if finite(value) is None and not isinstance(value, (str, bool, type(None))):
        return "a number out of range"
    text = "absent" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


SPELLING_RULES = (
    spelling_conflict,
    v5_only,
    legacy_only,
    theta_conflict,
    theta_lost,
    copy_differs,
    type_conflict,
    type_missing,
    type_old,
    theta_missing,
    nested_truncate,
)
