"""What llama.cpp computes from the RoPE part of any GGUF file: numbers, an error, or an abort."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from yarncli.errors import ConfigError
from yarncli.gguf.architectures import Architecture
from yarncli.gguf.facts import (
    ATTN_FACTOR,
    CONTEXT,
    FACTOR,
    FREQS,
    LONG,
    OLD_FACTOR,
    ORIGINAL,
    SHORT,
    THETA,
    TYPE,
    Gguf,
    Sizes,
)
from yarncli.gguf.loading import Failure, failures
from yarncli.rope import formulas
from yarncli.rope.parameters import RopeParameters, with_frequencies

RUNTIME_THETA = 10000.0
# A factor so large that the frequency becomes 0. llama.cpp's converter writes it for Gemma 4.
STILL = 1e30
# Tokens. llama.cpp rounds the context up to a multiple of this (`llama-context.cpp:275`).
_PAD = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What llama.cpp computes in the layers of one kind."""

    inv_freq: tuple[float, ...]
    """Radians per token, one for each rotating pair; NaN if the values in the file give NaN."""
    attention_factor: float
    """Multiplier of cos and sin."""
    softmax_scale_ratio: float
    """Multiplier of the softmax scale 1/√d, used by latent attention."""
    served_length: int
    """The longest text that a server accepts, tokens."""
    rotation: RopeParameters | None
    """A setting that has these frequencies for texts of every length; its attention factor may
    differ. `None` if no setting has them."""


def run(
    gguf: Gguf, *, sizes: Sizes | None = None, context: int | None = None
) -> Computed | Failure:
    """What llama.cpp computes in layers without a sliding window.

    Args:
        gguf: the file.
        sizes: the widths of a head, if the keys of the file do not state them.
        context: the context that llama.cpp is started with (`-c`), tokens; None takes the file's.

    Source: `llama-model.cpp:1321-1491`, `llama-context.cpp:114-214`, `ggml-cpu/ops.cpp`; for MLA
        `models/deepseek2.cpp:433-443`. `tests/gguf/test_live.py` runs v0.5.0.
    """
    row, sizes = gguf.row, sizes or gguf.sizes()
    failure = next(failures(gguf, row, sizes), None)
    if failure:
        return failure
    assert row is not None  # failures saw to both
    assert sizes is not None
    return _computed(gguf, row, sizes, context)


def run_windowed(
    gguf: Gguf, *, sizes: Sizes | None = None, context: int | None = None
) -> Computed | Failure:
    """What llama.cpp computes in layers with a sliding window.

    For DeepSeek V4 these are the layers without compression. Arguments and source are as for `run`.
    """
    row, sizes = gguf.row, sizes or gguf.sizes(windowed=True)
    failure = next(failures(gguf, row, sizes), None)
    if failure:
        return failure
    assert row is not None  # failures saw to both
    assert sizes is not None
    theta = float(gguf.get(THETA, RUNTIME_THETA))
    rule = row.sliding
    if row.compress:
        return _plain(gguf, row, sizes, theta, 1.0)
    if rule is None:
        return _computed(gguf, row, sizes, context)
    theta = theta if rule.theta == "full" else rule.theta
    if rule.key:
        theta = float(gguf.get("rope.freq_base_swa", theta))
    if rule.scaled:
        return _computed(gguf, row, sizes, context, theta=theta)
    scale = float(gguf.get(ATTN_FACTOR, 1.0)) if rule.key and rule.factor else 1.0
    return _plain(gguf, row, sizes, theta, scale)


