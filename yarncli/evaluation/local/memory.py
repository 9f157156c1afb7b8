"""How much memory an evaluation needs, and how large its chunks may be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yarncli.errors import UsageError

# What a chunk may use beside the KV cache: a share of it, or this much where it is small.
_SMALL = 64 << 20
_CHUNK_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes, and the number of tokens to read in one forward call.

    Attributes:
        weights: of the model.
        kv_cache: keys and values of the longest prompt.
        working: what one chunk takes besides: activations, and the keys and values of branches.
        chunk: tokens.
    """

    weights: int
    kv_cache: int
    working: int
    chunk: int

    @property
    def total(self) -> int:
        """All bytes."""
        return self.weights + self.kv_cache + self.working


def estimate(
    config: Mapping[str, Any],
    parameters: int,
    length: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    whole: bool = False,
) -> MemoryEstimate:
    """What evaluating at `length` tokens takes, and the chunk that keeps its peak low.

    Args:
        config: the text part of config.json.
        parameters: of the whole model.
        length: the longest prompt, tokens.
        dtype: of weights and cache.
        device: where; attention needs an explicit mask everywhere but on a CPU.
        whole: whether a prompt is read in one forward call, as transformers itself does.
    """
    size = dtype.itemsize
    hidden = _number(config, "hidden_size", "n_embd", "d_model")
    layers = _number(config, "num_hidden_layers", "n_layer", "num_layers")
    heads = _number(config, "num_attention_heads", "n_head") or 1
    head_dim = _number(config, "head_dim") or hidden // heads
    latent = _number(config, "kv_lora_rank")
    if latent:
        # MLA caches latents, and expands those of all tokens in one layer at a time.
        rope_dim = _number(config, "qk_rope_head_dim")
        per_layer = latent + rope_dim
        per_head = _number(config, "qk_nope_head_dim") + rope_dim + _number(config, "v_head_dim")
    else:
        per_layer = 2 * (_number(config, "num_key_value_heads") or heads) * head_dim
        per_head = 2 * head_dim
    kv_per_token = layers * per_layer * size
    inner = _number(config, "intermediate_size", "n_inner") or 4 * hidden
    per_token = size * (8 * hidden + 3 * inner + 4 * heads * head_dim)
    if device.type != "cpu":  # trials are read side by side there, each with its own keys
        per_token += kv_per_token
    masked = bool(latent) or device.type != "cpu"
    if masked:  # as booleans, and added to the scores in the dtype of the model
        per_token += length * (1 + size)
    budget = max(_SMALL, int(_CHUNK_SHARE * kv_per_token * length))
    chunk = length if whole else min(max(budget // max(1, per_token), 128), 8192)
    # Where there is a mask, one layer's keys and values are repeated for every query head.
    repeated = heads * per_head * length * size if masked else 0
    return MemoryEstimate(
        parameters * size,
        kv_per_token * length,
        per_token * min(chunk, length) + repeated,
        chunk,
    )


def available_bytes(device: torch.device) -> int | None:
    """Free memory where the model will be; None where it cannot be told."""
    if device.type == "cuda":
        # Without a number the model is spread over all of them.
        every = range(torch.cuda.device_count())
        numbers = every if device.index is None else [device.index]
        return sum(int(torch.cuda.mem_get_info(number)[0]) for number in numbers)
    known = [value for value in (_free_memory(), _container_limit()) if value is not None]
    return min(known) if known else None


def refuse_too_much(needed: MemoryEstimate, device: torch.device, length: int) -> None:
    """Refuse an evaluation that cannot fit.

    Raises:
        UsageError: with the numbers.
    """
    free = available_bytes(device)
    if free is None or needed.total <= free:
        return
    raise UsageError(
        f"Evaluating {length:,} tokens needs about {_gigabytes(needed.total)} (weights "
        f"{_gigabytes(needed.weights)}, KV cache {_gigabytes(needed.kv_cache)}), but "
        f"{_gigabytes(free)} are free on {device.type}. Give shorter --lengths, a smaller --dtype, "
        "another --device, or serve the model and use --base-url."
    )


@contextmanager
def out_of_memory_errors(length: int) -> Iterator[None]:
    """One sentence where memory runs out although the estimate said it would not.

    Raises:
        UsageError: it did.
    """
    try:
        yield
    except RuntimeError as error:
        # The CPU's allocator has no exception of its own.
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
            raise
        raise UsageError(
            f"Memory ran out with prompts of up to {length:,} tokens. Give shorter --lengths, a "
            "smaller --dtype or another --device, or serve the model and use --base-url."
        ) from error


def _free_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    names = ("SC_AVPHYS_PAGES", "SC_PAGE_SIZE")
    if hasattr(os, "sysconf") and all(name in os.sysconf_names for name in names):
        return os.sysconf(names[0]) * os.sysconf(names[1])
    return None


def _container_limit() -> int | None:
    """What is left of the memory limit of this control group, if there is one."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = (group / "memory.current").read_text(encoding="ascii").strip()
        return None if limit == "max" else int(limit) - int(used)
    except (OSError, ValueError):
        return None


def _number(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int):
            return value
    return 0


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
