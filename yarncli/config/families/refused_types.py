"""Model types that have no row: those that cannot be extended, and those without RoPE."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

NO_ROPE_FILE = Path(__file__).with_name("no_rope_types.json")

_TABLE = "it rotates by a fixed table that no config field changes"
_PARTS = "it is made of several models with a RoPE each"
_SPEECH = "it decodes audio frames, not text"
_DRAFT = "it drafts for another model and follows that one's positions"

_AUDIO_DECODERS = """
    csm_depth_decoder_model dia dia_decoder dia_encoder gradium_phonon_tts moonshine
    moonshine_streaming pocket_tts qwen2_5_omni_talker qwen3_omni_moe_talker_code_predictor
    qwen3_omni_moe_talker_text
"""
_SEVERAL_MODELS = """
    blt blt_global_transformer blt_local_decoder blt_local_encoder blt_patcher t5gemma
    t5_gemma_module t5gemma2 t5gemma2_decoder t5gemma2_encoder t5gemma2_text pi0
"""

UNSUPPORTED: dict[str, str] = {
    **dict.fromkeys(("gptj", "codegen", "esm", "roformer"), _TABLE),
    **dict.fromkeys(_SEVERAL_MODELS.split(), _PARTS),
    **dict.fromkeys(_AUDIO_DECODERS.split(), _SPEECH),
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), _DRAFT),
    "recurrent_gemma": "its attention sees a window only and accepts plain RoPE alone",
}


# What a model without RoPE in a text part is, and why RoPE does not apply to it.
KINDS: dict[str, str] = {
    "recurrent": "a state-space or recurrent language model without attention: nothing rotates",
    "alibi": "a language model with ALiBi (a bias that grows with the distance) in place of RoPE",
    "no-positions": "a hybrid language model whose attention layers get no positions at all",
    "relative": "a language model with a learned bias for each distance in the place of RoPE",
    "learned": (
        "a language model with one vector for each position in the place of RoPE; it has no more "
        "positions than vectors"
    ),
    "encoder": "a text encoder whose positions are not rotary, and no causal language model",
    "seq2seq": "an encoder-decoder whose positions are not rotary, and no causal language model",
    "multimodal": "a multimodal model whose text part has no RoPE",
    "vision": "a vision model, alone or with a text encoder, and no causal language model",
    "audio": "an audio or speech model, and no causal language model",
    "series": "a model of time series, and no language model",
    "part": "a part of another model, or a model without a causal text part",
}


@cache
def no_rope_types() -> dict[str, str]:
    """The rest of transformers' model types: no RoPE in the text part, or no text part at all.

    Each with its kind, a key of `KINDS`.

    `scripts/no_rope_types.py` writes the file. It is read only for a type that has no row.
    """
    found: dict[str, str] = _document()["model_types"]
    return found


@cache
def tied_by_default() -> frozenset[str]:
    """The known types whose output head is the word embedding where a file does not say so."""
    return frozenset(_document()["tied_by_default"])


def _document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(NO_ROPE_FILE.read_text(encoding="utf-8"))
    return found
