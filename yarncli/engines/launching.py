"""Launch lines: config overrides are tried out on the engine's own rules before they are shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.assumed import assumed_thetas
from yarncli.engines.equivalents import stated_together
from yarncli.engines.loaders import states_theta, with_fields
from yarncli.engines.tables import default_theta
from yarncli.engines.types import Engine, Launch, Model, NotKnown, Used
from yarncli.engines.verdict import EngineView, view
from yarncli.errors import CheckpointError
from yarncli.planning.lengths import CONFIG_LENGTHS, SENTINEL
from yarncli.planning.writing import rope_dict
from yarncli.rope.parameters import RopeParameters

_ORIGINAL = "original_max_position_embeddings"


def with_launch(found: EngineView, model: Model, intended: Mapping[str, Used]) -> EngineView:
    """The view with its launch line; if possible one with which the engine is right.

    Raises:
        NotKnown: a line would have to state θ, and nobody knows which one the engine takes.
    """
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
    if fields:
        _refuse_invented(model)
    if fields or flags:
        require_theta(engine, model)
    if not found.has_reading and not right:
        return found
    parts = Launch(model=model, length=model.length, fields=fields, flags=flags or ())
    return replace(found, launch=engine.launch(parts), launch_is_exact=right)


def require_theta(engine: Engine, model: Model) -> None:
    """Insist that the θ of every scope is one the config states, or the engine's own default.

    Raises:
        NotKnown: it is neither; says which scope and what is assumed.
    """
    for name, scope in model.rope.scopes.items():
        if states_theta(model, name):
            continue
        assumed, own = scope.parameters.rope_theta, default_theta(engine.id, model, name)
        if own is None:
            told = f"it is not known which one {engine.name} assumes for {model.rope.model_type}"
        elif math.isclose(assumed, own, rel_tol=1e-5):
            continue
        else:
            told = f"{engine.name} assumes {own:g} where transformers 5 assumes {assumed:g}"
        where = f" for {name}" if len(model.rope.scopes) > 1 else ""
        raise NotKnown(f"config.json states no rope_theta{where}, and {told}. Add it to the file.")


def _refuse_invented(model: Model) -> None:
    """Insist on the file's θ where a dict without one has replaced that of the model.

    This does not apply to old files: there a missing θ is the default of every engine.

    Raises:
        NotKnown: the line would have to state θ.
    """
    unsaid = [name for name in model.rope.scopes if not states_theta(model, name)]
    legacy = bool(model.block("rope_scaling"))
    if not unsaid or not (legacy or model.block("rope_parameters")):
        return
    if not legacy or any(len(assumed_thetas(model, name)) > 1 for name in unsaid):
        raise NotKnown(
            "config.json states no rope_theta, and a line would have to: its RoPE dict may have "
            "replaced one that had it. Add the θ that the model was trained with to the file."
        )


def working_override(
    engine: Engine, model: Model, intended: Mapping[str, Used]
) -> dict[str, Any] | None:
    """Fields of the text part under which the engine is right; `None` if none do."""
    if len(model.override_path) > engine.deepest_override:
        return None
    tried = list(_overrides(engine, model, intended))
    if not model.rope.is_mla and model.text.get("head_dim") is None:
        # Some config classes leave the width empty, and their model then fails.
        tried += [{"head_dim": model.rope.head_dim, **fields} for fields in tried]
    for fields in tried:
        if engine.settable and not all(engine.settable(model, key) for key in fields):
            continue
        try:
            kept = engine.override == "legacy"
            changed = with_fields(model, _merged(engine, model, fields), keep_theta=kept)
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


def _merged(engine: Engine, model: Model, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields as the engine has them in the end: it may merge a dict with the loaded one."""
    given = fields.get("rope_parameters")
    here = "nested" if model.override_path else "flat"
    if not given or engine.merges not in (here, "all"):
        return fields
    if model.family.scopes:
        if engine.merges == "flat":
            return fields  # what is merged are the scopes, and all of them are given
        merged = {name: {**_loaded(model, name), **block} for name, block in given.items()}
    else:
        merged = {**_loaded(model, "model"), **given}
    return {**fields, "rope_parameters": merged}


