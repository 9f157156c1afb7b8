"""Memory: what a model's KV cache takes, and what this machine has left."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.config.layers import COMPRESSION, INDEXED, Layers, read_layers
from yarncli.config.reading import RopeConfig
from yarncli.config.scopes import layer_override
from yarncli.jsontext.fields import Fields

_DTYPE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}


@dataclass(frozen=True, slots=True)
class CachePart:
    """What one attention layer keeps of the tokens it has read, or one part of it."""

    width: int
    """Numbers per entry: keys and values, an MLA latent, or the keys of an indexer."""
    window: int | None = None
    """The most tokens it keeps; None for all of them."""
    tokens_per_entry: int = 1
    """Above 1 where the layer compresses several tokens into one entry."""


def kv_cache_bytes(
    parts: Iterable[CachePart], length: int, itemsize: float, *, windows: bool = True
) -> int:
    """Bytes of the KV cache of one sequence.

    A windowed layer counts its whole window. transformers 5.23 keeps one token fewer between two
    calls, since the next call brings the newest one.

    Args:
        parts: of the model's layers, from `kv_cache_parts`.
        length: of the sequence, tokens.
        itemsize: bytes per number.
        windows: whether layers drop what has left their window, as serving engines do.

    Example:
        >>> llama_3_8b = [CachePart(2 * 8 * 128)] * 32
        >>> kv_cache_bytes(llama_3_8b, 8192, 2)
        1073741824
    """
    numbers = sum(
        part.width * (min(length, (windows and part.window) or length) // part.tokens_per_entry)
        for part in parts
    )
    return int(itemsize * numbers)


def stated_dtype(config: Mapping[str, Any], rope: RopeConfig) -> str | None:
    """The dtype that a config names for the model; `None` where it names none."""
    text = rope.text(config).values
    found = text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype")
    return found if isinstance(found, str) else None


def bytes_per_number(dtype: str | None, cache: str | None = None) -> float:
    """Bytes of one number of a cache, which has the dtype of the model if it is not quantised.

    Args:
        dtype: as config.json names it; bfloat16 where it does not.
        cache: the format that `stated_cache` found.
    """
    if cache is not None:  # NVFP4 has a scale of one byte for every 16 numbers
        return 1 if cache == "FP8" else 9 / 16
    return _DTYPE_BYTES.get(dtype or "bfloat16", 2)


def sequence_bytes(
    config: Mapping[str, Any], rope: RopeConfig, length: int, cache: str | None
) -> int:
    """Bytes of the KV cache of one sequence, in the dtype of the model or in that of its cache.

    Args:
        config: the JSON object of config.json.
        rope: what `read_rope` makes of it.
        length: of the sequence, tokens.
        cache: the format that `stated_cache` found.

    Raises:
        ConfigError: a field has the wrong type.
    """
    size = bytes_per_number(stated_dtype(config, rope), cache)
    return kv_cache_bytes(kv_cache_parts(config, rope), length, size)


def kv_cache_parts(config: Mapping[str, Any], rope: RopeConfig) -> tuple[CachePart, ...]:
    """What the attention layers of a model cache, as transformers 5.23 allocates it.

    MLA layers cache their latent and the rotated part of the key, which all heads share; no MLA
    family of transformers 5.23 caches the expanded keys and values. Not counted: the state of
    linear attention, Mamba and convolution layers, whose size does not depend on the length.
    Layers that attend to images, or use the cache of another layer, have none of the text.

    Args:
        config: the JSON object of config.json.
        rope: what `read_rope` makes of it.

    Raises:
        ConfigError: a field has the wrong type.
    """
    fields = rope.text(config)
    layers = read_layers(fields, rope.family, rope.num_hidden_layers)
    rotating = {i for scope in rope.scopes.values() for i in scope.layers}
    crosses = rope.family.rope_rule == "not_cross_attention"
    attending = sorted(rotating if crosses else {*rotating, *rope.nope_layers})
    return tuple(part for i in attending for part in _layer_parts(fields, rope, layers, i))


def _layer_parts(fields: Fields, rope: RopeConfig, layers: Layers, i: int) -> Iterator[CachePart]:
    kind, window = layers.types[i], layers.window if layers.windowed[i] else None
    ratio = COMPRESSION.get(kind, 1)
    sources = fields.integers("kv_source_layers")
    shared = fields.integer("num_kv_shared_layers", rope.family.num_kv_shared_layers) or 0
    own = sources is None or sources[i : i + 1] == (i,)
    if i < rope.num_hidden_layers - shared and own:
        if ratio > 1:
            window = fields.integer("sliding_window", rope.family.sliding_window)
            yield CachePart(rope.head_dim, tokens_per_entry=ratio)
        yield CachePart(_width(fields, rope, layers, i), window)
    indexers = fields.strings("indexer_types")
    indexed = kind == INDEXED and (indexers is None or indexers[i : i + 1] != ("shared",))
    if indexed or kind == "compressed_sparse_attention":
        width = fields.positive("index_head_dim", rope.family.index_head_dim)
        yield CachePart(width, tokens_per_entry=ratio)


def _width(fields: Fields, rope: RopeConfig, layers: Layers, i: int) -> int:
    """Numbers that layer `i` caches per token."""
    family, slides = rope.family, layers.windowed[i]
    setting = next((s.parameters for s in rope.scopes.values() if i in s.layers), None)
    own = layer_override(fields, (i,)) or Fields({})
    if family.is_mla:
        latent = fields.positive("kv_lora_rank", family.kv_lora_rank)
        if slides and family.sliding_kv_lora_rank:
            latent = fields.positive("swa_kv_lora_rank", family.sliding_kv_lora_rank)
        return own.positive("kv_lora_rank", latent) + (setting.rotary_dim if setting else 0)
    heads = own.positive("num_key_value_heads", rope.num_key_value_heads)
    if family.repeated_cache_key and fields.boolean(family.repeated_cache_key):
        heads = rope.num_attention_heads
    elif slides:
        heads *= family.sliding_kv_heads_factor
    elif not own.values and fields.boolean("attention_k_eq_v", True):
        heads = fields.integer("num_global_key_value_heads") or heads
    head_dim = setting.head_dim if setting else rope.head_dim
    value_dim = fields.positive("v_head_dim", family.v_head_dim) if family.v_head_dim else head_dim
    return heads * (head_dim + value_dim)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still use, also in a container; None where this is not known.

    Args:
        root: of the file system in which /proc and /sys are read.
    """
    known = [_free_memory(root), *_container_rooms(root)]
    return min((value for value in known if value is not None), default=None)


def _free_memory(root: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):  # names that only some systems have
        return None


# Per version of control groups: where they are, names of limit and usage, of the statistic.
_GROUPS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", ""),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)


def _container_rooms(root: Path) -> Iterator[int]:
    """Bytes that the memory limits of the process's control groups still allow.

    File cache that the kernel drops on demand counts as free, as it does in MemAvailable.
    """
    paths = []
    with suppress(OSError, IndexError):
        # `0::/path` in version 2, `4:memory:/path` in version 1.
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        paths = [line.split(":", 2)[2] for line in lines]
    for place, limit, usage, prefix in _GROUPS:
        # Every group above has a limit too. In a container the path may be that of the host and
        # not exist here; then the process is in the top group.
        groups = {Path(place), *(Path(place, *Path(path).parts[1:]) for path in paths)}
        groups |= {parent for group in groups for parent in group.parents}
        for group in groups:
            try:
                most, used = (int((root / group / name).read_text()) for name in (limit, usage))
                stat = (root / group / "memory.stat").read_text().splitlines()
            except (OSError, ValueError):
                continue  # no such group, or no limit ("max")
            reclaimable = dict(line.split() for line in stat).get(f"{prefix}inactive_file", 0)
            yield most - used + int(reclaimable)
