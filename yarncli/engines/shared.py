"""Rules that several engines share. A rule file imports these, never another rule file."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from yarncli.config.families.family import Release
from yarncli.engines.tables import Row, runs_own_code
from yarncli.engines.types import EngineCrash, Launch, LoaderError, Model, NotKnown, Used
from yarncli.rope.formulas import default_inv_freq, get_mscale, longrope_attention_factor
from yarncli.rope.parameters import RopeParameters, mla_softmax, with_frequencies

ORIGINAL = "original_max_position_embeddings"
NEED_FACTOR = frozenset({"linear", "dynamic", "yarn", "llama3"})
IGNORES_ROPE_PARAMETERS = "ignores rope_parameters: θ and scaling are its defaults"


def mscale_ratio(p: RopeParameters) -> float:
    """m(s·mscale) / m(s·mscale_all_dim), 1 and 0 where the two are not given.

    Reference: paper Eq. 22; DeepSeek-V2's modelling code.
    """
    factor = p.resolved_factor()
    top = get_mscale(factor, 1.0 if p.mscale is None else p.mscale)
    return top / get_mscale(factor, p.mscale_all_dim or 0.0)


def second_hand_softmax(model: Model, p: RopeParameters) -> float:
    """The softmax temperature of an MLA model in engines whose MLA code was not examined.

    DeepSeek's is assumed, because all engines that were examined copy it.
    """
    return mla_softmax(p) if model.rope.is_mla and p.rope_type == "yarn" else 1.0


def longrope_scale_by_lengths(p: RopeParameters) -> float:
    """LongRoPE's scale from the two lengths, where `factor` and `attention_factor` are not read."""
    ratio = p.max_position_embeddings / p.original_length
    return longrope_attention_factor(ratio, p.original_length)


def factor_by_lengths(p: RopeParameters, original: int, of: str) -> RopeParameters:
    """The setting with maximum / original length as its factor.

    Args:
        p: the setting.
        original: the original length that the engine reads, tokens.
        of: what to call the lengths in the error.

    Raises:
        EngineCrash: the factor is below 1.
    """
    factor = p.max_position_embeddings / original
    if factor < 1:
        raise EngineCrash(f"It computes a factor of {factor:.3g} from {of}.")
    return replace(p, original_max_position_embeddings=original, factor=factor)


def unmeant(model: Model) -> tuple[str, ...]:
    """The fault that the numbers cannot be compared with an intended setting, if there is none."""
    if not model.refusal:
        return ()
    return (f"transformers 5 does not load the config, so it is not known what is intended: "
            f"{model.refusal}",)  # fmt: skip


def with_extrapolation(p: RopeParameters, share: float) -> RopeParameters:
    """YaRN where only `share` of the unscaled part of the ramp is kept.

    Reference: the key `extrapolation_factor` of vLLM's and SGLang's YaRN class, which transformers
    does not read.
    """
    plain = default_inv_freq(p.rope_theta, p.rotary_dim)
    inner = [f / p.resolved_factor() for f in plain]
    yarn = p.inv_freq(p.max_position_embeddings)
    return with_frequencies(
        p, [low + share * (f - low) for f, low in zip(yarn, inner, strict=True)]
    )


def deepseek_yarn(p: RopeParameters, softmax_scale_ratio: float) -> Used:
    """A scaling of any type as DeepSeek's YaRN, with the given ratio of softmax scales.

    Raises:
        EngineCrash: it has no original length.
    """
    if p.original_max_position_embeddings is None:
        raise EngineCrash(
            f"MLA models get DeepSeek's YaRN whatever the type; {p.rope_type} has no "
            f"{ORIGINAL} for it."
        )
    yarn = replace(p, rope_type="yarn", factor=p.resolved_factor(), truncate=None)
    return Used(yarn, mscale_ratio(p), softmax_scale_ratio)


def refuse_integer_factor(model: Model, scopes: Mapping[str, RopeParameters]) -> None:
    """Refuse an integer factor of linear: vLLM's and SGLang's rotary class fails on it.

    Raises:
        EngineCrash: the factor of a linear scope is an integer.
    """
    for name, p in scopes.items():
        factor = model.winning_block(name).get("factor")
        if p.rope_type == "linear" and isinstance(factor, int):
            raise EngineCrash(f"linear with the integer factor {factor}; write {factor}.0.")


def refuse_gaps(
    block: Mapping[str, Any], rope_type: str, *, not_null: Collection[str] = ()
) -> None:
    """Refuse a scaling dict without its factor, or with a null that the engine computes with.

    Args:
        block: the dict that the engine reads, as it stands in the file.
        rope_type: what it takes the type to be.
        not_null: keys that must not be null.

    Raises:
        LoaderError: there is no factor.
        EngineCrash: a key is null.
    """
    if rope_type in NEED_FACTOR and "factor" not in block:
        raise LoaderError(f"{rope_type} without factor: KeyError.")
    for key in not_null:
        if key in block and block[key] is None:
            raise EngineCrash(f"{key} is null, which it computes with: TypeError. Leave it out.")


def with_silent_theta(
    model: Model, row: Row, block: Mapping[str, Any], p: RopeParameters
) -> RopeParameters:
    """The setting with the θ of the class, where its `rope_parameters` has none.

    Some classes (Step 3.5) then do not look at the top level, where the file may state one.
    """
    silent = re.search(r"theta=(\d+)$", row.outcome("theta top block silent"))
    if not silent or not block or "rope_theta" in block or model.block("rope_scaling"):
        return p
    return replace(p, rope_theta=float(silent[1]))


