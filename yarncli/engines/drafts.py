"""Draft models of speculative decoding: they must be extended together with their target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yarncli.engines.types import Model
from yarncli.planning.rope_plan import RopePlan

# Fields by which a checkpoint says that it has layers for multi-token prediction.
_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers")
# Fields that only the config of a draft head has.
_HEAD_KEYS = ("eagle_config", "speculators_config", "draft_vocab_size", "dflash_config")
_HEAD_CLASS = re.compile(r"eagle|mtp|medusa|dflash|dspark|nextn", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What drafts tokens for a target model."""

    is_head: bool
    """Whether the checkpoint is a draft head itself; else it has one within."""
    what: str
    """What shows it: a class or a field of the config."""
    notes: tuple[str, ...]
    """What to pass to the draft and to its target, per engine."""

    def to_json(self) -> dict[str, Any]:
        """The entry of `engines --json`."""
        return {"is_head": self.is_head, "what": self.what, "notes": list(self.notes)}


def find_draft(model: Model, plan: RopePlan) -> Draft | None:
    """What drafts tokens in a checkpoint; `None` where nothing does.

    vLLM 0.33 gives `--hf-overrides` to the target only (`config/speculative.py:1198`), SGLang
    0.5.23 its overrides and `--context-length` to both (`configs/model_config.py:962`).

    Args:
        model: the config.
        plan: the extension that both are to have.
    """
    window = f"{model.rope.max_position_embeddings:,}"
    what = _head(model)
    if what:
        return Draft(
            is_head=True,
            what=what,
            notes=(
                f"This is a draft head ({what}): it runs beside its target, and both need the same "
                f"extension. The target's line: yarncli engines TARGET --length {plan.length}",
                "vLLM does not pass --hf-overrides on to a draft: convert this head, and name the "
                f"result as model in --speculative-config, or it drafts with {window} tokens only.",
                "SGLang passes --json-model-override-args to the target and to the draft: one line "
                "is right for both where θ and original length are the same, else convert this "
                "head, and start both with --context-length only.",
            ),
        )
    what = _layers(model)
    if what is None:
        return None
    return Draft(
        is_head=False,
        what=what,
        notes=(
            f"The checkpoint has its own draft layers ({what}).",
            "vLLM does not pass --hf-overrides on to them: with method mtp in --speculative-config "
            f"they keep the unscaled {window} tokens. Serve without that, or convert the "
            "checkpoint, whose config both then read.",
            "SGLang passes its overrides to the target and to the draft layers: the line is for "
            "both.",
        ),
    )


def _head(model: Model) -> str | None:
    named = model.config.get("architectures")
    for name in named if isinstance(named, list) else ():
        if _HEAD_CLASS.search(str(name)):
            return str(name)
    return next((key for key in _HEAD_KEYS if _given(model.config, key)), None)


def _layers(model: Model) -> str | None:
    for part in (model.text, model.config):
        for key in _LAYERS:
            if type(part.get(key)) is int and part[key] > 0:
                return f"{key} {part[key]}"
    return None


def _given(part: Mapping[str, Any], key: str) -> bool:
    return part.get(key) is not None
