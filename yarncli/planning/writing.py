"""RopePlan → config.json: writes both spellings from one object, and changes nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from yarncli.config.outer import dead_blocks
from yarncli.config.reading import RopeConfig
from yarncli.errors import UnsupportedArchitectureError
from yarncli.jsontext.text import JsonText, Path
from yarncli.planning.lengths import follow_maximum
from yarncli.planning.rope_plan import RopePlan
from yarncli.planning.sliding import window_value
from yarncli.rope.parameters import RopeParameters

Spelling = Literal["both", "legacy", "v5"]

# Engines that read only the old name `type` (exllamav2, mlx-lm's phi3, Ollama) know these types;
# llama3 has always been spelled `rope_type`, and exllamav2 refuses a llama3 dict that has both.
NEEDS_TYPE = frozenset({"yarn", "linear", "dynamic", "longrope"})

# The betas of yarn if none are given (transformers `_compute_yarn_parameters`).
DEFAULT_BETAS: Mapping[str, float] = {"beta_fast": 32.0, "beta_slow": 1.0}

# The keys of a scaling dict, in the order in which a person would write them.
_ORDER = (
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "beta_fast",
    "beta_slow",
    "truncate",
    "attention_factor",
    "mscale",
    "mscale_all_dim",
    "short_factor",
    "long_factor",
)


def rope_dict(parameters: RopeParameters) -> dict[str, Any]:
    """One setting as a scaling dict without θ: floats as floats, lengths as ints.

    It always has `rope_type`, and an equal `type` if some engine reads only that.
    """
    found: dict[str, Any] = {"rope_type": parameters.rope_type}
    if parameters.rope_type in NEEDS_TYPE:
        found["type"] = parameters.rope_type
    for name in _ORDER:
        value = getattr(parameters, name)
        if isinstance(value, tuple):
            found[name] = [float(item) for item in value]
        elif isinstance(value, (bool, int)) or name == "original_max_position_embeddings":
            found[name] = value
        elif value is not None:
            found[name] = float(value)
    carried = {k: v for k, v in parameters.extra.items() if k not in ("rope_type", "type")}
    return {k: v for k, v in found.items() if v is not None} | carried


def write_config(
    config: JsonText, rope: RopeConfig, plan: RopePlan, spelling: Spelling = "both"
) -> JsonText:
    """config.json with the plan and every length field written into it."""
    written = write_rope(config, rope, plan, spelling)
    return follow_maximum(
        written,
        rope.text_path,
        rope.length_key,
        before=rope.max_position_embeddings,
        maximum=plan.max_position_embeddings,
    )


def write_rope(
    config: JsonText, rope: RopeConfig, plan: RopePlan, spelling: Spelling = "both"
) -> JsonText:
    """The config with the plan's RoPE block and `max_position_embeddings` written into it.

    Args:
        config: config.json as read.
        rope: the same config, interpreted.
        plan: the plan to write.
        spelling: which of the two spellings to write. A family that a flat `rope_scaling` would
            break always gets the nested spelling; "legacy" is refused for it.

    Raises:
        UnsupportedArchitectureError: "legacy" was asked for such a family.
    """
    base = rope.text_path
    plan = _with_stated_betas(config, rope, plan)
    changes: dict[Path, Any] = {}
    removals: list[Path] = []
    nested_only = rope.family.spelling == "nested"
    if nested_only and spelling == "legacy":
        raise UnsupportedArchitectureError(
            f"{rope.model_type} keeps one RoPE setting per layer type; a flat rope_scaling would "
            "break the settings of the other layers or scale them. Use --spelling v5."
        )
    if spelling != "v5" and not nested_only:
        changes |= _legacy(config, rope, plan)
    else:
        # Without rope_scaling, θ lives in rope_parameters; a second one at top level would only
        # contradict it.
        keys = {key for rule in rope.family.scopes for key in rule.theta_keys}
        keys |= {"rope_scaling", *rope.family.theta_keys}
        removals += [(*base, key) for key in sorted(keys)]
    if spelling == "legacy":
        removals += [(*base, "rope_parameters")]
    else:
        changes |= _v5(config, rope, plan)
    changes[(*base, rope.length_key)] = plan.max_position_embeddings
    changes |= _top_level_original(config, rope, plan)
    changes |= _null_head_dim(config, rope)
    if plan.sliding_window is not None:
        changes[(*base, rope.family.window_key)] = window_value(plan.sliding_window)
    changes |= _copies_at_root(config, rope, changes)
    return config.edited(changes, removals)


def _with_stated_betas(config: JsonText, rope: RopeConfig, plan: RopePlan) -> RopePlan:
    """The plan with yarn's default betas written out, if the model writes betas now.

    Some engines require the keys: vLLM's gpt-oss fails at start-up without them.
    """
    blocks = [config.get((*rope.text_path, key)) for key in ("rope_scaling", "rope_parameters")]
    stated: set[str] = set()
    for block in (rope.family.rope_defaults, *blocks):
        entries = block.values() if isinstance(block, Mapping) else ()
        for each in (block, *entries):
            stated |= each.keys() & DEFAULT_BETAS.keys() if isinstance(each, Mapping) else set()
    return replace(
        plan, scopes=tuple(replace(s, after=with_betas(s.after, stated)) for s in plan.scopes)
    )


def with_betas(parameters: RopeParameters, keys: Collection[str]) -> RopeParameters:
    """A yarn setting with the default betas of `keys` written out; other settings as given."""
    if parameters.rope_type != "yarn":
        return parameters
    missing: dict[str, Any] = {k: DEFAULT_BETAS[k] for k in keys if getattr(parameters, k) is None}
    return replace(parameters, **missing) if missing else parameters


def _theta(config: JsonText, rope: RopeConfig, parameters: RopeParameters) -> int | float:
    """θ as the config spells it (often an integer), if its value does not change."""
    base = rope.text_path
    places: list[Path] = [(*base, key) for key in rope.family.theta_keys]
    places += [(*base, "rope_scaling", "rope_theta"), (*base, "rope_parameters", "rope_theta")]
    for path in places:
        found = config.get(path)
        if type(found) in (int, float) and found == parameters.rope_theta:
            return found  # type: ignore[no-any-return]
    return parameters.rope_theta


def _legacy(config: JsonText, rope: RopeConfig, plan: RopePlan) -> dict[Path, Any]:
    """`rope_scaling` and top-level θ.

    A flat `rope_scaling` replaces `rope_parameters` when transformers 5 loads the config, so
    everything that only `rope_parameters` held must be in it.
    """
    base = rope.text_path
    parameters = plan.scopes[0].after
    theta_key = rope.family.theta_keys[0]
    changes: dict[Path, Any] = {(*base, theta_key): _theta(config, rope, parameters)}
    block = rope_dict(parameters)
    partial_key = _partial_key(config, rope)
    if parameters.partial_rotary_factor != 1.0:
        changes[(*base, partial_key)] = parameters.partial_rotary_factor
        block["partial_rotary_factor"] = parameters.partial_rotary_factor
    path = (*base, "rope_scaling")
    present = config.get(path, _ABSENT)
    if parameters.rope_type == "default" and not parameters.extra:
        return changes if present is _ABSENT else changes | {path: None}
    if parameters.rope_type == "default" and config.get((*path, "type")) == "mrope":
        del block["rope_type"]  # older engines look for the word "mrope"
        block["type"] = "mrope"
    return changes | {path: block}


def _v5(config: JsonText, rope: RopeConfig, plan: RopePlan) -> dict[Path, Any]:
    """`rope_parameters`: flat, or one entry per scope; scopes without a plan keep their entry."""
    path = (*rope.text_path, "rope_parameters")
    after = {scope.name: scope.after for scope in plan.scopes}
    if not rope.family.scopes:
        return {path: _v5_dict(config, rope, plan.scopes[0].after)}
    present = config.get(path)
    blocks: dict[str, Any] = dict(present) if isinstance(present, dict) else {}
    for name, scope in rope.scopes.items():
        if name in after:
            blocks[name] = _v5_dict(config, rope, after[name])
        elif name not in blocks:
            blocks[name] = _v5_dict(config, rope, scope.parameters)
    return {path: {k: v for k, v in blocks.items() if k in rope.scopes or v is None}}


def _v5_dict(config: JsonText, rope: RopeConfig, parameters: RopeParameters) -> dict[str, Any]:
    block = rope_dict(parameters) | {"rope_theta": _theta(config, rope, parameters)}
    if parameters.partial_rotary_factor != 1.0:
        block["partial_rotary_factor"] = parameters.partial_rotary_factor
    return block


def _partial_key(config: JsonText, rope: RopeConfig) -> str:
    """The name under which this config spells the partial rotary factor at top level."""
    for key in rope.family.partial_keys:
        if config.get((*rope.text_path, key)) is not None:
            return key
    return rope.family.partial_keys[0]


def _top_level_original(config: JsonText, rope: RopeConfig, plan: RopePlan) -> dict[Path, Any]:
    """Top-level `original_max_position_embeddings`: written for longrope, or if it is there.

    transformers 4 reads it only there for longrope, and TensorRT-LLM prefers it to the value in
    the dict, so an old value must not stay.
    """
    path = (*rope.text_path, "original_max_position_embeddings")
    after = plan.scopes[0].after
    original = after.original_max_position_embeddings
    if original is None or (after.rope_type != "longrope" and config.get(path) is None):
        return {}
    return {path: original}


def _null_head_dim(config: JsonText, rope: RopeConfig) -> dict[Path, Any]:
    """`head_dim`, if the scaling would otherwise be computed from null.

    That happens if the config class leaves it null, or if the file says null and the class has no
    default for it.
    """
    path = (*rope.text_path, "head_dim")
    found = config.get(path, _ABSENT)
    absent = found is _ABSENT and rope.family.head_dim_null_in
    null = found is None and rope.family.head_dim is None
    return {path: rope.head_dim} if absent or null else {}


def _copies_at_root(
    config: JsonText, rope: RopeConfig, changes: dict[Path, Any]
) -> dict[Path, Any]:
    """The same changes for text fields that a multimodal config repeats at its root.

    A RoPE block that no model reads is left out: yarn in it may make transformers 5 fail.
    """
    depth = len(rope.text_path)
    if not depth:
        return {}
    dead = {block.path for block in dead_blocks(config.value, rope.text_path)}
    return {
        path[depth:]: value
        for path, value in changes.items()
        if path[depth:] not in dead and config.get(path[depth:], _ABSENT) is not _ABSENT
    }


_ABSENT = object()
