"""How a checkpoint is loaded for an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOADING = "Loading the model"  # the stage of the work
DTYPES = ("auto", "float32", "float16", "bfloat16")
DTYPE_ALIASES = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}
DEVICES = ("auto", "cpu", "cuda", "mps")


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
    """Directory of a PEFT adapter to merge into the model; None for no adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSettings(LoadSettings):
    """Which settings of a model are compared."""

    override: str | None = None
    """A conversion to try without writing it, such as `method=yarn,factor=4`."""
    compare: Sequence[str] = ()
    """Methods, or "none", to compare."""
    control: bool = False
    """Also measure the same weights without the scaling that `yarncli.json` records."""
    control_model: str | None = None
    """Also measure this checkpoint, unchanged."""
    tokenizer: str | None = None
    """Checkpoint or directory to load the tokenizer from, instead of the model's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSettings(TrialSettings):
    """How to reach a model behind a server."""

    base_url: str | None = None
    """Ask the OpenAI-compatible server at this address, which ends in `/v1`."""
    served_model: str | None = None
    """The server's name of the model; None takes the only one."""
    api_key_env: str | None = None
    """The environment variable that holds the server's key."""
    timeout: float = 600.0
    """Seconds to wait for one answer of the server."""
