"""The methods of `convert`: `METHODS` is the only list of them, and everything else asks it."""

from __future__ import annotations

from typing import Any

from yarncli.errors import UnsupportedArchitectureError, UsageError
from yarncli.options import choose
from yarncli.rope import formulas
from yarncli.rope.method import Extension, Method
from yarncli.rope.parameters import RopeParameters

_PAPER = "https://arxiv.org/abs/2309.00071"
_BY_PARTS_OPTIONS = ("beta_fast", "beta_slow", "truncate")


def neutral_attention_factor(factor: float, *, mrope: bool) -> dict[str, Any]:
    """The fields with which as many engines as possible compute an attention factor of 1.

    transformers and vLLM read `attention_factor`, SGLang and mlx-lm the mscale pair; with M-RoPE
    SGLang cannot take the pair and multiplies by `attn_factor` instead.
    """
    if mrope:
        cancels = 1 / formulas.get_mscale(factor)
        return {"attention_factor": 1.0, "extra": {"attn_factor": cancels}}
    return {"attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}


def _ntk(plain: RopeParameters, asked: Extension) -> dict[str, Any]:
    """Base θ·s^(d/(d−2)) (paper Eq. 16)."""
    _refuse_two_dimensions(plain)
    theta = formulas.ntk_theta(plain.rope_theta, plain.rotary_dim, asked.factor)
    return {"rope_theta": float(asked.given.get("rope_theta", theta))}


def _linear(_: RopeParameters, asked: Extension) -> dict[str, Any]:
    """θ^(−2i/d) / s (paper Eq. 10–11)."""
    return {"factor": asked.factor}


def _dynamic(plain: RopeParameters, asked: Extension) -> dict[str, Any]:
    """Base θ·(s·l/L − (s−1))^(d/(d−2)) for l > L tokens of text (paper §3.3)."""
    _refuse_two_dimensions(plain)
    return {"factor": asked.factor}


def _yarn(_: RopeParameters, asked: Extension) -> dict[str, Any]:
    """As `ntk-by-parts`."""
    # Defaults are left out, because some engines warn about keys that they do not know.
    defaults = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
    given = {k: v for k, v in asked.given.items() if k not in defaults or v != defaults[k]}
    return {**_factor_and_original(asked), **given}


def _ntk_by_parts(plain: RopeParameters, asked: Extension) -> dict[str, Any]:
    """Fast pairs kept, slow ones divided by s, a ramp between (paper Eq. 17–20)."""
    neutral = neutral_attention_factor(asked.factor, mrope=asked.mrope)
    extra = {**plain.extra, **neutral.pop("extra", {})}
    return {**_yarn(plain, asked), **neutral, "extra": extra}


def _llama3(_: RopeParameters, asked: Extension) -> dict[str, Any]:
    """As `ntk-by-parts` with a ramp linear in rotations."""
    chosen = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, **asked.given}
    low, high = chosen["low_freq_factor"], chosen["high_freq_factor"]
    if high <= low:
        raise UsageError(
            f"--high-freq-factor {high:g} is not above --low-freq-factor {low:g}: there would be "
            "no ramp between kept and interpolated frequencies."
        )
    return {**_factor_and_original(asked), **chosen}


def _longrope(plain: RopeParameters, asked: Extension) -> dict[str, Any]:
    """One searched factor per pair, two lists."""
    given = asked.given
    if "short_factor" not in given or "long_factor" not in given:
        raise UsageError(
            "--method longrope needs --short-factor FILE and --long-factor FILE: the factors of "
            "LongRoPE are the result of a search, so yarncli cannot compute them."
        )
    attention_factor = given.get("attention_factor") or formulas.longrope_attention_factor(
        asked.factor, asked.original_length
    )
    # vLLM and SGLang read the two mscale keys, transformers reads attention_factor.
    mscale = {"short_mscale": attention_factor, "long_mscale": attention_factor}
    return {
        **_factor_and_original(asked),
        "attention_factor": attention_factor,
        "short_factor": tuple(given["short_factor"]),
        "long_factor": tuple(given["long_factor"]),
        "extra": {**plain.extra, **mscale},
    }


def _factor_and_original(asked: Extension) -> dict[str, Any]:
    return {"factor": asked.factor, "original_max_position_embeddings": asked.original_length}


def _refuse_two_dimensions(plain: RopeParameters) -> None:
    if plain.rotary_dim <= 2:
        raise UnsupportedArchitectureError(
            f"NTK-aware scaling needs more than 2 rotary dimensions; this model rotates "
            f"{plain.rotary_dim}."
        )


