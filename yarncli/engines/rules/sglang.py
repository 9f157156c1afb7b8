"""SGLang: the config as transformers 5 loads it, rotary classes derived from older vLLM ones."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace

from yarncli.engines.loaders import is_v5_only, legacy, version_5
from yarncli.engines.shared import (
    deepseek_yarn,
    longrope_scale_by_lengths,
    mla_softmax,
    mscale_ratio,
    refuse_integer_factor,
    refuse_su,
    uses_deepseek_rope,
)
from yarncli.engines.types import Engine, EngineCrash, Launch, Model, Reading, Used
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
        return Reading(plain, served_length=model.rope.max_position_embeddings, notes=tuple(notes))
    for name in model.rope.scopes:
        block = model.winning_block(name)
        refuse_su(block.get("rope_type") or block.get("type"))
    parameters = version_5(model)
    refuse_integer_factor(model, parameters)
    scopes = {name: _used(model, p, notes) for name, p in parameters.items()}
    served = served_length(model, parameters)
    return Reading(scopes, served_length=served, notes=tuple(dict.fromkeys(notes)))


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
        return deepseek_yarn(p, mla_softmax(p))
    match p.rope_type:
        case "dynamic":
            length = int(p.max_position_embeddings * p.resolved_factor())
            theta = formulas.dynamic_theta(
                p.rope_theta, p.rotary_dim, p.resolved_factor(), length, p.max_position_embeddings
            )
            notes.append(f"dynamic has a fixed base, right for texts of {length:,} tokens only")
            return Used(replace(p, rope_type="default", rope_theta=theta))
        case "longrope":
            stated = [p.extra.get(name) for name in ("long_mscale", "short_mscale")]
            scales = (scale for scale in stated if scale is not None)
            return Used(p, next(scales, longrope_scale_by_lengths(p)))
        case "yarn":
            return Used(p, _yarn_scale(model, p))
    return Used(p, p.effective_attention_factor())


def _yarn_scale(model: Model, p: RopeParameters) -> float:
    """m(s), or the mscale pair, times `attn_factor`; `attention_factor` is not read."""
    multiplier = float(p.extra.get("attn_factor", 1.0))
    pair = p.mscale is not None, p.mscale_all_dim is not None
    if any(pair) and model.rope.mrope and "mrope_section" in p.extra:
        raise EngineCrash("mscale keys with multimodal RoPE: TypeError at start-up.")
    scale = mscale_ratio(p) if all(pair) else formulas.get_mscale(p.resolved_factor())
    return scale * multiplier


def launch(parts: Launch) -> str:
    """`sglang.launch_server`, with `--json-model-override-args` where fields must change.

    Loading copies the fields of a text part to the outer config (`hf_transformers/config.py:257`),
    and Qwen-VL models take them from there, the served length comes from the text part: both are
    stated.
    """
    words = ["python", "-m", "sglang.launch_server", "--model-path", parts.model.source]
    words += ["--context-length", str(parts.length)]
    return shlex.join([*words, *parts.override_words("--json-model-override-args", outer=True)])


ENGINE = Engine(
    id="sglang",
    name="SGLang",
    versions="0.5.23",
    read=read,
    launch=launch,
    override="v5",
    merges="flat",
    deepest_override=1,  # `config.update` would put a dict in the place of a second inner config
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
