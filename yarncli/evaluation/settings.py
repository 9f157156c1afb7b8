"""How a checkpoint is loaded for an evaluation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """How to load a model."""

    dtype: str = "auto"
    """float32, float16, bfloat16, or "auto": the checkpoint's own on a GPU, float32 on a CPU."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:1", "mps"."""
    attn_implementation: str | None = None
    """As in transformers; None takes its default."""
    trust_remote_code: bool = False
    """Whether to run code that comes with the checkpoint."""
    adapter: str | None = None
    """Directory of a PEFT adapter to put on top; None for no adapter."""
