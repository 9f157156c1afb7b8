"""The settings of the golden logits, as transformers has them, and what a file of each holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yarncli.rope.parameters import RopeParameters

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "gguf" / "golden.json").read_text(encoding="utf-8")
)
TOKENS = GOLDEN["tokens"]
LENGTH = 2048
PLACES = (100, 299, 599)
# Tolerance between the logits of llama.cpp and transformers in single precision. A neighbouring
# setting differs by 0.2 to 5.
TOLERANCE = 2e-3


def setting(rope_type: str = "yarn", **fields: Any) -> RopeParameters:
    """A setting of the demo, whose window is 256 tokens."""
    sizes = {"rope_theta": 1e4, "head_dim": 32, "max_position_embeddings": LENGTH}
    return RopeParameters(rope_type=rope_type, **{**sizes, **fields})


def yarn8(**fields: Any) -> RopeParameters:
    """YaRN by 8."""
    return setting(factor=8.0, original_max_position_embeddings=256, **fields)


_LISTS = tuple(1 + i / 8 for i in range(16))
SETTINGS: dict[str, RopeParameters] = {
    "plain": setting("default"),
    "linear 8": setting("linear", factor=8.0, max_position_embeddings=256),
    "ntk 8": setting("default", rope_theta=91895.8683997628),
    "yarn 8": yarn8(),
    "yarn 8, temperature 1 (attn_factor 1/m)": yarn8(attention_factor=1.0),
    "yarn 8, temperature 1.3 (attn_factor 1.3/m)": yarn8(attention_factor=1.3),
    "yarn 8 betas 64/2, rope_freqs + attn_factor m": yarn8(beta_fast=64.0, beta_slow=2.0),
    "yarn 8 truncate false, rope_freqs + attn_factor m": yarn8(truncate=False),
    "llama3 8, rope_freqs": setting(
        "llama3", factor=8.0, original_max_position_embeddings=256, low_freq_factor=1.0,
        high_freq_factor=4.0,
    ),
    "longrope long factors, rope_freqs + attn_factor": setting(
        "longrope", factor=8.0, original_max_position_embeddings=256, short_factor=(1.0,) * 16,
        long_factor=_LISTS, attention_factor=1.17,
    ),
    "ntk-by-parts 8, rope_freqs": yarn8(attention_factor=1.0, mscale=1.0, mscale_all_dim=1.0),
}  # fmt: skip


def distance(logits: list[list[float]], name: str) -> float:
    """How far logits at `PLACES` are from the golden ones of a setting."""
    top = GOLDEN["cases"][name]["top"]
    return max(
        abs(row[token] - value)
        for place, row in zip(PLACES, logits, strict=True)
        for token, value in top[str(place)]
    )
