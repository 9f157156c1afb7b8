"""Row rules: which rows of a tensor belong to queries or keys and rotate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSelection:
    """Rows of a tensor: the `windows` of every `period` rows from `begin` to `end`."""

    period: int
    """Number of rows after which the pattern repeats."""
    windows: tuple[tuple[int, int], ...]
    """The selected rows of a period, as `(start, stop)`."""
    begin: int = 0
    """The first row of the first period."""
    end: int
    """The row after the last period."""
    width: int = 1
    """Elements of a row; the tensor is read as rows of this width, whatever its shape."""

    @property
    def count(self) -> int:
        """Number of selected rows."""
        inside = sum(stop - start for start, stop in self.windows)
        return (self.end - self.begin) // self.period * inside

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The selected rows as `(start, stop)`, in order; neighbours are joined."""
        found: list[tuple[int, int]] = []
        for base in range(self.begin, self.end, self.period):
            for start, stop in self.windows:
                if found and found[-1][1] == base + start:
                    found[-1] = (found[-1][0], base + stop)
                else:
                    found.append((base + start, base + stop))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSizes:
    """The sizes of one layer that the rules need; widths in elements."""

    head_dim: int
    """The width of a head."""
    rotary_dim: int
    """The rotating part of a head."""
    heads: int
    """Query heads."""
    kv_heads: int
    """Key heads; there are as many value heads."""
    heads_vary: bool = False
    """Whether the counts differ from layer to layer, so that they cannot be checked."""
    nope_dim: int = 0
    """Latent attention: the width of a query head before its rotating part."""
    kv_lora_rank: int = 0
    """Latent attention: the latent rows before the rotating ones."""
    v_head_dim: int = 0
    """Latent attention: the width of the output gate of a query head, if there is one."""
    index_head_dim: int = 0
    """The width of a head of a sparse-attention indexer."""


RowRule = Callable[[LayerSizes, int], RowSelection | None]
"""A function of the layer sizes and the number of rows of a tensor; None if they do not fit."""


def everything(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """All rows."""
    return RowSelection(period=1, windows=((0, 1),), end=rows)


def q_heads(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """The rotating rows of every query head."""
    return _heads(sizes, rows, sizes.heads)


def k_heads(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """The rotating rows of every key head."""
    return _heads(sizes, rows, sizes.kv_heads)


def _heads(sizes: LayerSizes, rows: int, count: int) -> RowSelection | None:
    wide = sizes.head_dim
    if rows % wide or (rows != count * wide and not sizes.heads_vary):
        return None
    return _rotating(sizes, rows, period=wide)


def _rotating(sizes: LayerSizes, rows: int, *, period: int, start: int = 0) -> RowSelection:
    """The rotating rows, from `start`, of every `period` rows."""
    window = (start, start + sizes.rotary_dim)
    return RowSelection(period=period, windows=(window,), end=rows)


def norm_entries(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """The rotating entries of a norm over one head, or over all heads side by side."""
    wide = sizes.head_dim
    return _rotating(sizes, rows, period=wide) if rows % wide == 0 else None


def last_entries(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """The last `rotary_dim` entries."""
    first = rows - sizes.rotary_dim
    return _rotating(sizes, rows, period=rows, start=first) if first >= 0 else None


def rotary_entries(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """All entries of a norm over the rotating part only."""
    return everything(sizes, rows) if rows == sizes.rotary_dim else None


def mla_query(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """The rotating end of every query head of latent attention."""
    return _mla_query(sizes, rows, sizes.nope_dim + sizes.rotary_dim)


def mla_gated_query(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """The same if the output gate of each head follows it (A.X K2)."""
    return _mla_query(sizes, rows, sizes.nope_dim + sizes.rotary_dim + sizes.v_head_dim)


def _mla_query(sizes: LayerSizes, rows: int, wide: int) -> RowSelection | None:
    if rows != sizes.heads * wide:
        return None
    return _rotating(sizes, rows, period=wide, start=sizes.nope_dim)


def mla_key(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """The rotating rows after the latent ones."""
    if rows != sizes.kv_lora_rank + sizes.rotary_dim:
        return None
    return _rotating(sizes, rows, period=rows, start=sizes.kv_lora_rank)


def index_heads(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """The rotating beginning of every head of a sparse-attention indexer."""
    return _index(sizes, rows, 0)


def index_heads_last(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """The rotating end of every head of a sparse-attention indexer."""
    return _index(sizes, rows, sizes.index_head_dim - sizes.rotary_dim)


def _index(sizes: LayerSizes, rows: int, start: int) -> RowSelection | None:
    wide = sizes.index_head_dim
    if wide < sizes.rotary_dim or rows % wide:
        return None
    return _rotating(sizes, rows, period=wide, start=start)


def _block(parts: str, part: str) -> RowRule:
    """The rows of one part of a tensor that holds several, one after the other.

    Args:
        parts: one letter for each, in order: gates, queries, keys, values.
        part: which of them.
    """

    def rule(sizes: LayerSizes, rows: int) -> RowSelection | None:
        wide, ends = sizes.head_dim, [0]
        for each in parts:
            ends.append(ends[-1] + wide * (sizes.heads if each in "gq" else sizes.kv_heads))
        if rows != ends[-1]:
            return None
        first, end = ends[parts.index(part) :][:2]
        return RowSelection(period=wide, windows=((0, sizes.rotary_dim),), begin=first, end=end)

    return rule


block_q, block_k, block_v = (_block("qkv", part) for part in "qkv")
gated_block_q, gated_block_k = (_block("gqkv", part) for part in "qk")


def slot_q(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """Queries, if every kv group is stored as `[q …, k, v]` (GPT-NeoX: one query per group)."""
    return _slots(sizes, rows, range(sizes.heads // sizes.kv_heads))


def slot_k(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """Keys, if every kv group is stored as `[q …, k, v]`."""
    group = sizes.heads // sizes.kv_heads
    return _slots(sizes, rows, range(group, group + 1))


def _slots(sizes: LayerSizes, rows: int, slots: range) -> RowSelection | None:
    wide = sizes.head_dim
    period = (sizes.heads // sizes.kv_heads + 2) * wide
    if rows != sizes.kv_heads * period:
        return None
    windows = tuple((slot * wide, slot * wide + sizes.rotary_dim) for slot in slots)
    return RowSelection(period=period, windows=windows, end=rows)


def first_half(sizes: LayerSizes, rows: int) -> RowSelection | None:
    """Keys of a tensor `[k | v]`, in which the whole head rotates."""
    if rows != 2 * sizes.kv_heads * sizes.head_dim:
        return None
    return RowSelection(period=1, windows=((0, 1),), end=rows // 2)
