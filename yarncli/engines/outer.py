"""What engines do with a RoPE block that is outside the text part of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yarncli.config.outer import BLOCKS, dead_blocks
from yarncli.engines.types import LoaderError, Model, NotKnown
from yarncli.jsontext.fields import json_path
from yarncli.rope.parameters import HAVE_ORIGINAL, canonical_rope_type

_MAXIMUM, _ORIGINAL = "max_position_embeddings", "original_max_position_embeddings"
# What `_check_received_keys` of transformers insists on; plain RoPE and unknown types pass.
_REQUIRED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", _ORIGINAL),
    "llama3": ("factor", _ORIGINAL, "low_freq_factor", "high_freq_factor", "rope_theta"),
    "longrope": ("short_factor", "long_factor", _ORIGINAL),
    "proportional": ("rope_theta",),
}
# What it reads of the level that the block stands on.
_READ = {
    "yarn": (_MAXIMUM,),
    "llama3": (_MAXIMUM,),
    "longrope": ("hidden_size", "num_attention_heads"),
}
_HAVE_MAXIMUM = frozenset({"vibevoice_asr"})  # the config class of the whole has that field

# Engines that were seen to pass over such a block, or to load configs through transformers 5.
_KNOWN = ("transformers", "vllm", "openvino")


def refuse_outer(
    config: Mapping[str, Any], text_path: tuple[str, ...], *, aliases: bool = False
) -> None:
    """Refuse a RoPE block beside the text part that the config of the whole model fails on.

    It is checked there, and nothing reads it. A block that passes the check is ignored.

    Args:
        config: the JSON object of `config.json`.
        text_path: the keys that lead to its text part.
        aliases: whether the loader puts today's names of types first, as vLLM does.

    Raises:
        LoaderError: it is of a type for which that config lacks fields.

    Source: run with 5.23 on the config classes of all wrappers; `modeling_rope_utils.py`,
        `validate_rope`. vLLM 0.33 `transformers_utils/config.py` 668-687, 996.
    """
    level = config
    for depth, step in enumerate(text_path):
        for key in BLOCKS:
            fault = outer_fault(level, key, aliases=aliases)
            if fault:
                where = json_path((*text_path[:depth], key))
                inside = json_path(text_path)
                raise LoaderError(
                    f"{where} is outside {json_path(text_path[: depth + 1])}, and transformers' "
                    f"check of the whole config fails on it: {fault}. The model reads {inside}."
                )
        level = level[step] if isinstance(level.get(step), Mapping) else {}


def outer_fault(level: Mapping[str, Any], key: str, *, aliases: bool = False) -> str:
    """The exception with which the check of one level ends; empty where it passes.

    Args:
        level: the JSON object that the block stands in.
        key: `rope_scaling` or `rope_parameters`.
        aliases: as for `refuse_outer`.
    """
    block = level.get(key)
    if not block:
        return ""
    if not isinstance(block, Mapping):
        return "AttributeError, it is no JSON object"
    kind = str(block.get("rope_type") or block.get("type") or "default")
    has_field = level.get("model_type") in _HAVE_MAXIMUM
    here = {*level, *((_MAXIMUM,) if has_field else ())}
    stated = set(block)
    if key == "rope_scaling" and level.get("rope_theta"):
        # The two are merged before the fields that the class does not know are set.
        if kind in HAVE_ORIGINAL and not has_field:
            return f"AttributeError, {kind} needs {_MAXIMUM} beside it"
        stated |= {"rope_theta", _ORIGINAL}
    read: tuple[str, ...] = _READ.get(kind, ())
    if aliases and canonical_rope_type(kind) in HAVE_ORIGINAL:
        read = (*read, _MAXIMUM)
    lacks = [name for name in _REQUIRED.get(kind, ()) if name not in stated]
    if lacks:
        return f"KeyError, {kind} lacks {lacks[0]}"
    missing = [name for name in read if name not in here]
    return f"AttributeError, {kind} needs {missing[0]} beside it" if missing else ""


def ignored_block(engine_id: str, model: Model) -> str:
    """A note on a scaling that an engine ignores; empty where there is none.

    Args:
        engine_id: the engine, which has read the config.
        model: the config.

    Raises:
        NotKnown: there is one, and nobody examined whether this engine reads it.
    """
    dead = next((d for d in dead_blocks(model.config, model.text_path) if d.scales), None)
    if dead is None:
        return ""
    where, inside = json_path(dead.path), json_path(model.text_path) or "the top level"
    if not engine_id.startswith(_KNOWN):
        raise NotKnown(f"Nobody examined whether it reads {where}, which is outside the text part.")
    return f"ignores {where}: the model reads {inside}"
