"""What llama.cpp's graph of a GGUF architecture does with the keys and tensors for RoPE.

The table `architectures.json` is made from llama.cpp's source. To add an architecture, run
`scripts/wiring/llama_cpp_runtime.py` on a release that has it, then
`scripts/wiring/llama_cpp_runs.py`, which runs it. No row is written by hand; CONTRIBUTING.md, “A
GGUF architecture”, says what to do if a graph does something that no other graph does.
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
    """How the layers with a sliding window rotate, if they rotate differently from the others."""

    theta: Literal["full"] | float
    """θ if the file has no `rope.freq_base_swa`: "full" takes that of the other layers."""
    key: bool
    """Whether `rope.freq_base_swa` is read; if not, the attention factor is not applied either."""
    scaled: bool
    """Whether these layers are scaled like the others."""
    factor: bool = True
    """Whether the file's attention factor is applied, if `key` is true."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One architecture of llama.cpp. A field is false or empty unless the architecture needs it."""

    name: str
    """Its GGUF name."""
    rotates: Literal["norm", "neox", "none"]
    """norm: rotates neighbouring dimensions as pairs; neox: dimensions half a head apart."""
    run: bool = False
    """Whether llama.cpp ran tiny models of it and did what the row says; else it was only read."""
    fixed: Literal["ignores", "aborts", ""] = ""
    """Whether it rotates by θ 10000 without scaling whatever the file says, and what it does with
    another θ in the file."""
    blocks: int = 0
    """The number of blocks with which alone it rotates; 0: with any."""
    rope_freqs: Literal["used", "loaded", ""] = ""
    """What the graph does with `rope_freqs.weight`. Empty: it refuses a file with that tensor."""
    factors: bool = False
    """Whether `rope_factors_long.weight` and `rope_factors_short.weight` are loaded."""
    sliding: Sliding | None = None
    """How the layers with a sliding window rotate; `None`: like the other layers."""
    sections: bool = False
    """Whether `rope.dimension_sections` makes its RoPE multimodal."""
    whole_head: Literal["refuses", "aborts", ""] = ""
    """What llama.cpp does if the rotary width of a file differs from the width of a head."""
    windowed: bool = False
    """Whether layers can attend within a sliding window."""
    default_window: int = 0
    """The window if the file states none, tokens; 0: then no layer has one."""
    needs_window: bool = False
    """Whether llama.cpp aborts on a file that states no window."""
    windowed_blocks: int = 0
    """The number of blocks with which alone layers have a window; 0: with any."""
    pattern: int = 0
    """One of this many layers has no window, if the file does not say which; 0: it must say."""
    dense_first: bool = False
    """Whether the first layer of each `pattern` has no window, instead of the last."""
    full_nope: bool = False
    """Whether layers without a window do not rotate, in a file where other layers have one."""
    nope: bool = False
    """Whether some layers may rotate and others not."""
    switch: bool = False
    """Whether `rope.scaling.finetuned` false switches RoPE off."""
    hybrid: bool = False
    """Whether some layers mix tokens by other means than attention."""
    mla: bool = False
    """Whether it uses multi-head latent attention."""
    late_norm: bool = False
    """Whether the norm of the keys comes after the rotation, so that it undoes any factor. Of Llama
    4, the model with 128 experts has no such norm; it is treated like the others."""
    k_scale: bool = False
    """Whether `blk.N.attn_k.scale` multiplies the keys."""
    base_swa: bool = False
    """Whether `rope.freq_base_swa` is read."""
    alpha: bool = False
    """Whether `rope.scaling.alpha` raises θ."""
    betas: bool = False
    """Whether yarn's betas are read."""
    ramp: bool = False
    """Whether the keys for yarn's share of the ramp and its attention factor are read."""
    log: Literal["tenfold", "as is", ""] = ""
    """How `rope.scaling.yarn_log_multiplier` is read."""
    softmax: bool = False
    """Whether yarn multiplies the softmax scale."""
    compress: bool = False
    """Whether some layers have a second θ, and only those are scaled (DeepSeek V4)."""


@functools.cache
def load_table() -> Mapping[str, Any]:
    """The table as in its file: `engine`, `version`, `date`, `architectures`."""
    path = Path(__file__).with_name("architectures.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def find_architecture(name: str) -> Architecture | None:
    """The row of an architecture; `None` if llama.cpp does not know the architecture.

    Args:
        name: the value of `general.architecture`.
    """
    row = load_table()["architectures"].get(name)
    if row is None:
        return None
    sliding = Sliding(**row["sliding"]) if "sliding" in row else None
    return Architecture(name=name, **{**row, "sliding": sliding})
