"""Launch lines: config overrides are tried out on the engine's own rules before they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from yarncli.errors import CheckpointError
from yarncli.rope.engines.reading import Model, with_fields
from yarncli.rope.engines.view import Engine, EngineView, Launch, Used, view
from yarncli.rope.formulas import dynamic_theta, get_mscale
from yarncli.rope.parameters import RopeParameters
from yarncli.rope.writing import rope_dict

_TEMPERATURE = ("attention_factor", "mscale", "mscale_all_dim", "attn_factor")


def with_launch(found: EngineView, model: Model, intended: Mapping[str, Used]) -> EngineView:
    """The view with its launch line: one that makes all right where there is one."""
    engine = found.engine
    fields: dict[str, Any] | None = None
    flags: tuple[str, ...] | None = ()
    right = _is_right(found)
    if not right and engine.override != "none":
        fields = working_override(engine, model, intended)
        right = fields is not None
    elif engine.repair is not None and found.status not in ("refuses", "crashes"):
        flags = engine.repair(model, intended, engine.read(model))
        right = flags is not None
    if found.status in ("refuses", "crashes") and not right:
        return found
    line = engine.launch(Launch(model, model.length, fields, flags or ()))
    return replace(found, launch=line, launch_is_exact=right)


def working_override(
    engine: Engine, model: Model, intended: Mapping[str, Used]
) -> dict[str, Any] | None:
    """Fields of the text part under which the engine computes what is meant; `None` if none do."""
    if model.text_path and engine.id.startswith("transformers"):
        return None  # keyword arguments reach a wrapper's own fields only
    for fields in _overrides(engine, model, intended):
        try:
            changed = replace(with_fields(model, fields), length=model.length)
        except CheckpointError:
            continue
        if _is_right(view(engine, changed, intended)):
            return fields
    return None


def _is_right(found: EngineView) -> bool:
    """Whether the numbers are right and the limit is not below the window.

    A limit above it is lowered by the launch line.
    """
    if found.status in ("refuses", "crashes") or found.faults:
        return False
    enough = found.served_length is None or found.served_length >= found.length
    return enough and all(scope.is_exact for scope in found.scopes)


def _overrides(
    engine: Engine, model: Model, intended: Mapping[str, Used]
) -> Iterator[dict[str, Any]]:
    """Config fields to try, the plainest first."""
    first = next(iter(intended.values())).parameters
    lengths = dict.fromkeys((first.max_position_embeddings, model.length))
    for blocks in _spelled(model, intended):
        for length in lengths:
            fields: dict[str, Any] = {}
            if length != model.rope.max_position_embeddings:
                fields[model.rope.length_key] = length
            if engine.override == "v5":
                only = next(iter(blocks.values()))
                yield {**fields, "rope_parameters": blocks if model.family.scopes else only}
            elif not model.family.scopes:
                block = dict(next(iter(blocks.values())))
                theta = {model.family.theta_keys[0]: block.pop("rope_theta")}
                scaling = block if block["rope_type"] != "default" else None
                yield {**fields, "rope_scaling": scaling, **theta}


def _spelled(model: Model, intended: Mapping[str, Used]) -> Iterator[dict[str, dict[str, Any]]]:
    """The scopes as scaling dicts: as they are, with each way to state the temperature, static."""
    yield {name: _block(used.parameters) for name, used in intended.items()}
    for way in (_by_attention_factor, _by_mscale_pair, _by_attn_factor):
        yield {name: way(_block(used.parameters), used) for name, used in intended.items()}
    if any(used.parameters.rope_type == "dynamic" for used in intended.values()):
        yield {n: _block(_static(used.parameters, model.length)) for n, used in intended.items()}


def _block(p: RopeParameters) -> dict[str, Any]:
    block = rope_dict(p) | {"rope_theta": p.rope_theta}
    if p.partial_rotary_factor != 1.0:
        block["partial_rotary_factor"] = p.partial_rotary_factor
    return {key: value for key, value in block.items() if key != "type"}


def _without_temperature(block: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in block.items() if k not in _TEMPERATURE}


def _by_attention_factor(block: dict[str, Any], used: Used) -> dict[str, Any]:
    if used.parameters.rope_type not in ("yarn", "longrope"):
        return block
    mscale = {}
    if used.parameters.rope_type == "longrope":
        mscale = {"short_mscale": used.attention_scale, "long_mscale": used.attention_scale}
    stated = {"attention_factor": used.attention_scale}
    return _without_temperature(block) | stated | mscale


def _by_mscale_pair(block: dict[str, Any], used: Used) -> dict[str, Any]:
    if used.parameters.rope_type != "yarn" or used.attention_scale != 1.0:
        return block
    return _without_temperature(block) | {"mscale": 1.0, "mscale_all_dim": 1.0}


def _by_attn_factor(block: dict[str, Any], used: Used) -> dict[str, Any]:
    if used.parameters.rope_type != "yarn":
        return block
    multiplier = used.attention_scale / get_mscale(used.parameters.resolved_factor())
    return _without_temperature(block) | {"attn_factor": multiplier}


def _static(p: RopeParameters, length: int) -> RopeParameters:
    """Dynamic scaling frozen at its full window."""
    if p.rope_type != "dynamic":
        return p
    theta = dynamic_theta(
        p.rope_theta, p.rotary_dim, p.resolved_factor(), length, p.max_position_embeddings
    )
    return replace(p, rope_type="default", rope_theta=theta, factor=None)
