"""One RoPE setting as a frozen value, and the numbers that follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yarncli.errors import ConfigError, NotComputedError
from yarncli.rope import formulas

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "llama3", "longrope", "proportional")

# The types whose formula starts from `original_max_position_embeddings`.
HAVE_ORIGINAL = ("yarn", "llama3", "longrope")

# The types that keep fast pairs, interpolate slow ones, and blend the two in a ramp between.
HAVE_RAMP = ("yarn", "llama3")

# Names that older checkpoints and other runtimes use for the types above.
TYPE_ALIASES = {"su": "longrope", "mrope": "default", "deepseek_yarn": "yarn"}

# The fields without which a type cannot be computed.
_NEEDS = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}


def canonical_rope_type(name: str) -> str:
    """The name transformers uses for `name` (`su` → `longrope`, `mrope` → `default`)."""
    return TYPE_ALIASES.get(name, name)


# Far above any model, far below what would fill the memory.
WIDEST_HEAD = 4096
# Tokens of a window: each is a whole number that a double holds exactly.
LONGEST = 2**53
# Far above any factor or number of rotations, far below what overflows in a formula.
_LARGEST = 1e9
# The numbers of a setting: the least and the most that each may be.
_RANGES = {
    "rope_theta": (math.nextafter(1, 2), 1e30),
    "factor": (1, _LARGEST),
    "attention_factor": (1 / _LARGEST, _LARGEST),
    "beta_fast": (1 / _LARGEST, _LARGEST),
    "beta_slow": (1 / _LARGEST, _LARGEST),
    "low_freq_factor": (1 / _LARGEST, _LARGEST),
    "high_freq_factor": (1 / _LARGEST, _LARGEST),
    "mscale": (1 / _LARGEST, _LARGEST),
    "mscale_all_dim": (1 / _LARGEST, _LARGEST),
}
# Multipliers of cos and sin, or of the temperature, that some engines read.
_MULTIPLIERS = {"attn_factor", "extrapolation_factor", "short_mscale", "long_mscale"}
# As in transformers; a llama3 factor of 0 is refused where llama3 needs it.
_ZERO_IS_UNSET = {*_RANGES} - {"rope_theta", "factor", "attention_factor"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeParameters:
    """One RoPE setting: the fields of transformers' `RopeParameters`, plus the sizes they act on.

    `None` means "not given": the defaults of the formulas apply.
    """

    rope_type: str
    """One of `ROPE_TYPES`."""
    rope_theta: float
    """The base (θ) of the frequencies."""
    head_dim: int
    """The width one head is split into for rotation (`qk_rope_head_dim` for MLA)."""
    max_position_embeddings: int
    """The window that the config states, tokens."""
    partial_rotary_factor: float = 1.0
    """The share of `head_dim` that rotates; see `rotary_dim`."""
    factor: float | None = None
    """New window / original window; `None`: as `resolved_factor` computes it."""
    original_max_position_embeddings: int | None = None
    """The original window, tokens; `None`: `max_position_embeddings`."""
    attention_factor: float | None = None
    """yarn, longrope: the multiplier on cos and sin; `None`: the formula's."""
    beta_fast: float | None = None
    """yarn: rotations over the original window above which a frequency is kept; `None`: 32."""
    beta_slow: float | None = None
    """yarn: rotations below which a frequency is fully interpolated; `None`: 1."""
    truncate: bool | None = None
    """yarn: whether the ends of the ramp are rounded to whole dimensions; `None`: yes."""
    mscale: float | None = None
    """yarn: attention factor = get_mscale(factor, `mscale`) / get_mscale(factor, `mscale_all_dim`).

    The pair counts only where both are given and neither is 0.
    """
    mscale_all_dim: float | None = None
    """yarn: the divisor's weight in the formula of `mscale`."""
    low_freq_factor: float | None = None
    """llama3: wavelengths above original window / this are scaled fully."""
    high_freq_factor: float | None = None
    """llama3: wavelengths below original window / this are kept."""
    short_factor: tuple[float, ...] | None = None
    """longrope: one factor per frequency, for texts up to the original window."""
    long_factor: tuple[float, ...] | None = None
    """longrope: one factor per frequency, for longer texts."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Every other key, carried but not interpreted (`mrope_section`, `llama_4_scaling_beta`, …)."""

    def __post_init__(self) -> None:
        _validate(self)

    @property
    def rotary_dim(self) -> int:
        """Number of dimensions of a head that rotate; `inv_freq` has half as many entries.

        Proportional RoPE (Gemma 4) counts the whole head; its last dimensions have frequency 0.
        """
        if self.rope_type == "proportional":
            return self.head_dim
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def original_length(self) -> int:
        """The window the frequencies refer to: the original one where given, else the window."""
        return self.original_max_position_embeddings or self.max_position_embeddings

    def resolved_factor(self) -> float:
        """`factor`, or the ratio of the two lengths where it is not given.

        Reference: transformers `modeling_rope_utils.py`, `_compute_yarn_parameters`.
        """
        if self.factor is not None:
            return self.factor
        if self.rope_type in ("yarn", "longrope"):
            return self.max_position_embeddings / self.original_length
        return 1.0

    def inv_freq(self, length: int | None = None) -> list[float]:
        """Inverse frequencies, radians per token, `rotary_dim // 2` values in double precision.

        Args:
            length: tokens in the sequence; matters for `dynamic` (the base follows it) and
                `longrope` (long factors beyond the original window). `None`: the frequencies
                before any text is seen.
        """
        theta, dim = self.rope_theta, self.rotary_dim
        match self.rope_type:
            case "default":
                return formulas.default_inv_freq(theta, dim)
            case "linear":
                return formulas.linear_inv_freq(theta, dim, self.resolved_factor())
            case "dynamic":
                theta = formulas.dynamic_theta(
                    theta, dim, self.resolved_factor(), length or 0, self.max_position_embeddings
                )
                return formulas.default_inv_freq(theta, dim)
            case "yarn":
                return formulas.yarn_inv_freq(
                    theta,
                    dim,
                    self.resolved_factor(),
                    self.original_length,
                    beta_fast=self.beta_fast or 32.0,
                    beta_slow=self.beta_slow or 1.0,
                    truncate=self.truncate is not False,
                )
            case "llama3":
                return formulas.llama3_inv_freq(
                    theta,
                    dim,
                    self.resolved_factor(),
                    self.original_length,
                    low_freq_factor=_given(self.low_freq_factor),
                    high_freq_factor=_given(self.high_freq_factor),
                )
            case "longrope":
                long = length is not None and length > self.original_length
                factors = self.long_factor if long else self.short_factor
                return formulas.longrope_inv_freq(theta, dim, factors or ())
            case "proportional":
                return formulas.proportional_inv_freq(
                    theta, self.head_dim, self.partial_rotary_factor, self.resolved_factor()
                )
        raise ConfigError(f"rope_type {self.rope_type!r} is not one that yarncli computes.")

    def effective_attention_factor(self) -> float:
        """The multiplier on cos and sin that transformers applies; 1 for most types."""
        if self.rope_type not in ("yarn", "longrope"):
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        factor = self.resolved_factor()
        if self.rope_type == "yarn":
            return formulas.yarn_attention_factor(factor, self.mscale, self.mscale_all_dim)
        return formulas.longrope_attention_factor(factor, self.original_length)