def _factor_over_original(p: RopeParameters, length: int, _: int) -> float:
    return formulas.factor_for(length, p.original_length)


def _factor_over_maximum(p: RopeParameters, length: int, _: int) -> float:
    return formulas.factor_for(length, p.max_position_embeddings)


def _factor_times_growth(p: RopeParameters, length: int, window: int) -> float:
    return p.resolved_factor() * length / window


# How to add a method (CONTRIBUTING.md, “A RoPE method”, has the details):
#
# 1. Write its formula in `formulas.py`, with the equation of the paper and the reference code.
# 2. Add a `Method` here, with the function that makes the fields of the config. No other list
#    names the methods: commands, plans, checks and the model card follow from this one.
# 3. Compare the frequencies with numbers from another source in `tests/rope/test_methods.py`.
# 4. Only for an option that no other method has: add it to `cli/convert.py` and
#    `conversion/options.py`. Then run `make docs`.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="yarn",
            label="YaRN",
            reference_url=_PAPER,
            attention_factor="0.1·ln s + 1 on cos and sin (paper Eq. 21–22)",
            rope_type="yarn",
            apply=_yarn,
            options=(*_BY_PARTS_OPTIONS, "attention_factor"),
            is_static=True,
            rescaled_factor=_factor_over_original,
        ),
        Method(
            name="ntk",
            label="NTK-aware scaling of the RoPE base",
            reference_url=_PAPER,
            rope_type="default",
            apply=_ntk,
            options=("rope_theta",),
        ),
        Method(
            name="ntk-by-parts",
            label="NTK-by-parts interpolation",
            reference_url=_PAPER,
            rope_type="yarn",
            apply=_ntk_by_parts,
            options=_BY_PARTS_OPTIONS,
            is_static=True,
            mla_refusal="no config switches the temperature off in every engine. Use --method yarn "
            "or ntk.",
            rescaled_factor=_factor_over_original,
        ),
        Method(
            name="linear",
            label="linear position interpolation",
            reference_url="https://arxiv.org/abs/2306.15595",
            rope_type="linear",
            apply=_linear,
            keeps_max="vLLM and SGLang multiply it by the factor",
            is_static=True,
            rescaled_factor=_factor_times_growth,
        ),
        Method(
            name="dynamic",
            label="dynamic NTK scaling",
            reference_url=_PAPER,
            rope_type="dynamic",
            apply=_dynamic,
            keeps_max="it is the formula's L",
            follows_text=True,
            advice="For serving, use --method ntk, which every engine computes in the same way.",
            rescaled_factor=_factor_over_maximum,
        ),
        Method(
            name="llama3",
            label="Llama 3 RoPE scaling",
            reference_url="https://github.com/meta-llama/llama-models",
            rope_type="llama3",
            apply=_llama3,
            options=("low_freq_factor", "high_freq_factor"),
            is_static=True,
            rescaled_factor=_factor_times_growth,
        ),
        Method(
            name="longrope",
            label="LongRoPE",
            reference_url="https://arxiv.org/abs/2402.13753",
            attention_factor="√(1 + ln s / ln L)",
            rope_type="longrope",
            apply=_longrope,
            options=("short_factor", "long_factor", "attention_factor"),
        ),
    )
}

DEFAULT_METHOD = "yarn"

# What papers, engines and configs call the methods, too.
METHOD_ALIASES = {
    "pi": "linear",
    "position-interpolation": "linear",
    "ntk-aware": "ntk",
    "dynamic-ntk": "dynamic",
    "ntk-dynamic": "dynamic",
    "su": "longrope",
}


def get_method(name: str) -> Method:
    """The method of that name, or of an alias; capitals and punctuation do not count.

    Raises:
        UsageError: there is none.
    """
    return METHODS[choose(name, METHODS, "method", aliases=METHOD_ALIASES)]


def by_rope_type(rope_type: str) -> Method | None:
    """The method whose type a config has; the first of those that write the same type.

    Example:
        >>> by_rope_type("yarn").name, by_rope_type("proportional")
        ('yarn', None)
    """
    return next((m for m in METHODS.values() if m.rope_type == rope_type), None)


def keeps_max(rope_type: str) -> bool:
    """Whether configs of this type keep the original window as `max_position_embeddings`."""
    method = by_rope_type(rope_type)
    return method is not None and bool(method.keeps_max)


def option_names() -> tuple[str, ...]:
    """The options of all methods, each once, under transformers' names."""
    return tuple(dict.fromkeys(name for m in METHODS.values() for name in m.options))
