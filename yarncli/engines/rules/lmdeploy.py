"""LMDeploy: one reader of what transformers 5 loads in its PyTorch engine, another in TurboMind."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from yarncli.engines.loaders import version_5
from yarncli.engines.shared import (
    ORIGINAL,
    factor_by_lengths,
    longrope_scale_by_lengths,
    mscale_ratio,
    phimoe_scale,
    refuse_entries,
)
from yarncli.engines.tables import find_row
from yarncli.engines.types import (
    Engine,
    EngineCrash,
    Launch,
    LoaderError,
    Model,
    NotKnown,
    Reading,
    Used,
)
from yarncli.rope.formulas import get_mscale
from yarncli.rope.parameters import RopeParameters, mla_softmax

_LENGTH_KEYS = """
    max_position_embeddings n_positions max_seq_len seq_length model_max_length max_sequence_length
    max_seq_length seq_len
    """.split()


def served_length(model: Model) -> int:
    """The default `--session-len`: the smallest length field.

    Source: lmdeploy/utils.py:331-401, serve/core/async_engine.py:145.
    """
    found = [v for v in map(model.text.get, _LENGTH_KEYS) if type(v) is int]
    return min([*found, model.rope.max_position_embeddings])


def read_torch(model: Model) -> Reading:
    """What the PyTorch engine of 0.18 computes.

    Raises:
        LoaderError: transformers 5 refuses the config, or the engine does not know the type.
        EngineCrash: it fails at start-up.
        NotSupported: it has no model file.
        NotKnown: the model file was not examined.

    Source: lmdeploy/pytorch/nn/rotary_embedding.py:25-245.
    """
    row = find_row("lmdeploy-pytorch", model)
    refuse_entries(model)
    own = row.entry["rope"] == "own"
    if own and row.model_type not in _OWN:
        where = f"{row.release}, {row.entry['at']}"
        raise NotKnown(f"{row.model_type} has a rotation of its own ({where}), not examined.")
    reader = _OWN[row.model_type] if own else _torch
    scopes = {name: reader(model, p, name) for name, p in version_5(model).items()}
    return Reading(scopes, served_length=served_length(model))


def _torch(model: Model, p: RopeParameters, scope: str) -> Used:
    block = model.winning_block(scope)
    _refuse_nulls(block, p, ("beta_fast", "beta_slow"))
    softmax = 1.0
    if model.family.scales_softmax and p.mscale_all_dim and p.factor is not None:
        softmax = mla_softmax(p)
    if p.rope_type == "yarn":
        read_as = replace(p, original_max_position_embeddings=_original(block, p))
        return Used(read_as, p.effective_attention_factor(), softmax)
    if p.rope_type == "longrope":
        return Used(p, longrope_scale_by_lengths(p), softmax)
    if p.rope_type == "proportional":
        raise LoaderError("It does not know proportional: KeyError.")
    return Used(p, 1.0, softmax)


def _gemma3(model: Model, p: RopeParameters, scope: str) -> Used:
    """The full layers are divided by `factor` whatever the type (pytorch/models/gemma.py:427)."""
    if scope != "full_attention":
        return Used(replace(p, rope_type="default"))
    if p.factor is None:
        raise EngineCrash("full_attention without factor: KeyError. Give it factor 1.0.")
    return Used(replace(p, rope_type="linear"))


def _own_longrope(model: Model, p: RopeParameters, scope: str) -> Used:
    """longrope alone, with the keys by index (phi3_moe.py:289-309, minicpm3.py:306-323)."""
    block = model.winning_block(scope)
    if p.rope_type != "longrope" or "type" not in block:
        raise EngineCrash(f"{model.rope.model_type} needs longrope with the key type.")
    original = int(model.text.get(ORIGINAL) or p.max_position_embeddings)
    p = replace(p, original_max_position_embeddings=original)
    if model.rope.model_type == "minicpm3":
        return Used(p, longrope_scale_by_lengths(p))
    if not {"short_mscale", "long_mscale"} <= p.extra.keys():
        raise EngineCrash("phimoe without short_mscale and long_mscale: KeyError.")
    return Used(p, phimoe_scale(p, model.length))


def _deepseek_v4(model: Model, p: RopeParameters, scope: str) -> Used:
    """yarn's frequencies alone, its keys by index (pytorch/models/deepseek_v4.py:696-727)."""
    if p.rope_type == "default":
        return Used(p)
    block = model.winning_block(scope) or model.block("rope_scaling")
    for key in ("factor", ORIGINAL, "beta_fast", "beta_slow"):
        if block.get(key) is None:
            raise EngineCrash(f"deepseek_v4 without {key}: KeyError. State it.")
    if p.rope_type != "yarn":
        raise NotKnown(f"Nobody examined what it makes of {p.rope_type} in deepseek_v4.")
    return Used(replace(p, truncate=None))