def with_frequencies(p: RopeParameters, inv_freq: Sequence[float]) -> RopeParameters:
    """A setting that gives these frequencies for every text.

    Args:
        p: the θ and the sizes.
        inv_freq: radians per token.
    """
    plain = formulas.default_inv_freq(p.rope_theta, p.rotary_dim)
    factors = tuple(a / b for a, b in zip(plain, inv_freq, strict=True))
    return RopeParameters(
        rope_type="longrope", rope_theta=p.rope_theta, head_dim=p.head_dim,
        max_position_embeddings=p.max_position_embeddings,
        partial_rotary_factor=p.partial_rotary_factor,
        short_factor=factors, long_factor=factors,
    )  # fmt: skip


def mla_softmax(p: RopeParameters) -> float:
    """m(s·mscale_all_dim)²: DeepSeek's temperature on the softmax scale; 1 where not given.

    Reference: transformers `modeling_deepseek_v3.py`, `yarn_apply_mscale`.
    """
    return formulas.get_mscale(p.resolved_factor(), p.mscale_all_dim or 0.0) ** 2


def _given(value: float | None) -> float:
    assert value is not None  # _validate has refused anything else
    return value


def _validate(p: RopeParameters) -> None:
    """Refuse values with which no formula works.

    Raises:
        ConfigError: names the field and its value; `NotComputedError` where it is out of range.
    """
    if p.rope_type not in ROPE_TYPES:
        raise ConfigError(f"rope_type is {p.rope_type!r}; known types are {', '.join(ROPE_TYPES)}.")
    for fault in _size_faults(p):
        raise NotComputedError(fault)
    for fault in _type_faults(p):
        raise ConfigError(fault)


