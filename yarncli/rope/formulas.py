"""Inverse frequencies and attention factors of every method, in double precision.

Two sources are cited throughout. *Paper*: YaRN, arXiv:2309.00071. *Reference code*: the
`scaled_rope/` folder of github.com/jquesnelle/yarn. Where the two differ the code is followed,
because it is what transformers and every serving engine compute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Regime = Literal["kept", "ramp", "interpolated", "rescaled"]


def default_inv_freq(rope_theta: float, rotary_dim: int) -> list[float]:
    """θ^(-2i/d) for i < d/2: inverse frequencies of plain RoPE, radians per token.

    Reference: arXiv:2104.09864 §3.2.2; paper Eq. 13 (as wavelengths).

    Example:
        >>> default_inv_freq(10000.0, 4)
        [1.0, 0.01]
    """
    return [rope_theta ** (-2 * i / rotary_dim) for i in range(rotary_dim // 2)]


def linear_inv_freq(rope_theta: float, rotary_dim: int, factor: float) -> list[float]:
    """Plain frequencies divided by `factor` (position interpolation).

    Reference: arXiv:2306.15595; paper Eq. 10–11; reference code
    `LlamaLinearScaledRotaryEmbedding.py`.
    """
    return [f / factor for f in default_inv_freq(rope_theta, rotary_dim)]


def ntk_theta(rope_theta: float, rotary_dim: int, factor: float) -> float:
    """The base of NTK-aware scaling: θ·s^(d/(d-2)).

    Reference: paper Eq. 16; reference code `LlamaNTKScaledRotaryEmbedding.py`.

    Args:
        rope_theta: base the model was trained with.
        rotary_dim: rotary dimensions d, more than 2.
        factor: s = new length / original length.

    Example:
        >>> round(ntk_theta(10000.0, 128, 4.0), 1)
        40889.9
    """
    return rope_theta * math.pow(factor, rotary_dim / (rotary_dim - 2))


def dynamic_theta(
    rope_theta: float,
    rotary_dim: int,
    factor: float,
    length: int,
    original_max_position_embeddings: int,
) -> float:
    """The base of dynamic NTK scaling for a sequence of `length` tokens.

    θ·(s·l/L - (s-1))^(d/(d-2)) beyond L tokens, θ up to there. With s = 1 this is the paper's
    Dynamic Scaling: NTK-aware scaling by exactly l/L.

    Reference: paper §3.3; reference code `LlamaDynamicScaledRotaryEmbedding.py`; transformers
    `_compute_dynamic_ntk_parameters` (which reads L from `max_position_embeddings`).
    """
    length = max(length, original_max_position_embeddings)
    scale = factor * length / original_max_position_embeddings - (factor - 1)
    return ntk_theta(rope_theta, rotary_dim, scale)


def find_correction_dim(
    num_rotations: float,
    rotary_dim: int,
    rope_theta: float,
    original_max_position_embeddings: int,
) -> float:
    """The (fractional) dimension pair that turns `num_rotations` times over the original window.

    Reference: paper Eq. 17 solved for d; reference code `LlamaYaRNScaledRotaryEmbedding.py`.
    """
    turns = original_max_position_embeddings / (num_rotations * 2 * math.pi)
    return rotary_dim * math.log(turns) / (2 * math.log(rope_theta))


def find_correction_range(
    beta_fast: float,
    beta_slow: float,
    rotary_dim: int,
    rope_theta: float,
    original_max_position_embeddings: int,
    *,
    truncate: bool = True,
) -> tuple[float, float]:
    """First and last dimension pair of the ramp between kept and interpolated frequencies.

    Args:
        beta_fast: rotations above which a frequency is kept (paper: β).
        beta_slow: rotations below which it is interpolated (paper: α).
        rotary_dim: rotary dimensions.
        rope_theta: base.
        original_max_position_embeddings: original window, tokens.
        truncate: round the two ends outwards to whole dimensions, as the reference code does.

    Reference: reference code `LlamaYaRNScaledRotaryEmbedding.py`; `truncate` as in transformers.

    Example:
        >>> find_correction_range(32, 1, 128, 10000.0, 4096)
        (20, 46)
    """
    low = find_correction_dim(beta_fast, rotary_dim, rope_theta, original_max_position_embeddings)
    high = find_correction_dim(beta_slow, rotary_dim, rope_theta, original_max_position_embeddings)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, rotary_dim - 1)


def linear_ramp_factor(low: float, high: float, pairs: int) -> list[float]:
    """0 up to `low`, 1 from `high`, linear in the dimension index between; `pairs` values.

    Differs from the paper: Eq. 18 is linear in the number of rotations. Reference code and every
    engine are linear in the index, so this is too; single dimensions differ by tens of percent.

    Example:
        >>> linear_ramp_factor(1, 3, 5)
        [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if low == high:
        high += 0.001  # the reference code's guard against a division by zero
    return [min(max((i - low) / (high - low), 0.0), 1.0) for i in range(pairs)]


def yarn_inv_freq(
    rope_theta: float,
    rotary_dim: int,
    factor: float,
    original_max_position_embeddings: int,
    *,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> list[float]:
    """NTK-by-parts frequencies, which YaRN uses: fast ones kept, slow ones interpolated.

    Reference: paper Eq. 19–20 with the index-linear ramp of reference code
    `LlamaYaRNScaledRotaryEmbedding.py`, not Eq. 18; transformers `_compute_yarn_parameters`.
    """
    # r is 0 for fast pairs, which stay as they are, and 1 for slow ones, which are divided.
    low, high = find_correction_range(
        beta_fast,
        beta_slow,
        rotary_dim,
        rope_theta,
        original_max_position_embeddings,
        truncate=truncate,
    )
    kept = default_inv_freq(rope_theta, rotary_dim)
    ramp = linear_ramp_factor(low, high, rotary_dim // 2)
    return [f / factor * r + f * (1 - r) for f, r in zip(kept, ramp, strict=True)]


def get_mscale(factor: float, mscale: float = 1.0) -> float:
    """0.1·mscale·ln(s) + 1, and 1 where s ≤ 1: √(1/t) of the paper's temperature t.

    Reference: paper Eq. 22; reference code `LlamaYaRNScaledRotaryEmbedding.py`; `mscale` as in
    DeepSeek-V2's modelling code.

    Example:
        >>> round(get_mscale(4.0), 6), get_mscale(1.0)
        (1.138629, 1.0)
    """
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def yarn_attention_factor(
    factor: float, mscale: float | None = None, mscale_all_dim: float | None = None
) -> float:
    """The multiplier on cos and sin where `attention_factor` is not given.

    `mscale` and `mscale_all_dim` count only if neither is 0 or missing, as in transformers.

    Reference: paper Eq. 21–22; transformers `_compute_yarn_parameters`.

    Example:
        >>> round(yarn_attention_factor(4.0), 6), yarn_attention_factor(4.0, 1.0, 1.0)
        (1.138629, 1.0)
    """
    if mscale and mscale_all_dim:
        return get_mscale(factor, mscale) / get_mscale(factor, mscale_all_dim)
    return get_mscale(factor)


def llama3_inv_freq(
    rope_theta: float,
    rotary_dim: int,
    factor: float,
    original_max_position_embeddings: int,
    *,
    low_freq_factor: float,
    high_freq_factor: float,
) -> list[float]:
    """Llama 3.1's variant of NTK-by-parts: the ramp is linear in the rotations.

    Reference: `apply_scaling` of meta-llama/llama-models `models/llama3/reference_impl/model.py`;
    transformers `_compute_llama3_parameters`.

    Where `high_freq_factor` is not above `low_freq_factor` (Llama 4 Scout: both are 1) there is no
    ramp: transformers 5.23 warns, and frequencies change in one step at `low_freq_factor`.
    """

    # Long wavelengths are divided, short ones kept, and those between are blended.
    def scaled(f: float) -> float:
        wavelength = 2 * math.pi / f
        if wavelength > original_max_position_embeddings / low_freq_factor:
            return f / factor
        if (
            wavelength < original_max_position_embeddings / high_freq_factor
            or high_freq_factor <= low_freq_factor
        ):
            return f
        rotations = original_max_position_embeddings / wavelength
        smooth = (rotations - low_freq_factor) / (high_freq_factor - low_freq_factor)
        return (1 - smooth) * f / factor + smooth * f

    return [scaled(f) for f in default_inv_freq(rope_theta, rotary_dim)]


def longrope_inv_freq(rope_theta: float, rotary_dim: int, factors: Sequence[float]) -> list[float]:
    """Plain frequencies divided by one factor per dimension pair (searched, not computed).

    Reference: arXiv:2402.13753 Eq. 2; transformers `_compute_longrope_parameters`.
    """
    plain = default_inv_freq(rope_theta, rotary_dim)
    return [f / k for f, k in zip(plain, factors, strict=True)]


def longrope_attention_factor(factor: float, original_max_position_embeddings: int) -> float:
    """√(1 + ln s / ln L), and 1 where s ≤ 1.

    Reference: microsoft/LongRoPE; transformers `_compute_longrope_parameters`.
    """
    if factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(factor) / math.log(original_max_position_embeddings))


def proportional_inv_freq(
    rope_theta: float, head_dim: int, partial_rotary_factor: float, factor: float
) -> list[float]:
    """Gemma 4's RoPE: the first part of the head turns, the rest has frequency 0.

    Exponents run over `head_dim`, not over the rotating part.

    Reference: transformers `_compute_proportional_rope_parameters`.
    """
    angles = int(partial_rotary_factor * head_dim // 2)
    turning = [rope_theta ** (-2 * i / head_dim) / factor for i in range(angles)]
    return turning + [0.0] * (head_dim // 2 - angles)


def wavelengths(inv_freq: Sequence[float]) -> list[float]:
    """Tokens per full turn of each dimension pair, 2π / frequency; infinite for frequency 0.

    Reference: paper Eq. 13.
    """
    return [2 * math.pi / f if f else math.inf for f in inv_freq]


def rotations(inv_freq: Sequence[float], length: int) -> list[float]:
    """Full turns of each dimension pair over `length` tokens.

    Reference: paper Eq. 17.
    """
    return [length * f / (2 * math.pi) for f in inv_freq]


def regimes(
    before: Sequence[float], after: Sequence[float], factor: float, *, has_ramp: bool
) -> list[Regime]:
    """How a scaling changed each dimension pair: kept, divided by `factor`, or something between.

    The comparison allows 1e-9, far above rounding and far below any ramp step.

    Args:
        before: frequencies as trained.
        after: frequencies in use.
        factor: s = new length / original length.
        has_ramp: whether the method blends kept and interpolated frequencies, as `yarn` and
            `llama3` do. Other methods divide each pair by a different amount: it is "rescaled".
    """

    def regime(old: float, new: float) -> Regime:
        if math.isclose(old, new, rel_tol=1e-9):
            return "kept"
        if math.isclose(old, new * factor, rel_tol=1e-9):
            return "interpolated"
        return "ramp" if has_ramp else "rescaled"

    return [regime(old, new) for old, new in zip(before, after, strict=True)]


def factor_for(length: int, original: int) -> float:
    """The double s nearest to length/original for which int(s·original) == length (tokens).

    Engines compute the window with this product, and a factor that is too small by one bit gives
    one token less.

    Example:
        >>> factor_for(131072, 32768)
        4.0
    """
    factor = length / original
    while int(factor * original) < length:
        factor = math.nextafter(factor, math.inf)
    return factor
