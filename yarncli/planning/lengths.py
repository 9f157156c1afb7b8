"""The length fields outside the RoPE block, which must follow the new window."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from yarncli.jsontext.text import JsonText, Path

# Some engines read these before max_position_embeddings: SGLang the first one present, vLLM the
# smallest.
CONFIG_LENGTHS = ("seq_length", "max_sequence_length", "max_seq_len", "model_max_length")

# transformers writes 1e30 as an integer for "no limit".
SENTINEL = 10**18


def follow_maximum(
    config: JsonText, text_path: Path, length_key: str, *, before: int, maximum: int
) -> JsonText:
    """Let the other length fields of config.json follow `max_position_embeddings`.

    A field below the new maximum is raised to it. If a method lowers the maximum to the original
    window, a field that equals the old maximum is lowered too, because SGLang multiplies that field
    instead. All other fields stay.

    Args:
        config: config.json with the new maximum.
        text_path: the keys that lead to its text part.
        length_key: the name of `max_position_embeddings`.
        before: the maximum as it was, tokens.
        maximum: the maximum as it is now.
    """
    changes: dict[Path, Any] = {}
    for base in {text_path, ()}:
        for key in CONFIG_LENGTHS:
            value = config.get((*base, key))
            if key != length_key and (_is_below(value, maximum) or value == before > maximum):
                changes[(*base, key)] = maximum
    return config.edited(changes)


def raise_tokenizer_length(tokenizer_config: JsonText, length: int) -> JsonText:
    """Raise `model_max_length` to `length` tokens; a value that means "no limit" stays."""
    if _is_below(tokenizer_config.value.get("model_max_length"), length):
        return tokenizer_config.edited({("model_max_length",): length})
    return tokenizer_config


def raise_generation_length(
    generation_config: JsonText, windows: Collection[int], length: int
) -> JsonText:
    """Raise `max_length` of generation if it equals an old window; any other value was chosen.

    Args:
        generation_config: generation_config.json.
        windows: the old maximum, and the old window with its scaling, tokens.
        length: the new window.
    """
    value = generation_config.value.get("max_length")
    if type(value) is int and value in windows and value < length:
        return generation_config.edited({("max_length",): length})
    return generation_config


def _is_below(value: Any, length: int) -> bool:
    return type(value) in (int, float) and value < min(length, SENTINEL)
