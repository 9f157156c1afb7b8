"""RoPE blocks outside the text part of a config, where no text model reads them.

transformers before 4.52 reads Qwen2-VL and related models at the top level. But a yarn block there
stops transformers 5, so such a copy is treated like the other blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from yarncli.config.own_code import has_sizes, text_levels

BLOCKS = ("rope_scaling", "rope_parameters")

# Wrappers that have a RoPE setting of their own beside that of the text model.
_OWN_SETTING = frozenset({"musicflamingo"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadBlock:
    """One such block."""

    path: tuple[str, ...]
    """Its place in the config."""
    values: Mapping[str, Any]
    """Its keys and values as the file has them."""
    beside: Mapping[str, Any]
    """The level that it stands on."""
    encloses: bool
    """Whether the text part lies within that level; else it is a sub-config of its own."""

    @property
    def named(self) -> str | None:
        """Its type as the file names it."""
        found = self.values.get("rope_type") or self.values.get("type")
        return found if isinstance(found, str) else None

    @property
    def scales(self) -> bool:
        """Whether it asks for something else than plain RoPE."""
        return self.named not in (None, "default", "mrope")


def dead_levels(
    config: Mapping[str, Any], text_path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """The levels around the text part of which no model reads RoPE fields, with their paths.

    Args:
        config: the JSON object of `config.json`.
        text_path: the keys that lead to its text part.
    """
    level = config
    for depth, step in enumerate(text_path):
        if level.get("model_type") not in _OWN_SETTING:
            yield text_path[:depth], level
        inner = level.get(step)
        level = inner if isinstance(inner, Mapping) else {}


def dead_blocks(config: Mapping[str, Any], text_path: tuple[str, ...]) -> Iterator[DeadBlock]:
    """The blocks beside the text part, outermost first.

    Args:
        config: the JSON object of `config.json`.
        text_path: the keys that lead to its text part.
    """
    for path, level in dead_levels(config, text_path):
        yield from _blocks(path, level, encloses=True)
    for path, level in text_levels(config):
        # A sub-config with sizes is another model, or a copy that an engine may read.
        if path != text_path[: len(path)] and not has_sizes(level):
            yield from _blocks(path, level, encloses=False)


def _blocks(
    path: tuple[str, ...], level: Mapping[str, Any], *, encloses: bool
) -> Iterator[DeadBlock]:
    for key in BLOCKS:
        values = level.get(key)
        if isinstance(values, Mapping) and values:
            yield DeadBlock(path=(*path, key), values=values, beside=level, encloses=encloses)
