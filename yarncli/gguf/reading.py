"""The RoPE setting with which transformers computes what llama.cpp computes from a GGUF file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from yarncli.errors import ConfigError
from yarncli.gguf.facts import CONTEXT, FREQS, LONG, ORIGINAL, SHORT, THETA, Gguf
from yarncli.gguf.loading import Failure
from yarncli.gguf.runtime import RUNTIME_THETA, Computed, run, scaling_factor
from yarncli.rope.formulas import get_mscale
from yarncli.rope.parameters import RopeParameters, with_frequencies

# Relative; the file stores its numbers in single precision.
_TOLERANCE = 1e-6
# The original window of all published models with llama3 scaling. llama.cpp's converter does not
# write it to the file.
_LLAMA3_ORIGINAL = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufRope:
    """The RoPE of a file that llama.cpp loads."""

    architecture: str
    """GGUF name of the architecture."""
    rope_theta: float
    """θ; llama.cpp's default if the file has none."""
    head_dim: int
    """All dimensions of a head; with latent attention only those that rotate."""
    rotary_dim: int
    """The dimensions of a head that rotate."""
    window: int
    """The context that the file states, tokens: a server serves at most this."""
    original_length: int | None
    """The original window, tokens; `None` if the file is scaled but does not state it."""
    computed: Computed
    """What the runtime computes."""
    parameters: RopeParameters | None
    """The same as a setting of transformers; `None` if transformers has no such setting."""


def read_gguf(gguf: Gguf) -> GgufRope | Failure:
    """Read the RoPE of a file, or the reason why llama.cpp does not run it with RoPE."""
    computed, sizes = run(gguf), gguf.sizes()
    if isinstance(computed, Failure):
        return computed
    assert sizes is not None  # otherwise `run` returns a failure
    parameters = to_transformers(gguf, computed)
    original = gguf.get(ORIGINAL) or None
    if original is None and parameters is not None and parameters.rope_type == "default":
        original = gguf.get(CONTEXT)
    return GgufRope(
        architecture=gguf.architecture,
        rope_theta=float(gguf.get(THETA, RUNTIME_THETA)),
        head_dim=sizes.head_dim,
        rotary_dim=sizes.rotary_dim,
        window=computed.served_length,
        original_length=original,
        computed=computed,
        parameters=parameters,
    )


def to_transformers(gguf: Gguf, computed: Computed) -> RopeParameters | None:
    """The setting of transformers with the same frequencies and temperature.

    Args:
        gguf: the file.
        computed: what the runtime computes from it.
    """
    p = computed.rotation
    try:
        if p is not None and (LONG in gguf.tensors or SHORT in gguf.tensors):
            return _lists(gguf, computed, p)
        return p and _with_temperature(gguf, computed, _as_llama3(gguf, p) or p)
    except (ConfigError, ArithmeticError):
        return None


def _as_llama3(gguf: Gguf, p: RopeParameters) -> RopeParameters | None:
    """Llama 3.1's setting, if it gives the factors that a converter wrote to the file."""
    factors = gguf.factors(FREQS) if p.rope_type == "longrope" else None
    if not factors or max(factors) <= 1 or scaling_factor(gguf) != 1:
        return None
    for original in (gguf.get(ORIGINAL), _LLAMA3_ORIGINAL):
        if original:
            found = RopeParameters(
                rope_type="llama3", rope_theta=p.rope_theta, head_dim=p.head_dim,
                max_position_embeddings=p.max_position_embeddings,
                partial_rotary_factor=p.partial_rotary_factor, factor=max(factors),
                original_max_position_embeddings=original, low_freq_factor=1.0,
                high_freq_factor=4.0,
            )  # fmt: skip
            pairs = zip(found.inv_freq(), p.inv_freq(), strict=True)
            if all(math.isclose(a, b, rel_tol=_TOLERANCE) for a, b in pairs):
                return found
    return None


def _lists(gguf: Gguf, computed: Computed, p: RopeParameters) -> RopeParameters:
    """LongRoPE with both lists: transformers chooses by text length, llama.cpp by context size."""
    factor, ones = scaling_factor(gguf), (1.0,) * (p.rotary_dim // 2)
    long, short = (gguf.factors(name) or ones for name in (LONG, SHORT))
    original = gguf.get(ORIGINAL, gguf.get(CONTEXT))
    return replace(
        with_frequencies(p, computed.inv_freq),
        long_factor=tuple(k * factor for k in long),
        short_factor=tuple(k * factor for k in short),
        original_max_position_embeddings=original,
        attention_factor=computed.attention_factor,
    )


def _with_temperature(gguf: Gguf, computed: Computed, p: RopeParameters) -> RopeParameters | None:
    scale, softmax = computed.attention_factor, computed.softmax_scale_ratio
    fields: dict[str, Any] = {}
    if not math.isclose(softmax, 1.0, rel_tol=_TOLERANCE):
        # DeepSeek's temperature: get_mscale(factor, mscale_all_dim)².
        growth = get_mscale(p.resolved_factor()) - 1
        if p.rope_type != "yarn" or not growth:
            return None
        fields["mscale_all_dim"] = (math.sqrt(softmax) - 1) / growth
    if math.isclose(p.effective_attention_factor(), scale, rel_tol=_TOLERANCE):
        return replace(p, **fields)
    if p.rope_type == "proportional":
        return None
    if p.rope_type != "yarn":
        p = with_frequencies(p, computed.inv_freq)
        fields["original_max_position_embeddings"] = gguf.get(ORIGINAL) or None
    return replace(p, attention_factor=scale, **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference between a file and a setting."""

    ratios: tuple[float, ...]
    """Frequency of the file / of the setting, per pair; empty if the number of pairs differs."""
    attention_factor: float
    """Attention factor of the file / of the setting."""
    window: int
    """Window of the file minus the intended window, tokens."""

    @property
    def worst(self) -> int | None:
        """Index of the pair whose frequency differs most; `None` if all agree."""
        off = [abs(math.log(r)) if r > 0 else math.inf for r in self.ratios]
        far = max(range(len(off)), key=off.__getitem__, default=None)
        return far if far is not None and not off[far] < _TOLERANCE else None

    @property
    def rotates_alike(self) -> bool:
        """Whether frequencies and attention factor are the same; the window is not compared."""
        same = math.isclose(self.attention_factor, 1.0, rel_tol=_TOLERANCE)
        return bool(self.ratios) and self.worst is None and same

    @property
    def is_none(self) -> bool:
        """Whether there is no difference."""
        return self.rotates_alike and self.window == 0


def compare(computed: Computed, setting: RopeParameters, length: int) -> Difference:
    """Compare what llama.cpp computes with what transformers computes.

    Args:
        computed: what llama.cpp computes from the file.
        setting: the setting of the checkpoint.
        length: the window of the checkpoint, tokens.
    """
    wanted: Sequence[float] = setting.inv_freq(length)
    same = len(wanted) == len(computed.inv_freq)
    pairs = zip(computed.inv_freq, wanted, strict=True) if same else ()
    return Difference(
        ratios=tuple((a / b if b else (1.0 if not a else math.inf)) for a, b in pairs),
        attention_factor=computed.attention_factor / setting.effective_attention_factor(),
        window=computed.served_length - length,
    )
