"""Whether llama.cpp loads a GGUF file, judged by the keys and tensors for RoPE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from yarncli.gguf.architectures import Architecture
from yarncli.gguf.facts import (
    ATTN_FACTOR,
    CONTEXT,
    FACTOR,
    FINETUNED,
    FREQS,
    KEY_TYPES,
    LONG,
    MOST_BLOCKS,
    OLD_FACTOR,
    ORIGINAL,
    SHORT,
    THETA,
    TYPE,
    WINDOW,
    Gguf,
    Sizes,
)
from yarncli.rope.parameters import WIDEST_HEAD

Fault = Literal["type", "value type", "tensor", "factors", "other"]
TYPES = ("none", "linear", "yarn", "longrope")
# Keys that llama.cpp reads for every architecture. The other keys of `KEY_TYPES` are read for some
# architectures only.
_ALWAYS_READ = (
    CONTEXT, "block_count", "embedding_length", FINETUNED, ORIGINAL, THETA, TYPE, FACTOR,
    ATTN_FACTOR, "rope.scaling.alpha", "attention.key_length", "rope.dimension_count",
    "attention.key_length_swa", "rope.dimension_count_swa",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """llama.cpp does not run the file with RoPE."""

    kind: Literal["refuses", "aborts", "no RoPE"]
    """It reports an error; it ends the whole process, also a server's; or it runs without RoPE."""
    because: str
    """Why, as the end of a sentence for people."""
    key: str = ""
    """Full name of the key or tensor at fault; empty if there is none."""
    fault: Fault = "other"
    """The kind of fault: "type" is an unknown scaling type, "value type" a value of the wrong GGUF
    type, "tensor" a tensor that is not loaded, "factors" unusable frequency factors."""


def failures(gguf: Gguf, row: Architecture | None, sizes: Sizes | None) -> Iterator[Failure]:
    """The reasons why llama.cpp computes nothing, in the order in which it notices them."""
    if row is None:
        name = gguf.architecture
        yield _refuses(f"it knows no architecture {name!r}", "general.architecture")
        return
    if not gguf.has(CONTEXT):
        yield _refuses(f"{gguf.name(CONTEXT)} is missing", gguf.name(CONTEXT))
        return
    yield from wrong_types(gguf, row)
    yield from _wrong_heads(gguf)
    blocks = gguf.get("block_count")
    if isinstance(blocks, int) and not 0 < blocks <= MOST_BLOCKS:
        yield _aborts(f"{gguf.name('block_count')} is {blocks:,}", gguf.name("block_count"))
        return
    if gguf.get(CONTEXT) == 0:
        yield _refuses(f"{gguf.name(CONTEXT)} is 0", gguf.name(CONTEXT))
    kind = gguf.get(TYPE, "linear")
    if kind not in TYPES:
        yield _aborts(f"{gguf.name(TYPE)} is {kind!r}", gguf.name(TYPE), "type")
    if sizes is None:
        yield _refuses("the file does not say how wide a head is")
        return
    if row.rotates == "none":
        yield _unrotated(f"the graph of {row.name} does not use RoPE")
    # The RoPE part of a file that a converter would write has no number of blocks.
    if row.blocks and blocks not in (None, row.blocks):
        yield _unrotated(f"the graph of {row.name} uses RoPE only with {row.blocks} blocks")
    if row.switch and gguf.get(FINETUNED) is False:
        name = gguf.name(FINETUNED)
        yield _unrotated(f"{name} is false, which switches RoPE off", name)
    if row.needs_window and blocks and gguf.window is None:
        yield _aborts(f"{gguf.name(WINDOW)} is missing", gguf.name(WINDOW))
    if row.fixed == "aborts" and gguf.get(THETA, 10000.0) != 10000.0:
        yield _aborts(f"{gguf.name(THETA)} is not 10000", gguf.name(THETA))
    width = gguf.name("rope.dimension_count")
    if sizes.head_dim > WIDEST_HEAD or sizes.rotary_dim > WIDEST_HEAD:
        yield _refuses(f"{width} is {sizes.rotary_dim:,}, more dimensions than any head has", width)
        return
    if row.whole_head and sizes.rotary_dim != sizes.head_dim:
        fails = _refuses if row.whole_head == "refuses" else _aborts
        yield fails(f"{width} is {sizes.rotary_dim} and must be {sizes.head_dim}", width)
    if sizes.rotary_dim % 2:
        yield _aborts(f"{width} is {sizes.rotary_dim}, an odd number", width)
    if sizes.rotary_dim > sizes.head_dim:  # `n_dims <= ne0` in `ggml-cpu/ops.cpp:6355`
        yield _aborts(f"{width} is {sizes.rotary_dim}, and a head has only {sizes.head_dim}", width)
    yield from tensor_failures(gguf, row, sizes)


