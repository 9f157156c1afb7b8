"""What a GGUF file says about RoPE: its typed keys, tensors of frequency factors, and sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from yarncli.gguf.architectures import Architecture, find_architecture
from yarncli.gguf.types import as_stored

FREQS = "rope_freqs.weight"
LONG = "rope_factors_long.weight"
SHORT = "rope_factors_short.weight"

CONTEXT = "context_length"
THETA = "rope.freq_base"
TYPE = "rope.scaling.type"
FACTOR = "rope.scaling.factor"
OLD_FACTOR = "rope.scale_linear"
ORIGINAL = "rope.scaling.original_context_length"
ATTN_FACTOR = "rope.scaling.attn_factor"
FINETUNED = "rope.scaling.finetuned"
WINDOW = "attention.sliding_window"
PATTERN = "attention.sliding_window_pattern"
SECTIONS = "rope.dimension_sections"

# The types with which the runtime reads the keys of every architecture (`llama-model.cpp:1321` to
# 1470), or of the architectures that read them (`models/*.cpp`).
KEY_TYPES: Mapping[str, str] = {
    CONTEXT: "u32",
    "block_count": "u32",
    WINDOW: "u32",
    "embedding_length": "u32",
    "attention.key_length": "u32",
    "attention.key_length_swa": "u32",
    "rope.dimension_count": "u32",
    "rope.dimension_count_swa": "u32",
    THETA: "f32",
    "rope.freq_base_swa": "f32",
    TYPE: "str",
    FACTOR: "f32",
    OLD_FACTOR: "f32",
    ORIGINAL: "u32",
    ATTN_FACTOR: "f32",
    FINETUNED: "bool",
    "rope.scaling.alpha": "f32",
    "rope.scaling.yarn_ext_factor": "f32",
    "rope.scaling.yarn_attn_factor": "f32",
    "rope.scaling.yarn_beta_fast": "f32",
    "rope.scaling.yarn_beta_slow": "f32",
    "rope.scaling.yarn_log_multiplier": "f32",
    "attention.compress_rope_freq_base": "f32",
}

# `LLAMA_MAX_LAYERS` of `llama-hparams.h`.
MOST_BLOCKS = 512
# The keys that scale RoPE. Granite's switch `finetuned` is not one of them.
SCALING = tuple(key for key in KEY_TYPES if key.startswith("rope.scal") and key != FINETUNED)
FACTORS = (FREQS, LONG, SHORT)


@dataclass(frozen=True, slots=True)
class Typed:
    """The value of a key with its GGUF type, such as "u32", "f32", "str", "arr"."""

    type: str
    value: Any


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor: its ggml type, such as "Q8_0", and its dimensions, the contiguous one first."""

    type: str
    shape: tuple[int, ...]
    values: tuple[float, ...] | None = None
    """The numbers, read only for tensors of frequency factors; `None` if they were not read."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The widths of one head."""

    head_dim: int
    """All dimensions; with latent attention only those that rotate."""
    rotary_dim: int
    """The dimensions that rotate."""