# Model files that do not call the shared function.
_OWN = {
    "gemma3_text": _gemma3,
    "phimoe": _own_longrope,
    "minicpm3": _own_longrope,
    "deepseek_v4": _deepseek_v4,
}


def _original(block: Mapping[str, Any], p: RopeParameters) -> int:
    """The original length of the dict, also where another stands beside it."""
    return int(block.get(ORIGINAL) or p.original_length)


def _refuse_nulls(block: Mapping[str, Any], p: RopeParameters, keys: tuple[str, ...]) -> None:
    if p.rope_type != "yarn":
        return
    for key in ("factor", *keys):
        if key in block and block[key] is None:
            raise EngineCrash(f"{key} is null, which it computes with: TypeError. Leave it out.")


def read_turbomind(model: Model) -> Reading:
    """What TurboMind of 0.18 computes: yarn's factor from the two lengths, a ramp always rounded.

    Raises:
        LoaderError: transformers 5 or TurboMind refuses the config.
        EngineCrash: it fails at start-up.
        NotSupported: it is not in `SUPPORTED_ARCHS`.
        NotKnown: it was not examined.

    Source: lmdeploy/turbomind/models/utils.py:76-163, 252-301.
    """
    find_row("lmdeploy-turbomind", model)
    scopes = {name: _turbomind(model, p, name) for name, p in version_5(model).items()}
    return Reading(scopes, served_length=served_length(model))


def _turbomind(model: Model, p: RopeParameters, scope: str) -> Used:
    block = model.winning_block(scope)
    _refuse_nulls(block, p, ())
    if p.rope_type in ("longrope", "proportional"):
        raise LoaderError(f"{p.rope_type} is not supported: RuntimeError.")
    if p.rope_type != "yarn":
        return Used(p)
    scale = p.attention_factor
    if scale is None:
        both = block.get("mscale") is not None and block.get("mscale_all_dim") is not None
        scale = mscale_ratio(p) if both else get_mscale(p.resolved_factor())
    softmax = mla_softmax(p) if model.family.scales_softmax and p.mscale_all_dim else 1.0
    read_as = replace(p, truncate=None)
    read_as = factor_by_lengths(read_as, _original(block, p), "the two lengths")
    return Used(read_as, scale, softmax)


def _launch(backend: str, parts: Launch) -> str:
    """`lmdeploy serve api_server` (lmdeploy/cli/serve.py:128-166)."""
    words = ["lmdeploy", "serve", "api_server", parts.model.source, "--backend", backend]
    words += ["--session-len", str(parts.length)]
    return shlex.join([*words, *parts.override_words("--hf-overrides")])


def _engine(
    backend: str, name: str, read: Callable[[Model], Reading], about: tuple[str, ...]
) -> Engine:
    return Engine(
        id=f"lmdeploy-{backend}",
        name=name,
        versions="0.18, with transformers 5",
        basis="run",
        read=read,
        launch=partial(_launch, backend),
        override="v5",
        mends_refusals=False,
        merges="all",
        about=about,
    )


ENGINES = (
    _engine(
        "pytorch",
        "LMDeploy, PyTorch engine",
        read_torch,
        (
            "Reads every type as transformers 5 does, dynamic and longrope by the length of each "
            "call; longrope's `attention_factor` is not read.",
            "`--hf-overrides` are merged with the loaded config: they cannot remove a key.",
        ),
    ),
    _engine(
        "turbomind",
        "LMDeploy, TurboMind",
        read_turbomind,
        (
            "yarn: the factor is max_position_embeddings / original_max_position_embeddings, the "
            "ramp is always rounded; `attention_factor` and the mscale pair are read.",
            "longrope is refused.",
        ),
    ),
)
