"""Text parts inside the multimodal model that an engine knows them by."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

# Text model type → (model type, architecture) of wrappers whose config class names no text class,
# and of published checkpoints whose class is spelled otherwise than in transformers.
_MORE = {
    "ministral3": [("mistral3", "Mistral3ForConditionalGeneration")],
    "phimoe": [("", "PhiMoEForCausalLM")],
    "kimi_k2": [("", "DeepseekV3ForCausalLM")],
}


def class_for(kind: str, usual: str, known: Collection[str]) -> tuple[str, str]:
    """The wrapper's model type, empty without one, and the architecture that an engine has.

    Args:
        kind: the text model type.
        usual: the architecture of the type alone, which is given back where the engine has none.
        known: the architectures of the engine.
    """
    for wrapper, architecture in [("", usual), *_MORE.get(kind, []), *_wrappers().get(kind, [])]:
        if architecture in known:
            return wrapper, architecture
    return "", usual


def wrappers_of(kind: str) -> list[str]:
    """The model types that a text part of type `kind` is found in."""
    return [wrapper for wrapper, _ in [*_MORE.get(kind, []), *_wrappers().get(kind, [])] if wrapper]


def wrapped(kind: str, wrapper: str, architecture: str, config: dict[str, Any]) -> dict[str, Any]:
    """A config as it stands in a file: with `config` as the text part where there is a wrapper."""
    inner = {**config, "model_type": kind}
    if not wrapper:
        return {**inner, "architectures": [architecture]}
    return {"model_type": wrapper, "architectures": [architecture], "text_config": inner}


@functools.cache
def _wrappers() -> dict[str, list[tuple[str, str]]]:
    """Text model type → the wrappers of transformers, with their architectures."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto as auto

    found: dict[str, list[tuple[str, str]]] = {}
    names = {**auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
             **auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}  # fmt: skip
    for wrapper, architecture in names.items():
        try:
            text = CONFIG_MAPPING[wrapper].sub_configs.get("text_config")
        except (AttributeError, ImportError, KeyError):
            continue
        kind = getattr(text, "model_type", "")
        if kind and kind != wrapper:
            found.setdefault(kind, []).append((wrapper, str(architecture)))
    return found
