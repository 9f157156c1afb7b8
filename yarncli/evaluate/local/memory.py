"""How much memory an evaluation needs, and how large its chunks may be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yarncli.errors import UsageError

# Chunks may use this much beside the KV cache even where the cache itself is small.
_SMALL = 64 << 20
_CHUNK_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes: the weights, the KV cache of the longest prompt, and one chunk's activations."""

    weights: int
    kv_cache: int
    activations: int
    chunk: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.activations


def estimate(
    config: Mapping[str, Any], parameters: int, length: int, dtype: torch.dtype
) -> MemoryEstimate:
    """What evaluating at `length` tokens takes.

    Args:
        config: the text part of config.json.
        parameters: of the whole model.
        length: the longest prompt, tokens.
        dtype: of weights and cache.
    """
    size = dtype.itemsize
    hidden = _number(config, "hidden_size", "n_embd", "d_model")
    layers = _number(config, "num_hidden_layers", "n_layer", "num_layers")
    heads = _number(config, "num_attention_heads", "n_head") or 1
    head_dim = _number(config, "head_dim") or hidden // heads
    expanded = 0
    if _number(config, "kv_lora_rank"):
        # MLA caches latents, and expands those of all tokens in one layer at a time.
        rope_dim = _number(config, "qk_rope_head_dim")
        per_layer = _number(config, "kv_lora_rank") + rope_dim
        per_head = _number(config, "qk_nope_head_dim") + rope_dim + _number(config, "v_head_dim")
        expanded = heads * per_head * length * size
    else:
        per_layer = 2 * (_number(config, "num_key_value_heads") or heads) * head_dim
    kv_per_token = layers * per_layer * size
    inner = _number(config, "intermediate_size", "n_inner") or 4 * hidden
    per_token = size * (8 * hidden + 3 * inner + 4 * heads * head_dim) or 1
    budget = max(_SMALL, int(_CHUNK_SHARE * kv_per_token * length))
    chunk = min(max(budget // per_token, 128), 8192)
    return MemoryEstimate(
        parameters * size,
        kv_per_token * length,
        per_token * min(chunk, length) + expanded,
        chunk,
    )


def available_bytes(device: torch.device) -> int | None:
    """Free memory where the model will be; None where it cannot be told."""
    if device.type == "cuda":
        free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
        return int(sum(free))
    known = [value for value in (_free_memory(), _container_limit()) if value is not None]
    return min(known) if known else None


def require_memory(needed: MemoryEstimate, device: torch.device, length: int) -> None:
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