def _loaded(model: Model, scope: str) -> dict[str, Any]:
    """The dict of a scope in a loaded config, but for the type, which the override states."""
    return {k: v for k, v in model.winning_block(scope).items() if k != "type"}


def _overrides(
    engine: Engine, model: Model, intended: Mapping[str, Used]
) -> Iterator[dict[str, Any]]:
    """Config fields to try, the plainest first."""
    first = next(iter(intended.values())).parameters
    lengths = dict.fromkeys((first.max_position_embeddings, model.length, first.original_length))
    for blocks in _spelled(model, intended):
        for length in lengths:
            fields = {**_lengths(model, length), **_top_level_original(model, blocks)}
            if engine.override == "v5":
                only = next(iter(blocks.values()))
                yield {**fields, "rope_parameters": blocks if model.family.scopes else only}
                continue
            block = dict(blocks[_flat_scope(model, blocks)])
            # A class with another name for θ copies it to this one when it loads.
            names = (model.family.theta_keys[0], "rope_theta")
            theta = dict.fromkeys(names, block.pop("rope_theta"))
            scaling = block if block["rope_type"] != "default" else None
            yield {**fields, "rope_scaling": scaling, **theta}


def _lengths(model: Model, length: int) -> dict[str, int]:
    """`max_position_embeddings`, and the other length fields that are below it."""
    key, fields = model.rope.length_key, dict[str, int]()
    if length != model.rope.max_position_embeddings:
        fields[key] = length
    for name in CONFIG_LENGTHS:
        stated: Any = model.text.get(name)
        if name != key and type(stated) in (int, float) and stated < min(length, SENTINEL):
            fields[name] = length
    return fields


def _top_level_original(
    model: Model, blocks: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, int | None]:
    """The top-level original length where the file has one that would contradict the block's."""
    stated = model.text.get(_ORIGINAL)
    given = next((b[_ORIGINAL] for b in blocks.values() if _ORIGINAL in b), None)
    return {_ORIGINAL: given} if given and stated is not None and stated != given else {}


def _flat_scope(model: Model, blocks: Mapping[str, Any]) -> str:
    """The scope that a flat `rope_scaling` is for."""
    takes = [rule.name for rule in model.family.scopes if rule.takes_flat and rule.name in blocks]
    return takes[0] if takes else next(iter(blocks))


def _spelled(model: Model, intended: Mapping[str, Used]) -> Iterator[dict[str, dict[str, Any]]]:
    """The scopes as scaling dicts: as they are, then with each way to state the temperature."""
    yield {name: _block(used.parameters) for name, used in intended.items()}
    used = list(intended.values())
    for chosen in stated_together([u.parameters for u in used], [u.attention_factor for u in used]):
        yield {name: _block(p) for name, p in zip(intended, chosen, strict=True)}
    # Some classes of vLLM read keys by index that have defaults everywhere else.
    yield {name: _spelled_out(_block(u.parameters)) for name, u in intended.items()}
    if model.rope.mrope:
        # vLLM takes four times the original length of Qwen2-VL and Qwen2.5-VL.
        blocks = {name: _block(u.parameters) for name, u in intended.items()}
        given = [b for b in blocks.values() if b.get(_ORIGINAL, 1) % 4 == 0]
        for block in given:
            block[_ORIGINAL] //= 4
        if given:
            yield blocks


def _spelled_out(block: dict[str, Any]) -> dict[str, Any]:
    defaults = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
    return {**defaults, **block} if block["rope_type"] == "yarn" else block


def _block(p: RopeParameters) -> dict[str, Any]:
    block = rope_dict(p) | {"rope_theta": p.rope_theta}
    if p.partial_rotary_factor != 1.0:
        block["partial_rotary_factor"] = p.partial_rotary_factor
    return {key: value for key, value in block.items() if key != "type"}