def refuse_entries(model: Model) -> None:
    """Refuse to judge a setting per layer type on which transformers' own class fails.

    An engine with its own code continues with the θ of the class, or with its own.

    Raises:
        NotKnown: the config has one, the model type does not.
    """
    has = any(isinstance(value, Mapping) for value in model.block("rope_parameters").values())
    if model.refusal and has and not model.family.scopes:
        raise NotKnown(
            "Nobody examined what it does with a rope_parameters per layer type in "
            f"{model.rope.model_type}, which has one setting for all layers."
        )


def refuse_su(name: object) -> None:
    """Refuse the old name of longrope where an engine does not know it.

    Raises:
        LoaderError: `name` is that.
    """
    if name == "su":
        raise LoaderError("rope_type 'su' is unknown to it; the name is longrope.")


def transformers_numbers(model: Model, p: RopeParameters) -> Used:
    """One setting with the two temperatures that transformers 5 gives it."""
    scale = p.effective_attention_factor()
    if model.rope.model_type == "phimoe" and p.rope_type == "longrope":
        scale = phimoe_scale(p, model.length)
    has_softmax = model.family.scales_softmax and p.rope_type != "default"
    return Used(p, scale, mla_softmax(p) if has_softmax else 1.0)


def transformers_used(model: Model, p: RopeParameters) -> Used:
    """The same, for a model that transformers 5 can build.

    Raises:
        EngineCrash: an MLA model whose scaling has no factor, or a width the class leaves empty.
    """
    refuse_null_head_dim(model, p, "5")
    scaled = model.family.scales_softmax and p.rope_type != "default"
    if scaled and p.mscale_all_dim and p.factor is None:
        raise EngineCrash("mscale_all_dim is given and factor is not, which this model needs.")
    return transformers_numbers(model, p)


def refuse_null_head_dim(model: Model, p: RopeParameters, release: Release) -> None:
    """Refuse a RoPE type that is computed from `head_dim` where the config class leaves it null.

    Raises:
        EngineCrash: `release` does so and the file gives no width.
    """
    null = release in model.family.head_dim_null_in and model.text.get("head_dim") is None
    if null and p.rope_type in ("yarn", "dynamic", "longrope"):
        raise EngineCrash(
            f"{model.rope.model_type} without head_dim in config.json: TypeError. "
            f"Add head_dim: {p.head_dim}."
        )


def phimoe_scale(p: RopeParameters, length: int) -> float:
    """PhiMoE's two scales, which replace LongRoPE's; `length` in tokens chooses."""
    name = "long_mscale" if length > p.original_length else "short_mscale"
    return float(p.extra.get(name, p.effective_attention_factor()))


def proportional_by_layers(model: Model) -> dict[str, Used]:
    """Gemma 4 where only θ and the share of a head are read, out of `rope_parameters`.

    Windowed layers have plain RoPE, the others proportional RoPE without a factor, whatever type
    the dict names.

    Raises:
        NotKnown: a kind of layer has no θ there, there is a second dict, or transformers 5
            refuses the file, so nobody knows what it means.

    Source: NVIDIA/TensorRT-LLM modeling_gemma4.py@00e7d10, `Gemma4Attention`; ollama/ollama
        convert/convert_gemma4.go and model/models/gemma4/model_text.go@1cbe795.
    """
    if model.refusal:
        raise NotKnown(model.refusal)
    found = {}
    for name, scope in model.rope.scopes.items():
        block, p = model.block("rope_parameters").get(name), scope.parameters
        block = block if isinstance(block, Mapping) else {}
        theta = block.get("rope_theta")
        if not isinstance(theta, int | float) or model.block("rope_scaling"):
            raise NotKnown("Only rope_parameters with rope_theta for each kind of layer was read.")
        share = block.get("partial_rotary_factor", 0.25) if name == "full_attention" else 1.0
        read_as = RopeParameters(
            rope_type="proportional" if name == "full_attention" else "default",
            rope_theta=float(theta), head_dim=p.head_dim, partial_rotary_factor=float(share),
            max_position_embeddings=p.max_position_embeddings,
        )  # fmt: skip
        found[name] = Used(read_as)
    return found


def from_pretrained(parts: Launch, engine: str) -> str:
    """The Python statements that load the model, with overrides put into the loaded config.

    Keyword arguments would not do: they reach the fields of the outer config only, and a class of
    version 4 without the field passes them on to the model, a TypeError.

    Args:
        parts: what the line is made of.
        engine: which release it is for.
    """
    own = ", trust_remote_code=True" if runs_own_code(engine, parts.model.config) else ""
    source, names = json.dumps(parts.model.source), parts.model.config.get("architectures")
    named = str(names[0]) if isinstance(names, list) and names else ""
    outer = bool(parts.model.override_path)
    auto = "AutoModelForImageTextToText" if outer else "AutoModelForCausalLM"
    cls = named if outer and named.isidentifier() else auto
    if not parts.fields:
        return f"{cls}.from_pretrained({source}{own})"
    text = "config.get_text_config()" if outer else "config"
    return (
        f"config = AutoConfig.from_pretrained({source}{own}); "
        f"{text}.update({dict(parts.fields)!r}); "
        f"model = {cls}.from_pretrained({source}, config=config{own})"
    )