def _size_faults(p: RopeParameters) -> Iterator[str]:
    """What is wrong with the values that every type has."""
    if p.head_dim > WIDEST_HEAD:
        yield f"head_dim is {p.head_dim:,}; it must be at most {WIDEST_HEAD:,}."
    if p.head_dim <= 0 or p.rotary_dim <= 0 or p.rotary_dim % 2:
        yield (
            f"The rotary dimension is {p.rotary_dim} (head_dim {p.head_dim} × "
            f"partial_rotary_factor {p.partial_rotary_factor}); it must be even and positive."
        )
    for name in ("max_position_embeddings", "original_max_position_embeddings"):
        length = getattr(p, name)
        if length is not None and not 0 < length <= LONGEST:
            yield f"{name} is {length}; it must be positive and at most {LONGEST:,}."
    if p.max_position_embeddings > _LARGEST * p.original_length:
        # If no factor is given, engines use this quotient as the factor.
        yield (
            f"max_position_embeddings is {p.max_position_embeddings}, more than {_LARGEST:g} times "
            f"the original window of {p.original_length}."
        )
    for name, (lowest, highest) in _RANGES.items():
        value = getattr(p, name)
        is_given = value is not None and (value != 0 or name not in _ZERO_IS_UNSET)
        if is_given and not lowest <= value <= highest:
            yield f"{name} is {value}; it must be {_shown(lowest)} and at most {highest:g}."
    for name in _MULTIPLIERS & p.extra.keys():
        value = p.extra[name]
        is_number = isinstance(value, (int, float)) and 1 / _LARGEST <= value <= _LARGEST
        if value is not None and not is_number:
            yield f"{name} is {value!r:.40}; it must be a number from 1e-09 to 1e+09."


def _shown(lowest: float) -> str:
    return "above 1" if 1 < lowest < 2 else f"at least {lowest:g}"


def _type_faults(p: RopeParameters) -> Iterator[str]:
    """What is wrong with the values that one type needs, in a setting without size faults."""
    if p.rope_type == "dynamic" and p.rotary_dim <= 2:
        yield (
            f"rope_type 'dynamic' needs more than 2 rotary dimensions; this model rotates "
            f"{p.rotary_dim}."
        )
    for name in _NEEDS.get(p.rope_type, ()):
        if getattr(p, name) is None:
            yield f"rope_type {p.rope_type!r} needs {name}, which is missing."
    for name in ("short_factor", "long_factor") if p.rope_type == "longrope" else ():
        factors = getattr(p, name)
        if len(factors) != p.rotary_dim // 2:
            yield (
                f"{name} has {len(factors)} entries; the model rotates {p.rotary_dim} dimensions, "
                f"so it needs {p.rotary_dim // 2}."
            )
        if not all(1 / _LARGEST <= f <= _LARGEST for f in factors):
            yield f"{name} must hold numbers from {1 / _LARGEST:g} to {_LARGEST:g} only."
    if p.rope_type == "longrope" and p.original_length < 2:
        yield f"The original window is {p.original_length}; longrope takes the logarithm of it."
    if p.rope_type == "llama3" and not p.low_freq_factor:
        yield f"low_freq_factor is {p.low_freq_factor}; it must be positive."
    fast, slow = p.beta_fast or 32.0, p.beta_slow or 1.0
    if p.rope_type == "yarn" and fast < slow:
        yield f"beta_fast ({fast}) must not be smaller than beta_slow ({slow})."
