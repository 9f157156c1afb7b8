"""Which keys or tensors of a GGUF file can carry the attention temperature exactly.

If cos and sin are multiplied by `a`, q·k is multiplied by `a²`, in the layers and the dimensions
that rotate. The key `attn_factor` does that. A scale or the weights of the key projection, or the
norm of the keys, give the same result if they act on the same layers and dimensions and if no
later operation undoes them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from yarncli.errors import CheckpointError, UnsupportedArchitectureError
from yarncli.gguf.architectures import Architecture
from yarncli.gguf.facts import ATTN_FACTOR, Gguf, Sizes, Typed, typed
from yarncli.gguf.loading import Failure
from yarncli.gguf.refusals import refuse_no_model, refuse_temperature
from yarncli.gguf.runtime import run

Carrier = Literal["key", "scale", "norm", "weights"]
CARRIERS: tuple[Carrier, ...] = ("key", "scale", "norm", "weights")

_CLAMP = "attention.clamp_kqv"


@dataclass(frozen=True, slots=True)
class ScaledRows:
    """A tensor in which some rows are multiplied."""

    factor: float
    rows: tuple[tuple[int, int], ...] | None = None
    """The rows, or the elements of a tensor with one size, as `(start, stop)`; `None`: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperaturePlan:
    """The changes that give attention a wanted temperature."""

    carrier: Carrier
    """What carries the temperature."""
    factor: float
    """What multiplies cos and sin, in addition to what the file already says."""
    keys: Mapping[str, Typed] = field(default_factory=dict)
    """Full name of a key → its new value."""
    tensors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """F32 tensors with one dimension, to add."""
    scaled: Mapping[str, ScaledRows] = field(default_factory=dict)
    """Tensors whose numbers are multiplied."""
    notes: tuple[str, ...] = ()
    """What a person should know about it."""


def plan_temperature(
    gguf: Gguf,
    attention_factor: float,
    carrier: Carrier | None = None,
    *,
    layers: Collection[int] | None = None,
) -> TemperaturePlan:
    """Plan how to give a file an attention factor.

    Args:
        gguf: the file.
        attention_factor: the wanted multiplier of cos and sin.
        carrier: what carries it; by default the first of key, norm and scale that is exact.
        layers: the blocks to change, counted from 0; by default all that rotate and have no window.

    Raises:
        UnsupportedArchitectureError: the carrier is not exact for this file, or none is.
        CheckpointError: the file is not a model, or does not say which layers have a window.
    """
    row = refuse_no_model(gguf)
    computed = run(gguf)
    if isinstance(computed, Failure):
        raise CheckpointError(f"llama.cpp does not rotate by this file: {computed.because}.")
    if not 0 < computed.attention_factor < math.inf:
        raise CheckpointError(
            f"llama.cpp multiplies cos and sin by {computed.attention_factor:g} in this file, and "
            f"no factor can correct that. Correct {gguf.name(ATTN_FACTOR)} first."
        )
    factor = attention_factor / computed.attention_factor
    if carrier is None:
        carrier = _default(gguf, row, layers, attention_factor, computed.attention_factor)
    elif fault := why_not(gguf, carrier, layers):
        raise UnsupportedArchitectureError(
            f"--carrier {carrier} is not exact for this {row.name} file: {fault}."
        )
    if math.isclose(factor, 1.0, rel_tol=1e-6):
        return TemperaturePlan(carrier=carrier, factor=1.0)
    if carrier == "key":
        value = float(gguf.get(ATTN_FACTOR, 1.0)) * factor
        keys = {gguf.name(ATTN_FACTOR): typed(ATTN_FACTOR, value)}
        return TemperaturePlan(carrier="key", factor=factor, keys=keys)
    blocks = _blocks(gguf, layers)
    build = {"scale": _by_scale, "norm": _by_norm, "weights": _by_weights}[carrier]
    return build(gguf, blocks, factor)


def why_not(gguf: Gguf, carrier: Carrier, layers: Collection[int] | None = None) -> str:
    """Why a carrier is not exact for a file, as the end of a sentence; empty if it is exact.

    Args:
        gguf: the file.
        carrier: what is to carry the temperature.
        layers: the blocks to change; by default all that rotate and have no window.
    """
    return next(_faults(gguf, carrier, layers), "")


