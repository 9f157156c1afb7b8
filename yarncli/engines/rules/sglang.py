"""SGLang: the config as transformers 5 loads it, rotary classes derived from older vLLM ones."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.loaders import LoaderError, Model, is_v5_only, legacy, version_5
from yarncli.engines.rules.vllm import (
    longrope_scale_by_lengths,
    refuse_integer_factor,
    uses_deepseek_rope,
)
from yarncli.engines.verdict import (
    Engine,
    EngineCrash,
    Launch,
    Reading,
    Used,
    mla_softmax,
    mscale_ratio,
)
from yarncli.rope import formulas
from yarncli.rope.parameters import RopeParameters

_LENGTH_KEYS = ("max_sequence_length", "seq_length", "max_seq_len", "model_max_length")


def read(model: Model) -> Reading:
    """SGLang 0.5.23.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails at start-up.
    """
    notes: list[str] = []
    if model.rope.model_type == "olmo3" and is_v5_only(model):
        notes.append("its own OLMo 3 config class drops rope_parameters")
        lost = legacy(model, default_theta=1e4)
        plain = {n: Used(replace(p, rope_type="default", rope_theta=1e4)) for n, p in lost.items()}
        return Reading(plain, model.rope.max_position_embeddings, tuple(notes))
    for name in model.rope.scopes:
        block = model.winning_block(name)
        if (block.get("rope_type") or block.get("type")) == "su":
            raise LoaderError("rope_type 'su' is unknown to it; the name is longrope.")
    parameters = version_5(model)
    refuse_integer_factor(model, parameters)
    scopes = {name: _used(model, p, notes) for name, p in parameters.items()}
    return Reading(scopes, served_length(model, parameters), tuple(dict.fromkeys(notes)))


def served_length(model: Model, parameters: Mapping[str, RopeParameters]) -> int:
    """The default `--context-length`: the first length field, multiplied for some types.

    Reference: SGLang `utils/hf_transformers/common.py`, `get_context_length`.
    """
    first = next(iter(parameters.values()))
    found = [v for v in map(model.text.get, _LENGTH_KEYS) if type(v) is int]
    length: int = (found or [first.max_position_embeddings])[0]
    multiplied = first.rope_type in ("linear", "dynamic") and len(parameters) == 1
    if not multiplied or first.original_max_position_embeddings is not None:
        return length
    return int(length * first.resolved_factor())


def _used(model: Model, p: RopeParameters, notes: list[str]) -> Used:
    if uses_deepseek_rope(model) and p.rope_type != "default":
        return _deepseek(p)
    match p.rope_type:
        case "dynamic":
            length = int(p.max_position_embeddings * p.resolved_factor())
            theta = formulas.dynamic_theta(
                p.rope_theta, p.rotary_dim, p.resolved_factor(), length, p.max_position_embeddings
            )
            notes.append(f"dynamic has a fixed base, right for texts of {length:,} tokens only")
            return Used(replace(p, rope_type="default", rope_theta=theta))
        case "longrope":
            short = p.extra.get("short_mscale")
            long = p.extra.get("long_mscale")
            stated = long if long is not None else short
            return Used(p, stated if stated is not None else longrope_scale_by_lengths(p))
        case "yarn":
            return Used(p, _yarn_scale(model, p))
    return Used(p, p.effective_attention_factor())


def _yarn_scale(model: Model, p: RopeParameters) -> float:
    """m(s), or the mscale pair, times `attn_factor`; `attention_factor` is not read."""
    multiplier = float(p.extra.get("attn_factor", 1.0))
    pair = p.mscale is not None, p.mscale_all_dim is not None
    if model.rope.mrope and "mrope_section" in p.extra:
        if any(pair):
            raise EngineCrash("mscale keys with multimodal RoPE: TypeError at start-up.")
        return formulas.get_mscale(p.resolved_factor()) * multiplier
    if all(pair):
        return mscale_ratio(p) * multiplier
    return formulas.get_mscale(p.resolved_factor()) * multiplier


def _deepseek(p: RopeParameters) -> Used:
    if p.original_max_position_embeddings is None:
        raise EngineCrash(
            f"MLA models get DeepSeek's YaRN whatever the type; {p.rope_type} has no "
            "original_max_position_embeddings for it."
        )
    scale = mscale_ratio(p, mscale=1.0, mscale_all_dim=0.0)
    yarn = replace(
        p,
        rope_type="yarn",
        factor=p.resolved_factor(),
        truncate=None,
        short_factor=None,
        long_factor=None,
    )
    return Used(yarn, scale, mla_softmax(p))


def launch(parts: Launch) -> str:
    """`sglang.launch_server`, with `--json-model-override-args` where fields must change."""
    words = ["python", "-m", "sglang.launch_server", "--model-path", parts.model.source]
    words += ["--context-length", str(parts.length)]
    fields: Mapping[str, Any] | None = parts.fields
    if fields:
        for key in reversed(parts.model.text_path):
            fields = {key: fields}
        words += ["--json-model-override-args", json.dumps(fields)]
    return shlex.join(words)


ENGINE = Engine(
    "sglang",
    "SGLang",
    "0.5.23",
    "read",
    read,
    launch,
    override="v5",
    about=(
        "`attention_factor` is not read: the scale is m(s), or the mscale pair, times "
        "`attn_factor`.",
        "linear and dynamic multiply max_position_embeddings by the factor, unless the dict has "
        "an original_max_position_embeddings.",
        "dynamic has one fixed base, that of a full window; a linear factor must be a float.",
        "Multimodal RoPE with mscale keys fails at start-up.",
        "OLMo 3 with rope_parameters only loses θ and scaling.",
    ),
)
