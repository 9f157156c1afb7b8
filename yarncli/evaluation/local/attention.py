"""A KV cache that keeps one text and rewinds, and the attention that reads it without a mask.

transformers' own cached forward builds an explicit mask as soon as there are more keys than
queries, which leaves the fast causal kernels and computes the masked half too. Here the keys that
all queries see are attended without a mask, the newest ones causally, and the two results are
merged by their log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.masking_utils import causal_mask_function, sdpa_mask

from yarncli.evaluation.local.devices import flash_attention, splits_attention

AttentionKind = Literal["split", "masked"]

# Arguments of an attention call that change its result and are not computed here.
_UNKNOWN_EXTRAS = ("softcap", "s_aux", "position_bias", "head_mask")


class NoFastPath(Exception):
    """This model's attention cannot be computed here; the plain path must be taken."""


class SharedKeysLost(NoFastPath):
    """The model makes its keys from what it cached (MLA), so branches cannot share a prefix."""


class TrackLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values: a text of one row, and branches of several that start from it.

    Shapes are (1, key-value heads, capacity, head dim) for the text and (rows, key-value heads,
    branch capacity, head dim) for the branches. `window` is the layer's sliding window or None.
    """

    def __init__(self, capacity: int, window: int | None) -> None:
        super().__init__()
        self.capacity = capacity
        self.window = window
        self.is_sliding = window is not None
        self.wanted: int | None = None
        """The output of how many of a call's last queries is used; None: of all."""
        self.length = 0
        self.rows = 0  # 0: no branches, new tokens extend the text itself
        self.branch_length = 0
        self.branch_capacity = 0
        self.branch_keys: torch.Tensor | None = None
        self.branch_values: torch.Tensor | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the text's buffer in the shape of the first keys and values."""
        self.keys = _buffer(key_states, 1, self.capacity)
        self.values = _buffer(value_states, 1, self.capacity)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new keys and values and return all that this call's queries may see.

        For branches the returned keys are the branches' own; the text before them goes along as
        the attribute `shared_prefix`, one row for all. `wanted` goes along, too.
        """
        new = key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self._first_visible()
        if not self.rows:
            end = self.length + new
            self.keys[:, :, self.length : end] = key_states
            self.values[:, :, self.length : end] = value_states
            self.length = end
            keys, values = self.keys[:, :, start:end], self.values[:, :, start:end]
            keys.wanted = self.wanted
            return keys, values
        if self.branch_keys is None or self.branch_values is None:
            self.branch_keys = _buffer(key_states, self.rows, self.branch_capacity)
            self.branch_values = _buffer(value_states, self.rows, self.branch_capacity)
        end = self.branch_length + new
        self.branch_keys[:, :, self.branch_length : end] = key_states
        self.branch_values[:, :, self.branch_length : end] = value_states
        self.branch_length = end
        own = max(0, start - self.length)
        keys, values = self.branch_keys[:, :, own:end], self.branch_values[:, :, own:end]
        keys.shared_prefix = (
            self.keys[:, :, start : self.length],
            self.values[:, :, start : self.length],
        )
        keys.wanted = self.wanted
        return keys, values

    def _first_visible(self) -> int:
        """The first position that the next query can see."""
        return 0 if self.window is None else max(0, self.get_seq_length() - self.window + 1)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number and first position of the keys that `update` will return, prefix included."""
        start = self._first_visible()
        return self.get_seq_length() + query_length - start, start

    def get_seq_length(self) -> int:
        """Tokens seen so far by each row."""
        return self.length + self.branch_length

    def get_max_length(self) -> int:
        """Tokens that fit."""
        return self.capacity