@dataclass(frozen=True, slots=True)
class Gguf:
    """The keys and tensors of a GGUF file, under their full names."""

    keys: Mapping[str, Typed]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """The value of `general.architecture`; empty if it is missing or not a string."""
        found = self.keys.get("general.architecture")
        return found.value if found and isinstance(found.value, str) else ""

    @property
    def row(self) -> Architecture | None:
        """What llama.cpp's graph does; `None` if llama.cpp does not know the architecture."""
        return find_architecture(self.architecture)

    def name(self, key: str) -> str:
        """The full name of a key, with the prefix of the architecture."""
        return f"{self.architecture}.{key}"

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key of the architecture.

        Args:
            key: its name without the prefix.
            default: the value if the file does not have the key.
        """
        found = self.keys.get(self.name(key))
        return default if found is None else found.value

    def has(self, key: str) -> bool:
        """Whether the file has a key of the architecture, named without the prefix."""
        return self.name(key) in self.keys

    def factors(self, name: str) -> tuple[float, ...] | None:
        """The numbers of a tensor of frequency factors; `None` if there is no such tensor."""
        found = self.tensors.get(name)
        assert found is None or found.values is not None, f"{name} was not read"
        return found.values if found else None

    @property
    def window(self) -> int | None:
        """The sliding window, tokens; `None` if no layer has one in llama.cpp."""
        row, any_or_these = self.row, (0, self.get("block_count"))
        if row is None or not row.windowed or row.windowed_blocks not in any_or_these:
            return None
        found = _first(self.get(WINDOW, row.default_window))
        return found if isinstance(found, int) and found > 0 else None

    @property
    def is_mrope(self) -> bool:
        """Whether RoPE is multimodal: each section of the pairs rotates by another axis."""
        sections = self.get(SECTIONS)
        has = self.row is not None and self.row.sections
        return has and (any(sections) if isinstance(sections, list | tuple) else bool(sections))

    @property
    def blocks(self) -> list[int]:
        """The blocks with a key projection, including those of draft heads."""
        pattern = re.compile(r"blk\.(\d+)\.attn_(?:k|qkv)\.weight")
        return sorted({int(m[1]) for name in self.tensors if (m := pattern.fullmatch(name))})

    @property
    def windowed_blocks(self) -> set[int] | None:
        """The blocks that attend within a window; `None` if the file does not say which.

        Source: `llama_hparams::set_swa_pattern`, `llama-model.cpp:3434`.
        """
        row = self.row
        if self.window is None or row is None:
            return set()
        pattern = self.get(PATTERN)
        if isinstance(pattern, list | tuple):
            return {n for n, windowed in enumerate(pattern) if windowed}
        period = pattern if isinstance(pattern, int) else row.pattern
        if not row.pattern or not period:
            return None
        without = 0 if row.dense_first else period - 1
        # Draft heads come last and have no window.
        count, drafts = self.get("block_count"), self.get("nextn_predict_layers", 0)
        if not (_is_size(count) and isinstance(drafts, int)):
            return None
        return {n for n in range(min(count, MOST_BLOCKS) - drafts) if n % period != without}

    def sizes(self, *, windowed: bool = False) -> Sizes | None:
        """The widths of a head; `None` if the file does not tell.

        Args:
            windowed: give the widths for the layers that attend within a window.

        Source: `llama-model.cpp:1434-1470`; `models/step35.cpp`.
        """
        heads = _first(self.get("attention.head_count"))
        width = self.get("embedding_length")
        head = self.get("attention.key_length")
        if head is None and _is_size(width) and _is_size(heads):
            head = width // heads
        rotary = self.get("rope.dimension_count", head)
        if windowed:
            head = self.get("attention.key_length_swa", head)
            rotary = self.get("rope.dimension_count_swa", rotary)
        elif self.architecture == "step35" and _is_size(rotary):
            rotary //= 2
        if not (_is_size(heads) and _is_size(head) and _is_size(rotary)):
            return None
        is_mla = self.row is not None and (self.row.mla or self.row.compress)
        return Sizes(rotary if is_mla else head, rotary)

    def unscaled(self) -> Gguf:
        """The file without the keys and the tensors that scale its RoPE."""
        return self.changed({}, (*map(self.name, SCALING), *FACTORS))

    def changed(
        self,
        keys: Mapping[str, Typed],
        drop: tuple[str, ...] = (),
        tensors: Mapping[str, tuple[float, ...]] | None = None,
    ) -> Gguf:
        """The file with changed keys and tensors; numbers are rounded as their types store them.

        Args:
            keys: full name → new value.
            drop: full names of keys, and names of tensors, to leave out.
            tensors: name → numbers of an F32 tensor with one dimension.
        """
        kept = {name: value for name, value in self.keys.items() if name not in drop}
        kept |= {name: replace(v, value=as_stored(v.type, v.value)) for name, v in keys.items()}
        found = {name: tensor for name, tensor in self.tensors.items() if name not in drop}
        for name, values in (tensors or {}).items():
            stored: Any = tuple(as_stored("f32", number) for number in values)
            found[name] = Tensor("F32", (len(values),), stored)
        return Gguf(kept, found)


def typed(key: str, value: Any) -> Typed:
    """A value with the type that llama.cpp expects for a key.

    Args:
        key: without the prefix of the architecture.
        value: what to store.
    """
    kind = KEY_TYPES.get(key, "str" if isinstance(value, str) else "f32")
    return Typed(kind, float(value) if kind == "f32" else value)


def _first(value: Any) -> Any:
    """The value of a key that may be a list with one value per layer: the first that is not 0."""
    if isinstance(value, list | tuple):
        return next((item for item in value if item), None)
    return value


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
