"""Restore in memory the files of a conversion that a trainer changed or dropped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from yarncli.checkpoint.source import MAX_JSON_SIZE, Checkpoint
from yarncli.config.reading import RopeConfig
from yarncli.history import BAKED_MARKER
from yarncli.jsontext.text import JsonText, Path
from yarncli.planning.lengths import CONFIG_LENGTHS

_BLOCKS = ("rope_scaling", "rope_parameters")
# Dtype in safetensors → its name in config.json.
DTYPE_NAMES: Mapping[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
}  # fmt: skip
_DTYPE_KEYS = ("dtype", "torch_dtype")
# Files that belong to a model besides config and weights. They are copied from the conversion if
# the trainer left them out, but only from the top of the directory.
_BELONGS = re.compile(
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(?:json|txt)|merges\.txt|[^/]*\.(?:tiktoken|spm)|tokenizer\.model|spiece\.model"
    r"|sentencepiece\.bpe\.model|tekken\.json|chat_template\.(?:jinja|json)"
    r"|generation_config\.json|(?:video_|image_)?(?:pre)?processor_config\.json"
    r"|(?:configuration|modeling|tokenization|processing)_[^/]*\.py"
    r"|(?:LICEN[CS]E|COPYING|NOTICE|USE_POLICY)(?:[._-][^/]*)?|README\.md"
)
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_GENERATION = "generation_config.json"
# A tokenizer that a trainer saves holds how its last batch was truncated and padded.
_BATCHING = ("truncation", "padding")


def restored_config(
    trained: tuple[JsonText, RopeConfig], converted: tuple[JsonText, RopeConfig], dtype: str | None
) -> JsonText:
    """The config of the trained checkpoint, with everything restored that the conversion wrote.

    Args:
        trained: its config.json, as text and as read.
        converted: the same for the conversion.
        dtype: dtype of the weights in safetensors; None if they are mixed.
    """
    (text, mine), (origin, theirs) = trained, converted
    changes: dict[Path, Any] = {}
    removals: list[Path] = []
    levels = dict.fromkeys([(mine.text_path, theirs.text_path), ((), ())])
    for to, come_from in levels:
        for key in _rope_keys(theirs):
            value = origin.get((*come_from, key), _ABSENT)
            if value is not _ABSENT:
                changes[(*to, key)] = value
            elif to == mine.text_path and text.get((*to, key), _ABSENT) is not _ABSENT:
                removals.append((*to, key))
        for key in (*theirs.family.partial_keys, theirs.length_key, *CONFIG_LENGTHS):
            value = origin.get((*come_from, key), _ABSENT)
            if value is not _ABSENT:
                changes[(*to, key)] = value
        # Trainers switch the cache off to save memory, and this setting gets into the saved config.
        if text.get((*to, "use_cache")) is False and origin.get((*come_from, "use_cache")):
            changes[(*to, "use_cache")] = True
        for key, value in _dtype_changes(text, to, origin, come_from, dtype):
            if value is _ABSENT:
                removals.append((*to, key))
            else:
                changes[(*to, key)] = value
    head_dim = origin.get((*theirs.text_path, "head_dim"))
    if head_dim is not None and text.get((*mine.text_path, "head_dim")) is None:
        changes[(*mine.text_path, "head_dim")] = head_dim
    marker = origin.get((BAKED_MARKER,))
    if marker is not None:
        changes[(BAKED_MARKER,)] = marker
    return text.edited(changes, removals)


def _rope_keys(rope: RopeConfig) -> tuple[str, ...]:
    """The keys that together define RoPE. Each is restored to what the conversion has."""
    scoped = [key for rule in rope.family.scopes for key in rule.theta_keys]
    names = [*_BLOCKS, *rope.family.theta_keys, *scoped, "original_max_position_embeddings"]
    return tuple(dict.fromkeys(names))


def _dtype_changes(
    text: JsonText, to: Path, origin: JsonText, come_from: Path, dtype: str | None
) -> Iterator[tuple[str, Any]]:
    """Set the dtype keys that the conversion has, because older readers know only one of them."""
    spelled = [key for key in _DTYPE_KEYS if origin.get((*come_from, key)) is not None]
    if not spelled or dtype is None or dtype not in DTYPE_NAMES:
        return
    for key in _DTYPE_KEYS:
        there = text.get((*to, key), _ABSENT) is not _ABSENT
        if key in spelled:
            yield key, DTYPE_NAMES[dtype]
        elif there:
            yield key, _ABSENT


def restored_files(
    trained: Checkpoint, converted: Checkpoint
) -> dict[str, tuple[JsonText, JsonText]]:
    """Small JSON files whose lengths or tokenizer class the trainer changed: before and after."""
    found = {}
    mine, theirs = (c.optional_json(_TOKENIZER_CONFIG) for c in (trained, converted))
    if mine and theirs:
        changes = _carried(mine, theirs, "model_max_length")
        # transformers 5 writes a class that transformers 4 does not know.
        if mine.get(("tokenizer_class",)) == "TokenizersBackend":
            changes |= _carried(mine, theirs, "tokenizer_class")
        found[_TOKENIZER_CONFIG] = (mine, mine.edited(changes))
    mine, theirs = (c.optional_json(_GENERATION) for c in (trained, converted))
    if mine and theirs:
        found[_GENERATION] = (mine, mine.edited(_carried(mine, theirs, "max_length")))
    return {name: pair for name, pair in found.items() if pair[0].text != pair[1].text}


def _carried(mine: JsonText, theirs: JsonText, key: str) -> dict[Path, Any]:
    value = theirs.get((key,))
    return {} if value is None or value == mine.get((key,)) else {(key,): value}


def missing_files(trained: Checkpoint, converted: Checkpoint) -> list[str]:
    """The files of the model to copy from the conversion.

    These are the files that the trained checkpoint lacks, and the tokenizer if the trained one
    differs only in how its last batch was truncated and padded.
    """
    names = [f.name for f in converted.files if _BELONGS.fullmatch(f.name)]
    found = [name for name in names if trained.file(name) is None]
    if _TOKENIZER in names and _TOKENIZER not in found:
        mine, theirs = (c.read_bytes(_TOKENIZER) for c in (trained, converted))
        if mine != theirs and _same_tokenizer(mine, theirs):
            found.append(_TOKENIZER)
    return found


def _same_tokenizer(one: bytes, other: bytes) -> bool:
    if max(len(one), len(other)) > MAX_JSON_SIZE:
        return False
    try:
        pair = [json.loads(data) for data in (one, other)]
    except (ValueError, RecursionError):
        return False
    if not all(isinstance(each, dict) for each in pair):
        return False
    kept = [{k: v for k, v in each.items() if k not in _BATCHING} for each in pair]
    return bool(kept[0] == kept[1])


_ABSENT = object()
