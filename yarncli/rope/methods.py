"""What each method of `convert` does to one RoPE setting, and what to know about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.errors import UnsupportedArchitectureError, UsageError
from yarncli.rope import formulas
from yarncli.rope.parameters import RopeParameters

METHODS = ("yarn", "ntk", "ntk-by-parts", "linear", "dynamic", "llama3", "longrope")

# These keep max_position_embeddings at the original window: for dynamic it is the formula's L, and
# for linear vLLM and SGLang multiply it by the factor.
KEEPS_MAX = frozenset({"linear", "dynamic"})

OPTION_METHODS = {
    "beta_fast": {"yarn", "ntk-by-parts"},
    "beta_slow": {"yarn", "ntk-by-parts"},
    "truncate": {"yarn", "ntk-by-parts"},
    "attention_factor": {"yarn", "longrope"},
    "rope_theta": {"ntk"},
    "low_freq_factor": {"llama3"},
    "high_freq_factor": {"llama3"},
    "short_factor": {"longrope"},
    "long_factor": {"longrope"},
}


_SCALING_EXTRA = frozenset({"attn_factor", "extrapolation_factor", "short_mscale", "long_mscale"})


def apply_method(
    method: str,
    before: RopeParameters,
    options: Mapping[str, Any],
    *,
    original: int,
    factor: float,
    maximum: int,
    mrope: bool,
) -> RopeParameters:
    """The new setting of one scope: sizes and carried keys kept, the scaling replaced.

    Args:
        method: one of `METHODS`.
        before: the setting to extend; its θ is what the model was trained with.
        options: the method's own settings under transformers' names; `None` is "not given".
        original: original window, tokens.
        factor: new window / original window.
        maximum: what `max_position_embeddings` becomes.
        mrope: whether the model uses multimodal RoPE.

    Raises:
        UsageError: longrope without its factor lists.
        UnsupportedArchitectureError: too few rotary dimensions for NTK-aware scaling.
    """
    given = {k: v for k, v in options.items() if v is not None}
    base = RopeParameters(
        rope_type="default",
        rope_theta=before.rope_theta,
        head_dim=before.head_dim,
        max_position_embeddings=maximum,
        partial_rotary_factor=before.partial_rotary_factor,
        extra={k: v for k, v in before.extra.items() if k not in _SCALING_EXTRA},
    )
    if method in ("ntk", "dynamic") and base.rotary_dim <= 2:
        raise UnsupportedArchitectureError(
            f"NTK-aware scaling needs more than 2 rotary dimensions; this model rotates "
            f"{base.rotary_dim}."
        )
    match method:
        case "ntk":
            theta = formulas.ntk_theta(before.rope_theta, base.rotary_dim, factor)
            return replace(base, rope_theta=float(given.get("rope_theta", theta)))
        case "linear" | "dynamic":
            return replace(base, rope_type=method, factor=factor)
        case "llama3":
            given = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} | given
        case "longrope":
            return _longrope(base, factor, original, given)
        case "ntk-by-parts":
            given |= neutral_temperature(factor, mrope=mrope)
            extra = {**base.extra, **given.pop("extra", {})}
            base = replace(base, extra=extra)
    rope_type = "yarn" if method == "ntk-by-parts" else method
    return replace(
        base,
        rope_type=rope_type,
        factor=factor,
        original_max_position_embeddings=original,
        **_without_defaults(given),
    )


def neutral_temperature(factor: float, *, mrope: bool) -> dict[str, Any]:
    """The fields that make yarn's attention factor 1 in as many engines as one config can.

    transformers and vLLM read `attention_factor`, SGLang and mlx-lm the mscale pair; with M-RoPE
    SGLang cannot take the pair and multiplies by `attn_factor` instead.
    """
    if mrope:
        cancels = 1 / formulas.get_mscale(factor)
        return {"attention_factor": 1.0, "extra": {"attn_factor": cancels}}
    return {"attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}


def _without_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing: engines warn about keys they know only as defaults."""
    defaults = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
    return {k: v for k, v in given.items() if k not in defaults or v != defaults[k]}


def _longrope(
    base: RopeParameters, factor: float, original: int, given: Mapping[str, Any]
) -> RopeParameters:
    if "short_factor" not in given or "long_factor" not in given:
        raise UsageError(
            "--method longrope needs --short-factor FILE and --long-factor FILE: LongRoPE searches "
            "its factors, they cannot be computed."
        )
    attention_factor = given.get("attention_factor") or formulas.longrope_attention_factor(
        factor, original
    )
    # vLLM and SGLang read the two mscale keys, transformers reads attention_factor.
    mscale = {"short_mscale": attention_factor, "long_mscale": attention_factor}
    return replace(
        base,
        rope_type="longrope",
        factor=factor,
        original_max_position_embeddings=original,
        attention_factor=attention_factor,
        short_factor=tuple(given["short_factor"]),
        long_factor=tuple(given["long_factor"]),
        extra={**base.extra, **mscale},
    )


def method_notes(method: str, *, original: int, is_mla: bool) -> list[str]:
    """What a person should know before relying on `method`; `original` in tokens."""
    found = []
    if method == "linear":
        found.append(
            f"max_position_embeddings stays {original:,}: vLLM and SGLang multiply it by the "
            "factor."
        )
    if method == "dynamic":
        found.append(
            f"max_position_embeddings stays {original:,}: it is the formula's L. For serving, "
            "--method ntk is computed alike by every engine."
        )
    if method in ("yarn", "linear", "ntk-by-parts", "llama3") and not is_mla:
        found.append(
            "The scaling is static: texts within the original window are read a little worse."
        )
    return found