def _default(
    gguf: Gguf,
    row: Architecture,
    layers: Collection[int] | None,
    wanted: float,
    natural: float,
) -> Carrier:
    choices: tuple[Carrier, ...] = ("key", "norm", "scale")
    for carrier in choices:
        if not why_not(gguf, carrier, layers):
            return carrier
    if row.mla or row.compress:
        refuse_temperature(gguf, row, wanted, natural)
    raise UnsupportedArchitectureError(
        f"Nothing in this {row.name} file can carry another attention factor while its weights "
        f"stay unchanged: the norm of the keys cannot, because {why_not(gguf, 'norm', layers)}; "
        f"a scale cannot, because {why_not(gguf, 'scale', layers)}. Try --carrier weights."
    )


def _faults(gguf: Gguf, carrier: Carrier, layers: Collection[int] | None) -> Iterator[str]:
    row, sizes = gguf.row, gguf.sizes()
    if row is None or sizes is None or isinstance(run(gguf), Failure):
        yield "llama.cpp does not rotate by it"
        return
    if row.mla or row.compress:
        yield "multi-head latent attention also has a temperature on the softmax scale"
        return
    if row.late_norm:
        yield "the norm of the keys comes after the rotation and undoes it, in transformers too"
    if carrier == "key":
        if gguf.window:
            yield f"the key also changes the layers that attend within {gguf.window:,} tokens"
        elif layers is not None and set(layers) < set(gguf.blocks):
            yield "the key changes all layers"
        return
    yield from _layer_faults(gguf, row, layers)
    blocks = _blocks(gguf, layers)
    if not blocks:
        yield "the file has no tensors of attention keys"
    normed = [n for n in blocks if f"blk.{n}.attn_k_norm.weight" in gguf.tensors]
    if carrier == "norm":
        yield from _norm_faults(gguf, blocks, normed, sizes)
        return
    if normed:
        yield "the norm of the keys undoes it"
    if gguf.has(_CLAMP) and gguf.get(_CLAMP):
        yield f"{gguf.name(_CLAMP)} limits the keys to a fixed value"
    fused = [n for n in blocks if f"blk.{n}.attn_k.weight" not in gguf.tensors]
    if carrier == "scale":
        yield from _scale_faults(gguf, row, blocks, fused, sizes)
    elif any(_has_other_rows(gguf, n, sizes) for n in blocks if n not in fused):
        yield "the number of rows of its key projections does not fit its heads"
    elif fused and (row.hybrid or not row.k_scale):
        yield "some of its fused projections do not hold queries, keys and values"
    elif fused:
        yield from _fused_faults(gguf, fused, sizes)


def _layer_faults(gguf: Gguf, row: Architecture, layers: Collection[int] | None) -> Iterator[str]:
    if layers is not None:
        return
    if row.nope:
        yield "some of its layers do not rotate, and the file does not say which"
    if gguf.window and gguf.windowed_blocks is None:
        yield f"the file does not say which layers attend within {gguf.window:,} tokens"


def _norm_faults(gguf: Gguf, blocks: list[int], normed: list[int], sizes: Sizes) -> Iterator[str]:
    if normed != blocks:
        yield "not every layer has a norm of the keys"
        return
    for n in blocks:
        tensor = gguf.tensors[f"blk.{n}.attn_k_norm.weight"]
        if tensor.type not in ("F32", "F16", "BF16"):
            yield f"blk.{n}.attn_k_norm.weight is stored as {tensor.type}"
        if math.prod(tensor.shape) % sizes.head_dim:
            yield f"blk.{n}.attn_k_norm.weight does not fit heads of {sizes.head_dim} dimensions"


def _scale_faults(
    gguf: Gguf, row: Architecture, blocks: list[int], fused: list[int], sizes: Sizes
) -> Iterator[str]:
    if not row.k_scale:
        yield "its graph in llama.cpp does not read such a scale"
    if fused:
        yield "queries, keys and values share one fused tensor and one scale"
    if sizes.rotary_dim < sizes.head_dim:
        yield (
            f"only {sizes.rotary_dim} of the {sizes.head_dim} dimensions of a head rotate, and a "
            "scale multiplies all of them"
        )
    if any(f"blk.{n}.attn_k.scale" in gguf.tensors for n in blocks):
        yield "the file already has such scales"