def wrong_types(gguf: Gguf, row: Architecture) -> Iterator[Failure]:
    """The keys that llama.cpp reads and whose type is not the one that it accepts."""
    for key in reads(row):
        if key == OLD_FACTOR and gguf.has(FACTOR):
            continue
        found = gguf.keys.get(gguf.name(key))
        wanted = KEY_TYPES[key]
        if found is not None and found.type != wanted:
            name = gguf.name(key)
            yield _refuses(
                f"{name} has the type {found.type}, and it reads only {wanted}",
                name,
                "value type",
            )


def _wrong_heads(gguf: Gguf) -> Iterator[Failure]:
    """Head counts that are neither one number for all layers nor a list with one for each."""
    for key in ("attention.head_count", "attention.head_count_kv"):
        found, name = gguf.keys.get(gguf.name(key)), gguf.name(key)
        if found is None or found.type == "u32":
            continue
        if found.type != "arr":
            yield _refuses(f"{name} has the type {found.type}, and it reads only u32", name)
        elif not (
            isinstance(found.value, list | tuple)
            and len(found.value) == gguf.get("block_count")
            and all(type(n) is int and n >= 0 for n in found.value)
        ):
            yield _refuses(f"{name} is not a list with one number for each block", name)


def reads(row: Architecture) -> tuple[str, ...]:
    """The keys of `KEY_TYPES` that llama.cpp reads for an architecture."""
    found = [*_ALWAYS_READ, OLD_FACTOR]
    if row.base_swa:
        found.append("rope.freq_base_swa")
    if row.compress:
        found.append("attention.compress_rope_freq_base")
    if row.betas:
        found += ["rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"]
    if row.ramp:
        found += ["rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor"]
    if row.log:
        found.append("rope.scaling.yarn_log_multiplier")
    return tuple(found)


def tensor_failures(gguf: Gguf, row: Architecture, sizes: Sizes) -> Iterator[Failure]:
    """Faults of the tensors of frequency factors that keep llama.cpp from running the file."""
    for name in (FREQS, LONG, SHORT):
        tensor = gguf.tensors.get(name)
        if tensor is None:
            continue
        loads = bool(row.rope_freqs) if name == FREQS else row.factors
        if not loads:
            yield _refuses(f"the graph of {row.name} does not load {name}", name, "tensor")
            continue
        wanted = (expected_factors(row, sizes),)
        if tensor.shape != wanted and row.name != "step35":
            shape = "×".join(map(str, tensor.shape))
            yield _refuses(f"{name} holds {shape} numbers, not {wanted[0]}", name, "factors")
        used = row.rope_freqs != "loaded" and (name == FREQS or FREQS not in gguf.tensors)
        if used and tensor.type != "F32":
            yield _aborts(f"{name} is stored as {tensor.type}, not as F32", name, "factors")
    is_longrope = gguf.get(TYPE) == "longrope"
    if is_longrope and row.factors and FREQS in gguf.tensors:
        yield _refuses(f"{FREQS} is not loaded with the type longrope", FREQS, "tensor")
    for name in (LONG, SHORT):
        if name in gguf.tensors and row.factors and row.rope_freqs and not is_longrope:
            yield _refuses(f"{name} is loaded only with the type longrope", name, "tensor")


def expected_factors(row: Architecture, sizes: Sizes) -> int:
    """How many numbers a tensor of frequency factors must hold."""
    whole = row.name in ("gemma4", "gemma4-assistant", "dflash")
    return (sizes.head_dim if whole else sizes.rotary_dim) // 2


def _refuses(because: str, key: str = "", fault: Fault = "other") -> Failure:
    return Failure(kind="refuses", because=because, key=key, fault=fault)


def _aborts(because: str, key: str = "", fault: Fault = "other") -> Failure:
    return Failure(kind="aborts", because=because, key=key, fault=fault)


def _unrotated(because: str, key: str = "") -> Failure:
    return Failure(kind="no RoPE", because=because, key=key)
