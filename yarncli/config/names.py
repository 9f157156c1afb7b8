"""Names of modules: files and releases of transformers put different prefixes before one module."""

from __future__ import annotations

import re
from typing import NamedTuple

# Where the layers of a text model are; vision and audio towers have other names.
TEXT_STACKS = (
    r"(?:model\.|transformer\.|gpt_neox\.|gpt_neox_japanese\.)?(?:layers|h|blocks)"
    r"|model\.(?:language_model|text_model)\.layers"
    r"|language_model\.(?:model\.)?layers"
    r"|(?:text_model|decoder|thinker)\.model\.layers"
)
PREDICTION = r"(?:model\.)?mtp\.layers"  # multi-token prediction, beside the usual layers

TEXT, EXTRA = "text", "prediction"

_IN_LAYER = re.compile(r"(?P<stack>(?:[^.]+\.)*?[^.]+)\.(?P<layer>\d{1,6})\.(?P<rest>.+)")
_PREFIXES = (
    "", "model.", "language_model.", "language_model.model.", "model.language_model.",
    "model.text_model.", "text_model.model.", "transformer.",
)  # fmt: skip
# Parts of multimodal models whose attention has nothing to do with the text model's.
_FOREIGN = re.compile(
    r"(?:^|[._])(?:vision|visual|audio|image|img|vit|speech|whisper|projector|resampler|perceiver"
    r"|qformer|vqmodel|vq_model|depth_decoder|codec|aligner|mm_projector|vlm_adapter|embed_tokens_extend)"
    r"(?:[._]|$|\d)"
)  # fmt: skip
_ATTENTION = re.compile(
    r"(?:^|[._])(?:q|k|qkv|gqkv|query|key)_?(?:proj|norm|layernorm|key_value)?(?:[._]|$)|Wqkv|kv_a_proj"
)
# What PEFT, torch.compile and distributed training put before and into a module's name.
_PREFIX = re.compile(r"^(?:base_model\.model\.|base_model\.|module\.|_orig_mod\.)*")
_INSIDE = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?|original_module)(?=\.)")
_PARTS = re.compile(
    r"(?P<owner>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector|lora_embedding_[AB])"
    r"(?:\.default)?(?:\.(?P<parameter>weight|bias))?"
)


class Place(NamedTuple):
    """The place of a module or parameter in the text model, without the prefixes of its name."""

    stack: str
    """`TEXT`, `EXTRA`, or the name of a stack that the model type has beside others."""
    layer: int
    """The number of the layer in its name."""
    rest: str
    """The name below the layer."""


def in_layer(name: str) -> tuple[str, int, str] | None:
    """Stack, layer and the name below it, as they stand; None outside of numbered layers."""
    match = _IN_LAYER.fullmatch(name)
    return (match["stack"], int(match["layer"]), match["rest"]) if match else None


def place_of(name: str, stacks: str = "") -> Place | None:
    """Where a full name lies in the text model; None for all that is outside of its layers.

    Args:
        name: of a module or parameter, as a file or as a model of transformers has it.
        stacks: regex of the places of the layers where they are not the usual ones.
    """
    parts = in_layer(name)
    if parts is None:
        return None
    stack, layer, rest = parts
    # A backbone alone lacks the first "model."; some wrappers have one more.
    for spelling in (stack, stack.removeprefix("model."), f"model.{stack}"):
        if re.fullmatch(PREDICTION, spelling):
            return Place(EXTRA, layer, rest)
        if stacks and re.fullmatch(stacks, spelling):
            return Place(spelling.removeprefix("model."), layer, rest)
        if not stacks and re.fullmatch(TEXT_STACKS, spelling):
            return Place(TEXT, layer, rest)
    return None


def key_of(name: str, stacks: str = "") -> Place | str:
    """A key that is equal for all names of one module: its place; outside of layers its name.

    Args:
        name: of a module or parameter.
        stacks: as `place_of` takes them.
    """
    return place_of(name, stacks) or name.removeprefix("model.")


def in_adapter(name: str) -> tuple[str, str | None]:
    """The module that a tensor of a LoRA adapter belongs to, and which of its parts it is.

    Args:
        name: as PEFT stores it.

    Returns:
        The module, and "lora_A" or the like; for a copy of a parameter its own name and `None`.
    """
    plain = _INSIDE.sub("", _PREFIX.sub("", name, count=1))
    match = _PARTS.fullmatch(plain)
    return (match["owner"], match["part"]) if match else (plain, None)


def spellings(name: str) -> tuple[str, ...]:
    """The names that files and releases of transformers give to one module of the text model."""
    place, parts = place_of(name), in_layer(name)
    if place is None or parts is None or place.stack != TEXT:
        return (name,)
    below = f"{parts[0].rpartition('.')[2]}.{place.layer}.{place.rest}"
    return tuple(dict.fromkeys((name, *(prefix + below for prefix in _PREFIXES))))


def is_foreign(name: str) -> bool:
    """Whether a name outside of the text layers belongs to a tower, a projector or the like."""
    return bool(_FOREIGN.search(name))


def looks_like_attention(name: str) -> bool:
    """Whether a name says that it makes or normalises queries or keys."""
    return bool(_ATTENTION.search(name))
