"""The classes that may load a model type: its own, and those of multimodal models around it."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from yarncli.config.families.table import FAMILIES

# Architectures as published configs name them, where transformers' classes are called otherwise.
_PUBLISHED = {
    "internlm3": "InternLM3ForCausalLM", "iquestcoder": "IQuestCoderForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM", "mimo_v2_flash": "MiMoV2FlashForCausalLM",
    "muse_glimmer_assistant": "MuseGlimmerAssistantModel", "phimoe": "PhiMoEForCausalLM",
    "step3p5": "Step3p5ForCausalLM",
}  # fmt: skip

# Wrappers whose text part may be of this type although it is not the one they assume.
_AROUND = {
    "deepseek_v3": ("kimi_k25",), "ministral3": ("mistral3",), "mistral4": ("mistral3",),
    "gemma4_text": ("gemma4_unified",),
}  # fmt: skip
_CLASSES = {"kimi_k25": "KimiK25ForConditionalGeneration"}

_MAPPINGS = "CAUSAL_LM IMAGE_TEXT_TO_TEXT MULTIMODAL_LM SPEECH_SEQ_2_SEQ SEQ_TO_SEQ_CAUSAL_LM"


@dataclass(frozen=True)
class Way:
    """One class that loads a model type."""

    architecture: str
    """What `architectures` names."""
    wrapper: str | None = None
    """The model type of the multimodal config; `None` where the model stands alone."""
    flat: bool = False
    """Whether that config has the fields of the text part at top level, as old files do."""

    def config(self, kind: str, values: dict[str, Any], *, full: bool = True) -> dict[str, Any]:
        """The whole config of a text model.

        Args:
            kind: its model type.
            values: its keys.
            full: whether to give a multimodal config all that is beside the text part.
        """
        text = {**values, "model_type": kind}
        if self.wrapper is None:
            return {**text, "architectures": [self.architecture]}
        beside = _beside(self.wrapper) if full else {}
        top = {"model_type": self.wrapper, "architectures": [self.architecture]}
        if self.flat:
            return {**beside, **values, **top}
        return {**beside, **top, FAMILIES[self.wrapper].text_key: text}


def ways(kind: str, own: str, known: Collection[str], flat: Collection[str] = ()) -> list[Way]:
    """The classes of an engine that load a model type; the first is the plainest.

    Args:
        kind: the model type.
        own: the architecture of its own that the caller knows.
        known: the engine's architectures.
        flat: wrappers whose text part this engine wants at top level.
    """
    found = [Way(name) for name in (_PUBLISHED.get(kind), own, *_names(kind)) if name]
    around = [k for k, f in FAMILIES.items() if f.is_wrapper and f.text_type == kind]
    for wrapper in (*_AROUND.get(kind, ()), *around):
        for name in (_CLASSES.get(wrapper), *_names(wrapper)):
            found += [Way(name, wrapper, flat=wrapper in flat)] if name else []
    return [way for way in dict.fromkeys(found) if way.architecture in known]


def _names(kind: str) -> Iterator[str]:
    from transformers.models.auto import modeling_auto

    for task in (*(f"MODEL_FOR_{name}" for name in _MAPPINGS.split()), "MODEL"):
        named = getattr(modeling_auto, f"{task}_MAPPING_NAMES", {}).get(kind, ())
        yield from (named,) if isinstance(named, str) else named


@functools.cache
def _beside(wrapper: str) -> dict[str, Any]:
    """All but the text part of a multimodal config, as transformers fills it."""
    from transformers import CONFIG_MAPPING

    try:
        values: dict[str, Any] = CONFIG_MAPPING[wrapper]().to_dict()
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    unwanted = {FAMILIES[wrapper].text_key, "architectures", "model_type"}
    return {k: v for k, v in values.items() if k not in unwanted}
