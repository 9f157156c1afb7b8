"""How a checkpoint is loaded for an evaluation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How to load.

    Attributes:
        dtype: float32, float16, bfloat16, or "auto": the checkpoint's own on a GPU, float32 on
            a CPU.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        attn_implementation: as in transformers; None takes its default.
        trust_remote_code: run code that comes with the checkpoint.
        adapter: directory of a PEFT adapter to put on top.
    """

    dtype: str = "auto"
    device: str = "auto"
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    adapter: str | None = None
