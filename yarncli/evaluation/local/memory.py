"""How much memory an evaluation needs, and how large its chunks may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from yarncli.checkpoint.memory import available_memory, kv_cache_bytes, kv_cache_parts
from yarncli.config.reading import RopeConfig, read_rope
from yarncli.errors import UnsupportedArchitectureError, UsageError
from yarncli.evaluation.local.devices import splits_attention

# What a chunk may use beside the KV cache: a share of it, or this much where it is small.
_SMALL = 64 << 20
_CHUNK_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """What one evaluation takes, and the number of tokens to read in one forward call."""

    weights: int
    """Bytes of the model's weights."""
    kv_cache: int
    """Bytes of the keys and values of the longest prompt."""
    working: int
    """Additional bytes for one chunk: activations, and the keys and values of branches."""
    chunk: int
    """Tokens per forward call."""

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
        config: the JSON object of config.json.
        parameters: of the whole model.
        length: the longest prompt, tokens.
        dtype: of weights and cache.
        device: where. A CPU gains nothing by larger chunks, a GPU much, so there the weights count
            for what a chunk may take.
        whole: whether a prompt is read in one forward call, as transformers itself does; models
            with layers other than attention always are.

    Raises:
        CheckpointError: as `read_rope`.
    """
    rope = read_rope(config)
    parts, size = kv_cache_parts(config, rope), dtype.itemsize
    attending = len(rope.nope_layers) + sum(len(scope.layers) for scope in rope.scopes.values())
    whole = whole or attending < rope.num_hidden_layers
    # The cache of the fast path can go back, so it also keeps what has left the windows.
    kv_cache = kv_cache_bytes(parts, length, size, windows=whole)
    activations, repeated = _widths(config, rope)
    per_token = size * activations
    if device.type != "cpu":  # trials are read side by side there, each with its own keys
        per_token += kv_cache_bytes(parts, 1, size)
    masked = not whole and (rope.is_mla or not splits_attention(device, dtype, rope.head_dim))
    if masked:  # as booleans, and added to the scores in the dtype of the model
        per_token += length * (1 + size)
    held = kv_cache if device.type == "cpu" else kv_cache + parameters * size
    budget = max(_SMALL, int(_CHUNK_SHARE * held))
    chunk = length if whole else min(max(budget // max(1, per_token), 128), 8192)
    working = per_token * min(chunk, length)
    if masked or rope.is_mla:
        working += repeated * length * size
    return MemoryEstimate(
        weights=parameters * size, kv_cache=kv_cache, working=working, chunk=chunk
    )


def estimate_any(
    config: Mapping[str, Any],
    parameters: int,
    length: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    whole: bool = False,
) -> MemoryEstimate:
    """As `estimate`; of a model without RoPE, whose cache is not known, the weights alone."""
    try:
        return estimate(config, parameters, length, dtype, device, whole=whole)
    except UnsupportedArchitectureError:
        weights = parameters * dtype.itemsize
        return MemoryEstimate(weights=weights, kv_cache=0, working=0, chunk=length)


def _widths(config: Mapping[str, Any], rope: RopeConfig) -> tuple[int, int]:
    """Numbers per token of one layer: its activations; its keys and values for every query head.

    Those exist where attention needs a mask, or expands the latents of MLA.
    """
    fields, heads = rope.text(config), rope.num_attention_heads
    hidden = fields.positive("hidden_size", rope.family.hidden_size)
    inner = 4 * hidden
    if not fields.is_list("intermediate_size"):  # Gemma 3n has one per layer
        inner = fields.integer("intermediate_size", fields.integer("n_inner")) or inner
    width = 2 * rope.head_dim
    if rope.is_mla:
        rest = fields.positive("qk_nope_head_dim", rope.family.qk_nope_head_dim or rope.head_dim)
        width = rest + rope.head_dim + fields.positive("v_head_dim", rest)
    return 8 * hidden + 3 * inner + 4 * heads * rope.head_dim, heads * width


def available_bytes(device: torch.device) -> int | None:
    """Free memory where the model will be; None where it cannot be told."""
    if device.type == "cuda":
        # Without a number the model is spread over all of them.
        every = range(torch.cuda.device_count())
        numbers = every if device.index is None else [device.index]
        return sum(int(torch.cuda.mem_get_info(number)[0]) for number in numbers)
    return available_memory()


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
        f"only {_gigabytes(free)} are free on {device.type}. Give shorter --lengths, a smaller "
        "--dtype, another --device, or serve the model and use --base-url."
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


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
