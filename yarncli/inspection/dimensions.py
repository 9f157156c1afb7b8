"""The dimension pairs of one RoPE setting, before and after a scaling."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from yarncli.rope import formulas
from yarncli.rope.parameters import HAVE_RAMP, RopeParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One pair of dimensions, before and after a scaling."""

    index: int
    """Number of the pair; 0 is the fastest."""
    wavelength: float
    """Tokens per turn as trained."""
    rotations: float
    """Turns over the original window as trained."""
    regime: formulas.Regime
    """What the scaling does to the pair."""
    inv_freq: float
    """The trained (unscaled) frequency, radians per token."""
    inv_freq_after: float
    """The frequency in use or planned, radians per token."""

    def to_json(self) -> dict[str, Any]:
        """A row of `inspect --table --json`."""
        return asdict(self)


def dimensions(
    before: RopeParameters, after: RopeParameters, *, original_length: int, length: int
) -> list[Dimension]:
    """The `rotary_dim // 2` pairs of one scope.

    Args:
        before: the setting in the config.
        after: the setting in use or planned.
        original_length: the window that the model was trained with, tokens.
        length: the window of `after`, tokens.

    Example:
        >>> sizes = {"head_dim": 4, "max_position_embeddings": 256}
        >>> p = RopeParameters(rope_type="default", rope_theta=10000.0, **sizes)
        >>> [d.inv_freq for d in dimensions(p, p, original_length=256, length=256)]
        [1.0, 0.01]
    """
    plain = _plain(before)
    scaled = after.inv_freq(length)
    wavelengths = formulas.wavelengths(plain)
    rotations = formulas.rotations(plain, original_length)
    has_ramp = after.rope_type in HAVE_RAMP
    regimes = formulas.regimes(plain, scaled, after.resolved_factor(), has_ramp=has_ramp)
    return [
        Dimension(
            index=i,
            wavelength=wavelengths[i],
            rotations=rotations[i],
            regime=regimes[i],
            inv_freq=plain[i],
            inv_freq_after=scaled[i],
        )
        for i in range(len(plain))
    ]


def _plain(parameters: RopeParameters) -> list[float]:
    """The frequencies before any scaling, with which the model was trained."""
    if parameters.rope_type == "proportional":
        return parameters.inv_freq()
    return formulas.default_inv_freq(parameters.rope_theta, parameters.rotary_dim)
