"""What llama.cpp's graph of a GGUF architecture does with keys and tensors of RoPE.

The table `architectures.json` is made from llama.cpp's source. To add an architecture, run
`scripts/wiring/llama_cpp_runtime.py` on a release that has it, then
`pytest -m "" tests/gguf/test_architectures_live.py`. No row is written by hand; CONTRIBUTING.md,
“A GGUF architecture”, says what to do if a graph does something that no other graph does.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliding:
    """How windowed layers rotate where it is not as the others do."""

    theta: Literal["full"] | float
    """θ without `rope.freq_base_swa`: that of the other layers, or a number."""
    key: bool
    """Whether that key is read, and the attention factor of the file applied."""
    scaled: bool
    """Whether they are scaled like the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One architecture of the runtime; every field is false where nothing is special."""

    name: str
    """Its GGUF name."""
    rotates: Literal["norm", "neox", "none"]
    """Pairs of neighbours, pairs half a head apart, or no RoPE."""
    rope_freqs: Literal["used", "loaded", ""] = ""
    """What becomes of `rope_freqs.weight`; a graph that does not load it refuses the file."""
    factors: bool = False
    """Whether `rope_factors_long.weight` and `rope_factors_short.weight` are loaded."""
    sliding: Sliding | None = None
    """How its windowed layers rotate; `None`: as the others."""
    sections: bool = False
    """Whether `rope.dimension_sections` makes its RoPE multimodal."""
    whole_head: Literal["refuses", "aborts", ""] = ""
    """What becomes of a file whose rotary width is not that of the head."""
    windowed: bool = False
    """Whether layers can attend within a sliding window."""
    pattern: int = 0
    """Of so many layers one has no window, where the file does not say which; 0: it must say."""
    dense_first: bool = False
    """Whether that is the first of them, not the last."""
    full_nope: bool = False
    """Whether the layers without a window do not rotate where others have one."""
    nope: bool = False
    """Whether layers that do not rotate can stand between those that do."""
    switch: bool = False
    """Whether `rope.scaling.finetuned` false switches RoPE off."""
    hybrid: bool = False
    """Whether some layers mix tokens by other means than attention."""
    mla: bool = False
    """Whether it uses multi-head latent attention."""
    late_norm: bool = False
    """Whether the norm of the keys comes after the rotation, and undoes any factor on it."""
    k_scale: bool = False
    """Whether `blk.N.attn_k.scale` multiplies the keys."""
    base_swa: bool = False
    """Whether `rope.freq_base_swa` is read."""
    alpha: bool = False
    """Whether `rope.scaling.alpha` raises θ."""
    betas: bool = False
    """Whether yarn's betas are read."""
    ramp: bool = False
    """Whether yarn's share of the ramp and attention factor are read."""
    log: Literal["tenfold", "as is", ""] = ""
    """How `rope.scaling.yarn_log_multiplier` is read."""
    softmax: bool = False
    """Whether yarn multiplies the softmax scale."""
    compress: bool = False
    """Whether it has a second base, whose layers alone are scaled (DeepSeek V4)."""


@functools.cache
def load_table() -> Mapping[str, Any]:
    """The table as it stands in its file: `engine`, `version`, `date`, `architectures`."""
    path = Path(__file__).with_name("architectures.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def find_architecture(name: str) -> Architecture | None:
    """The row of an architecture; `None` where the runtime does not know it.

    Args:
        name: what `general.architecture` says.
    """
    row = load_table()["architectures"].get(name)
    if row is None:
        return None
    sliding = Sliding(**row["sliding"]) if "sliding" in row else None
    return Architecture(name=name, **{**row, "sliding": sliding})
