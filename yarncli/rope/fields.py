"""The length fields outside the RoPE block, which must follow the new window."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from yarncli.jsontext import JsonText, Path, format_path

# Some engines read these before max_position_embeddings: SGLang the first one present, vLLM the
# smallest.
CONFIG_LENGTHS = ("seq_length", "max_sequence_length", "max_seq_len", "model_max_length")

# transformers writes 1e30 as an integer for "no limit".
SENTINEL = 10**18


class Absent(Enum):
    """The one value that stands for "no such key"; null is a value of JSON."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One value replaced in one file; `ABSENT` where the key is new, or gone."""

    file: str
    path: Path
    before: Any
    after: Any

    def to_json(self) -> dict[str, Any]:
        """As plain data: an absent side has no key."""
        found: dict[str, Any] = {"file": self.file, "path": list(self.path)}
        if self.before is not ABSENT:
            found["before"] = self.before
        if self.after is not ABSENT:
            found["after"] = self.after
        return found

    def describe(self) -> str:
        """`config.json: rope_theta 10000 → 83000.0`, long values left out."""
        shown = [_brief(value) for value in (self.before, self.after)]
        return f"{self.file}: {format_path(self.path)} {shown[0]} → {shown[1]}"


def _brief(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "{…}" if isinstance(value, dict) else "[…]"
    return "absent" if value is ABSENT else "null" if value is None else str(value)


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


def changed_fields(file: str, before: JsonText, after: JsonText) -> list[FieldChange]:
    """Every leaf that differs between two versions of a file, in the order of the new one."""
    return [
        FieldChange(file, path, old, new)
        for path, old, new in _differences((), before.value, after.value)
    ]


def _differences(path: Path, old: Any, new: Any) -> list[tuple[Path, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*new, *(key for key in old if key not in new)]:
            found += _differences((*path, key), old.get(key, ABSENT), new.get(key, ABSENT))
        return found
    return [] if old == new and type(old) is type(new) else [(path, old, new)]


def _is_below(value: Any, length: int) -> bool:
    return type(value) in (int, float) and value < min(length, SENTINEL)
