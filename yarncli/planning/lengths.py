"""The length fields outside the RoPE block, which must follow the new window."""

from __future__ import annotations

from typing import Any

from yarncli.jsontext.text import JsonText, Path

# Some engines read these before max_position_embeddings: SGLang the first one present, vLLM the
# smallest.
CONFIG_LENGTHS = ("seq_length", "max_sequence_length", "max_seq_len", "model_max_length")

# transformers writes 1e30 as an integer for "no limit".
SENTINEL = 10**18


def raise_config_lengths(
    config: JsonText, text_path: Path, maximum: int, length_key: str
) -> JsonText:
    """Raise config.json's other length fields to `max_position_embeddings`; none is lowered."""
    changes: dict[Path, Any] = {}
    for base in {text_path, ()}:
        for key in CONFIG_LENGTHS:
            if key != length_key and _is_below(config.get((*base, key)), maximum):
                changes[(*base, key)] = maximum
    return config.edited(changes)


def raise_tokenizer_length(tokenizer_config: JsonText, length: int) -> JsonText:
    """Raise `model_max_length` to the window of `length` tokens; "no limit" stays as written."""
    if _is_below(tokenizer_config.value.get("model_max_length"), length):
        return tokenizer_config.edited({("model_max_length",): length})
    return tokenizer_config


def raise_generation_length(generation_config: JsonText, window: int, length: int) -> JsonText:
    """Raise generation's `max_length` where it equals the old window; else it is a choice."""
    value = generation_config.value.get("max_length")
    if type(value) is int and value == window and window < length:
        return generation_config.edited({("max_length",): length})
    return generation_config


def _is_below(value: Any, length: int) -> bool:
    return type(value) in (int, float) and value < min(length, SENTINEL)