def _fused_faults(gguf: Gguf, fused: list[int], sizes: Sizes) -> Iterator[str]:
    for n in fused:
        queries, keys = _heads(gguf, n)
        rows = gguf.tensors[f"blk.{n}.attn_qkv.weight"].shape[-1]
        if rows != (queries + 2 * keys) * sizes.head_dim:
            yield f"blk.{n}.attn_qkv.weight has {rows} rows, not enough or too many for q, k and v"


def _has_other_rows(gguf: Gguf, block: int, sizes: Sizes) -> bool:
    shape = gguf.tensors[f"blk.{block}.attn_k.weight"].shape
    return len(shape) != 2 or shape[-1] != _heads(gguf, block)[1] * sizes.head_dim


def _by_scale(gguf: Gguf, blocks: list[int], factor: float) -> TemperaturePlan:
    square = factor**2
    biases = (f"blk.{n}.attn_k.bias" for n in blocks)
    return TemperaturePlan(
        carrier="scale",
        factor=factor,
        tensors={f"blk.{n}.attn_k.scale": (square,) for n in blocks},
        # The scale multiplies only the product with the weights. The bias is added later, so it
        # has to be multiplied as well.
        scaled={name: ScaledRows(square) for name in biases if name in gguf.tensors},
        notes=(
            "The scale does not multiply the output of a LoRA adapter, which is added after it. "
            "llama.cpp reads the scale for every architecture only since it supports NVFP4; older "
            "builds and Ollama's own engine ignore or refuse it.",
        ),
    )


def _by_norm(gguf: Gguf, blocks: list[int], factor: float) -> TemperaturePlan:
    scaled = {}
    for n in blocks:
        for part in ("weight", "bias"):
            name = f"blk.{n}.attn_k_norm.{part}"
            if name in gguf.tensors:
                heads = math.prod(gguf.tensors[name].shape) // _sizes(gguf).head_dim
                scaled[name] = ScaledRows(factor**2, _rotating(gguf, 0, heads))
    return TemperaturePlan(carrier="norm", factor=factor, scaled=scaled)


def _by_weights(gguf: Gguf, blocks: list[int], factor: float) -> TemperaturePlan:
    scaled = {}
    for n in blocks:
        queries, keys = _heads(gguf, n)
        is_fused = f"blk.{n}.attn_k.weight" not in gguf.tensors
        first = queries * _sizes(gguf).head_dim if is_fused else 0
        rows = _rotating(gguf, first, keys)
        names = [f"blk.{n}.attn_{'qkv' if is_fused else 'k'}.{part}" for part in ("weight", "bias")]
        for name in names:
            if name in gguf.tensors:
                scaled[name] = ScaledRows(factor**2, rows)
        # A file may have a fused weight and separate biases (`llama-graph.cpp:1670`).
        if is_fused and names[1] not in gguf.tensors and f"blk.{n}.attn_k.bias" in gguf.tensors:
            scaled[f"blk.{n}.attn_k.bias"] = ScaledRows(factor**2, _rotating(gguf, 0, keys))
    return TemperaturePlan(carrier="weights", factor=factor, scaled=scaled)


def _rotating(gguf: Gguf, first: int, heads: int) -> tuple[tuple[int, int], ...] | None:
    """The rows that rotate: the first ones of each head, in both orders of the pairs."""
    sizes = _sizes(gguf)
    if sizes.rotary_dim == sizes.head_dim:
        return ((first, first + heads * sizes.head_dim),) if first else None
    starts = range(first, first + heads * sizes.head_dim, sizes.head_dim)
    return tuple((start, start + sizes.rotary_dim) for start in starts)


def _sizes(gguf: Gguf) -> Sizes:
    found = gguf.sizes()
    assert found is not None  # _faults has checked it
    return found


def _heads(gguf: Gguf, block: int) -> tuple[int, int]:
    """Query heads and key heads of a block."""
    queries = _of_layer(gguf.get("attention.head_count"), block)
    return queries, _of_layer(gguf.get("attention.head_count_kv", queries), block)


def _of_layer(value: Any, block: int) -> int:
    if value is None or (isinstance(value, list | tuple) and block >= len(value)):
        raise CheckpointError("The file does not say how many heads each of its layers has.")
    return int(value[block] if isinstance(value, list | tuple) else value)


def _blocks(gguf: Gguf, layers: Collection[int] | None) -> list[int]:
    if layers is not None:
        return [n for n in gguf.blocks if n in layers]
    return [n for n in gguf.blocks if n not in (gguf.windowed_blocks or ())]
