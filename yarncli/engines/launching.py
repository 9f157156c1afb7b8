"""Launch lines: config overrides are tried out on the engine's own rules before they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.equivalents import stated_together
from yarncli.engines.loaders import with_fields
from yarncli.engines.types import Engine, Launch, Model, Used
from yarncli.engines.verdict import EngineView, view
from yarncli.errors import CheckpointError
from yarncli.planning.writing import rope_dict
from yarncli.rope.parameters import RopeParameters


def with_launch(found: EngineView, model: Model, intended: Mapping[str, Used]) -> EngineView:
    """The view with its launch line: one that makes all right where there is one."""
    engine = found.engine
    fields: dict[str, Any] | None = None
    flags: tuple[str, ...] | None = ()
    if found.status in ("unsupported", "unknown"):
        return found
    right = _is_right(found)
    is_late = found.status == "refuses" and not engine.mends_refusals
    if not right and engine.override != "none" and not is_late:
        fields = working_override(engine, model, intended)
        right = fields is not None
    elif engine.repair is not None and found.has_reading:
        flags = engine.repair(model, intended, engine.read(model))
        right = flags is not None
    if not found.has_reading and not right:
        return found
    parts = Launch(model=model, length=model.length, fields=fields, flags=flags or ())
    return replace(found, launch=engine.launch(parts), launch_is_exact=right)


def working_override(
    engine: Engine, model: Model, intended: Mapping[str, Used]
) -> dict[str, Any] | None:
    """Fields of the text part under which the engine is right; `None` if none do."""
    if model.text_path and engine.id.startswith("transformers"):
        return None  # keyword arguments reach a wrapper's own fields only
    tried = list(_overrides(engine, model, intended))
    if not model.rope.is_mla and model.text.get("head_dim") is None:
        # Some config classes leave the width empty, and their model then fails.
        tried += [{"head_dim": model.rope.head_dim, **fields} for fields in tried]
    for fields in tried:
        if engine.settable and not all(engine.settable(model, key) for key in fields):
            continue
        try:
            changed = with_fields(model, fields)
        except CheckpointError:
            continue
        if _is_right(view(engine, changed, intended)):
            return fields
    return None


def _is_right(found: EngineView) -> bool:
    """Whether the numbers are right and the limit is not below the window.

    A limit above it is lowered by the launch line.
    """
    if not found.has_reading or found.faults:
        return False
    enough = found.served_length is None or found.served_length >= found.length
    return enough and all(scope.is_exact for scope in found.scopes)


def _overrides(
    engine: Engine, model: Model, intended: Mapping[str, Used]
) -> Iterator[dict[str, Any]]:
    """Config fields to try, the plainest first."""
    first = next(iter(intended.values())).parameters
    lengths = dict.fromkeys((first.max_position_embeddings, model.length, first.original_length))
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
    """The scopes as scaling dicts: as they are, then with each way to state the temperature."""
    yield {name: _block(used.parameters) for name, used in intended.items()}
    used = list(intended.values())
    for chosen in stated_together([u.parameters for u in used], [u.attention_factor for u in used]):
        yield {name: _block(p) for name, p in zip(intended, chosen, strict=True)}


def _block(p: RopeParameters) -> dict[str, Any]:
    block = rope_dict(p) | {"rope_theta": p.rope_theta}
    if p.partial_rotary_factor != 1.0:
        block["partial_rotary_factor"] = p.partial_rotary_factor
    return {key: value for key, value in block.items() if key != "type"}