class Track(Cache):  # type: ignore[misc]
    """The cache of one text; `tokens` are the ids whose keys and values it holds."""

    def __init__(self, windows: list[int | None], capacity: int) -> None:
        super().__init__(layers=[TrackLayer(capacity, window) for window in windows])
        self.capacity = capacity
        self.tokens: list[int] = []

    def want(self, count: int) -> None:
        """Of the next forward, only the output of the last `count` tokens of each row is used.

        The last layer then attends for those alone: nothing else reads its other outputs. The
        layers before it have to give all of theirs, which become keys and values.
        """
        self.layers[-1].wanted = count

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` tokens, and all branches."""
        for layer in self.layers:
            layer.rows = layer.branch_length = 0
            layer.branch_keys = layer.branch_values = None
        self.seek(length)

    def seek(self, length: int) -> None:
        """Go back to `length` tokens: of the text, or of each branch where there are branches."""
        for layer in self.layers:
            if layer.rows:
                layer.branch_length = min(layer.branch_length, length - layer.length)
            else:
                layer.length = min(layer.length, length)
        self.tokens = self.tokens[:length]

    def branch(self, rows: int, capacity: int) -> None:
        """From now on each of `rows` rows goes on from the text on its own."""
        for layer in self.layers:
            layer.rows, layer.branch_capacity, layer.branch_length = rows, capacity, 0
            layer.branch_keys = layer.branch_values = None


def _buffer(like: torch.Tensor, rows: int, length: int) -> torch.Tensor:
    return like.new_empty((rows, like.shape[1], length, like.shape[3]))


@contextmanager
def track_attention(model: Any, kind: AttentionKind) -> Iterator[None]:
    """Let `model` compute its attention here, over a `Track`.

    Raises:
        NoFastPath: the model does not let its attention be replaced.
    """
    name = f"yarncli_{kind}"
    attend = _split_attention if kind == "split" else _masked_attention
    AttentionInterface.register(name, partial(_attend_wanted, attend))
    AttentionMaskInterface.register(name, _mask_unless_causal)
    # A model's parts (text, vision) have a setting each; the whole is put back as it was.
    before = getattr(model.config, "_attn_implementation", None)
    try:
        model.set_attn_implementation(name)
    except (ValueError, KeyError, AttributeError) as error:
        raise NoFastPath("the model does not let its attention be replaced") from error
    if model.config.get_text_config()._attn_implementation != name:
        raise NoFastPath("the model keeps its own attention")
    try:
        yield
    finally:
        model.set_attn_implementation(before or "eager")


def _mask_unless_causal(
    mask_function: Any = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    **sizes: Any,
) -> torch.Tensor | None:
    """None where every query sees all keys up to its own, else transformers' boolean mask."""
    causal = mask_function is causal_mask_function or (
        local_size is not None
        and sizes.get("allow_is_causal_skip", True)
        and sizes["q_offset"] + sizes["q_length"] <= local_size
    )
    if causal and attention_mask is None:
        return None
    sizes["allow_is_causal_skip"] = False
    return sdpa_mask(
        mask_function=mask_function,
        attention_mask=attention_mask,
        local_size=local_size,
        **sizes,
    )


def _attend_wanted(
    attend: Callable[..., tuple[torch.Tensor, None]],
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *settings: Any,
    **extras: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of the queries whose output is used, and zeros for the others."""
    wanted = getattr(key, "wanted", None)
    unused = 0 if wanted is None or attention_mask is not None else query.shape[2] - wanted
    if unused <= 0:
        return attend(module, query, key, value, attention_mask, *settings, **extras)
    output, _ = attend(module, query[:, :, unused:], key, value, None, *settings, **extras)
    return torch.nn.functional.pad(output, (0, 0, 0, 0, unused, 0)), None


def _split_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **extras: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of (rows, heads, queries, head dim) over the keys a `TrackLayer` returned."""
    if attention_mask is not None or not _can_split(query, key, value):
        return _masked_attention(
            module, query, key, value, attention_mask, scaling, is_causal, **extras
        )
    prefix = _checked_prefix(module, query, key, is_causal, extras)
    queries = query.shape[2]
    own = key.shape[2] - queries
    groups = query.shape[1] // key.shape[1]
    scale = scaling if scaling is not None else float(query.shape[-1] ** -0.5)
    if queries == 1:  # sees everything: no causal part
        parts = [_attend_all(query, key, value, scale)]
    else:
        newest = (key[:, :, own:], value[:, :, own:])
        if groups > 1:
            newest = (
                newest[0].repeat_interleave(groups, dim=1),
                newest[1].repeat_interleave(groups, dim=1),
            )
        parts = [flash_attention(query, *newest, causal=True, scale=scale)]
        if own:
            parts.append(_attend_all(query, key[:, :, :own], value[:, :, :own], scale))
    if prefix is not None and prefix[0].shape[2]:
        parts.append(_attend_all(query, *prefix, scale))
    return _merge(parts).transpose(1, 2).contiguous(), None


def _masked_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **extras: Any,
) -> tuple[torch.Tensor, None]:
    """The same by torch's public attention over all keys with an explicit mask: any device."""
    prefix = _checked_prefix(module, query, key, is_causal, extras)
    if prefix is not None:
        rows = query.shape[0]
        key = torch.cat((prefix[0].expand(rows, -1, -1, -1), key), dim=2)
        value = torch.cat((prefix[1].expand(rows, -1, -1, -1), value), dim=2)
    queries, keys = query.shape[2], key.shape[2]
    if attention_mask is None and queries > 1:
        attention_mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(
            keys - queries
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    output = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling
    )
    return output.transpose(1, 2).contiguous(), None


def _checked_prefix(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    is_causal: bool | None,
    extras: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The keys shared by all rows; refuses what this module does not compute."""
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if not causal:
        raise NoFastPath("its attention is not causal")
    for name in _UNKNOWN_EXTRAS:
        if extras.get(name) is not None:
            raise NoFastPath(f"its attention has {name}")
    prefix: tuple[torch.Tensor, torch.Tensor] | None = getattr(key, "shared_prefix", None)
    if query.shape[0] > 1 and prefix is None:
        raise SharedKeysLost("its keys change after the cache")
    return prefix


def _can_split(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    same = query.shape[-1] == key.shape[-1] == value.shape[-1]
    return same and splits_attention(query.device, query.dtype, query.shape[-1])


def _attend_all(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in which every query sees every key.

    Heads that share keys, and rows that share a prefix, become more queries over the same keys,
    so nothing is copied per head or row.
    """
    rows, heads, queries, dim = query.shape
    key_rows, key_heads = key.shape[:2]
    if rows == key_rows and heads == key_heads:
        return flash_attention(query, key, value, causal=False, scale=scale)
    groups = heads // key_heads
    grouped = query.reshape(rows, key_heads, groups * queries, dim)
    if key_rows == rows:
        output, log_sum_exp = flash_attention(grouped, key, value, causal=False, scale=scale)
        return (
            output.reshape(rows, heads, queries, dim),
            log_sum_exp.reshape(rows, heads, queries),
        )
    folded = grouped.transpose(0, 1).reshape(1, key_heads, rows * groups * queries, dim)
    output, log_sum_exp = flash_attention(folded, key, value, causal=False, scale=scale)
    output = output.reshape(key_heads, rows, groups * queries, dim).transpose(0, 1)
    log_sum_exp = log_sum_exp.reshape(key_heads, rows, groups * queries).transpose(0, 1)
    return (
        output.reshape(rows, heads, queries, dim),
        log_sum_exp.reshape(rows, heads, queries),
    )


def _merge(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Attention over the union of disjoint keys, from each part's output and log-sum-exp."""
    if len(parts) == 1:
        return parts[0][0]
    total = torch.logsumexp(torch.stack([lse for _, lse in parts]), dim=0)
    # In float32: a sum of halves would round once more for every part.
    merged = torch.zeros_like(parts[0][0], dtype=torch.float32)
    for output, lse in parts:
        merged.addcmul_(output.float(), (lse - total).exp().unsqueeze(-1))
    return merged.to(parts[0][0].dtype)
