"""The demo model in transformers with frequencies and an attention factor given by hand."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yarncli.demo import write_demo


@functools.cache
def _model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as scratch:
        folder = write_demo(Path(scratch, "demo"))
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def demo_logits(
    inv_freq: Sequence[float],
    attention_factor: float,
    tokens: Sequence[int],
    positions: Sequence[int],
) -> list[list[float]]:
    """The logits at some positions of a text.

    Args:
        inv_freq: radians per token, one for each pair.
        attention_factor: what multiplies cos and sin.
        tokens: the text.
        positions: where to look.
    """  # fmt: skip
    import torch

    model = _model()
    rotary = model.model.rotary_emb
    rotary.inv_freq = torch.tensor(inv_freq, dtype=torch.float32)
    rotary.attention_scaling = attention_factor
    with torch.no_grad():
        logits = model(torch.tensor([list(tokens)])).logits[0]
    found: list[list[float]] = logits[list(positions)].tolist()
    return found