def longest_context(gguf: Gguf, context: int | None = None) -> int:
    """The context that llama.cpp allocates, tokens: rounded up to a multiple of 256."""
    asked = context or gguf.get(CONTEXT)
    return -(-int(asked) // _PAD) * _PAD


def scaling_factor(gguf: Gguf) -> float:
    """The divisor of the frequencies; 1 with the type none."""
    if gguf.get(TYPE) == "none":
        return 1.0
    return float(gguf.get(FACTOR, gguf.get(OLD_FACTOR, 0.0))) or 1.0


def _computed(
    gguf: Gguf,
    row: Architecture,
    sizes: Sizes,
    context: int | None,
    theta: float | None = None,
) -> Computed:
    # θ: the file's, or another key of some architectures, raised by `rope.scaling.alpha` (NTK).
    theta = float(gguf.get(THETA, RUNTIME_THETA)) if theta is None else theta
    if row.compress:
        theta = float(gguf.get("attention.compress_rope_freq_base", 0.0))
    if row.alpha and gguf.get("rope.scaling.alpha", 0.0) > 0 and sizes.head_dim > 2:
        theta = formulas.ntk_theta(theta, sizes.head_dim, gguf.get("rope.scaling.alpha"))
    # Frequencies: scaled as a whole or by yarn's ramp, then divided by a tensor of factors.
    ramp = yarn_share(gguf, row)
    scaled = _scaled(gguf, row, sizes, theta, ramp)
    factors = _factors(gguf, row, context)
    inv_freq = _divided(scaled, factors)
    # Attention factor: what yarn computes, times the key `attn_factor`.
    ratio = _ratio(gguf, row, ramp)
    key = float(gguf.get(ATTN_FACTOR, 1.0))
    scale = 1.0 if row.compress else ratio * key
    # Latent attention applies a temperature to the softmax scale as well. It multiplies q·k
    # directly, so both parts are squared.
    softmax = 1.0
    if row.softmax:
        factor = scaling_factor(gguf)
        first = (ratio if ramp else _growth(factor, 1.0)) * key
        softmax = (first * _growth(factor, _log(gguf, row))) ** 2
    if row.fixed:
        plain = _plain(gguf, row, sizes, RUNTIME_THETA, 1.0)
        return replace(plain, softmax_scale_ratio=softmax)
    return Computed(
        inv_freq=inv_freq,
        attention_factor=scale,
        softmax_scale_ratio=softmax,
        served_length=int(gguf.get(CONTEXT)),
        rotation=_rotation(gguf, row, sizes, theta, inv_freq),
    )


def _plain(gguf: Gguf, row: Architecture, sizes: Sizes, theta: float, scale: float) -> Computed:
    dim = sizes.rotary_dim
    freqs = tuple(_safe(lambda: formulas.default_inv_freq(theta, dim), dim))
    return Computed(
        inv_freq=freqs,
        attention_factor=scale,
        softmax_scale_ratio=1.0,
        served_length=int(gguf.get(CONTEXT)),
        rotation=_rotation(gguf, row, sizes, theta, freqs),
    )


def yarn_share(gguf: Gguf, row: Architecture) -> float:
    """How much yarn's ramp keeps of the unscaled frequencies; 0 means that yarn is off."""
    natural = 1.0 if gguf.get(TYPE) == "yarn" else 0.0
    share = float(gguf.get("rope.scaling.yarn_ext_factor", -1.0)) if row.ramp else -1.0
    return share if share >= 0 else natural


def _scaled(gguf: Gguf, row: Architecture, sizes: Sizes, theta: float, ramp: float) -> list[float]:
    factor, dim = scaling_factor(gguf), sizes.rotary_dim
    inner = _safe(lambda: formulas.linear_inv_freq(theta, dim, factor), dim)
    if not ramp:
        return inner
    fast, slow = _betas(gguf, row)
    yarn = _safe(
        lambda: formulas.yarn_inv_freq(
            theta, dim, factor, _original(gguf), beta_fast=fast, beta_slow=slow
        ),
        dim,
    )
    if ramp == 1:
        return yarn
    return [low + ramp * (f - low) for f, low in zip(yarn, inner, strict=True)]


def _betas(gguf: Gguf, row: Architecture) -> tuple[float, float]:
    if not row.betas:
        return 32.0, 1.0
    fast = float(gguf.get("rope.scaling.yarn_beta_fast", 32.0))
    return fast, float(gguf.get("rope.scaling.yarn_beta_slow", 1.0))


def _original(gguf: Gguf) -> int:
    """The original window that yarn's ramp uses, tokens."""
    return int(gguf.get(ORIGINAL, 0) or gguf.get(CONTEXT))


def _safe(compute: Any, rotary_dim: int) -> list[float]:
    """Frequencies; all are NaN if a number of the file has no logarithm or root."""
    try:
        found: list[float] = compute()
    except (ArithmeticError, ValueError):
        found = []
    if not found or any(isinstance(f, complex) for f in found):
        return [math.nan] * (rotary_dim // 2)
    return found


def _factors(gguf: Gguf, row: Architecture, context: int | None) -> tuple[float, ...] | None:
    """The divisors of the frequencies: the numbers of a tensor, if the graph uses one."""
    if FREQS in gguf.tensors:
        return gguf.factors(FREQS) if row.rope_freqs == "used" else None
    if not row.factors or row.rope_freqs == "loaded":
        return None
    long = longest_context(gguf, context) > int(gguf.get(ORIGINAL, gguf.get(CONTEXT)))
    return gguf.factors(LONG if long else SHORT)


def _divided(freqs: list[float], factors: tuple[float, ...] | None) -> tuple[float, ...]:
    if factors is None:
        return tuple(freqs)
    # The tensor of Step 3.5 holds more factors than the layers without a window use.
    return tuple(
        (0.0 if abs(k) >= STILL / 2 else f / k) if k else math.nan
        for f, k in zip(freqs, factors, strict=False)
    )


def _growth(factor: float, share: float) -> float:
    """1 + 0.1·share·ln(factor), as in the softmax scale of MLA; below 1 for a factor below 1."""
    return 1.0 + 0.1 * share * math.log(factor) if factor > 0 else math.nan


def _log(gguf: Gguf, row: Architecture) -> float:
    if not row.log:
        return 0.0
    value = float(gguf.get("rope.scaling.yarn_log_multiplier", 0.0))
    return value * 10 if row.log == "tenfold" else value


def _ratio(gguf: Gguf, row: Architecture, ramp: float) -> float:
    """The attention factor without the key `attn_factor`. Yarn ignores `yarn_attn_factor`."""
    if not ramp:
        return float(gguf.get("rope.scaling.yarn_attn_factor", 1.0)) if row.ramp else 1.0
    factor, whole = scaling_factor(gguf), _log(gguf, row)
    if not whole:
        return formulas.get_mscale(factor)
    top = whole if row.name == "deepseek2" else 1.0
    return formulas.get_mscale(factor, top) / formulas.get_mscale(factor, whole)


def _rotation(
    gguf: Gguf, row: Architecture, sizes: Sizes, theta: float, inv_freq: tuple[float, ...]
) -> RopeParameters | None:
    """The setting of transformers that has these frequencies for texts of every length."""
    factor = scaling_factor(gguf)
    plain: dict[str, Any] = {
        "rope_type": "default", "rope_theta": theta, "head_dim": sizes.head_dim,
        "max_position_embeddings": int(gguf.get(CONTEXT)),
        "partial_rotary_factor": sizes.rotary_dim / sizes.head_dim,
    }  # fmt: skip
    moving = sum(f != 0 for f in inv_freq)
    if not moving:
        return None
    share = {"rope_type": "proportional", "partial_rotary_factor": moving / len(inv_freq)}
    fast, slow = _betas(gguf, row)
    yarn = {
        "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": _original(gguf),
        "beta_fast": None if fast == 32 else fast, "beta_slow": None if slow == 1 else slow,
    }  # fmt: skip
    # Try the simple settings first. The first one with these frequencies is the answer.
    for fields in ({}, {"rope_type": "linear", "factor": factor}, yarn, share):
        try:
            found = RopeParameters(**{**plain, **fields})
        except (ConfigError, ArithmeticError):
            continue
        pairs = zip(_safe(found.inv_freq, found.rotary_dim), inv_freq, strict=False)
        if all(math.isclose(a, b, rel_tol=1e-9) for a, b in pairs):
            return found
    try:
        return with_frequencies(RopeParameters(**plain), inv_freq)
    except (ConfigError, ArithmeticError):
        return None
