"""What engines do with the sliding window of a model whose every layer has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from yarncli.config.reading import RopeConfig
from yarncli.engines.verdict import EngineView
from yarncli.planning.sliding import WIDENED, can_widen

_LLAMA_LIKE = frozenset({"mistral", "mixtral", "phi3"})

# Engine → the model types that it keeps within the window. The transformers releases were run, with
# eager and sdpa attention. vLLM 0.33: config/cache.py's sliding_window, which engine/arg_utils.py
# sets where no layer types are given and layers/attention/attention.py takes. LMDeploy:
# pytorch/models/mistral.py, mixtral.py, phi3.py.
_KEEP: Mapping[str, frozenset[str]] = {
    "transformers-5": WIDENED,
    "transformers-4.57": WIDENED - {"ministral3"},
    "transformers-4.55": WIDENED - {"ministral3"},
    "transformers-4.50": WIDENED - {"ministral3", "qwen3_moe"},
    "vllm": _LLAMA_LIKE,
    "lmdeploy-pytorch": _LLAMA_LIKE,
}
# Engine → the model types whose code never asks for the window. SGLang 0.5.23: models/llama.py
# (Mistral and Phi-3 too), mixtral.py, starcoder2.py. llama.cpp: models/llama.cpp, starcoder2.cpp;
# phi3.cpp switches it off with a warning. mlx-lm: models/llama.py (Mistral too) without
# layer_types, mixtral.py, phi3.py, starcoder2.py. exllamav3 1.6.5: architecture/mistral.py,
# mixtral.py, phi3.py.
_IGNORE: Mapping[str, frozenset[str]] = {
    "sglang": _LLAMA_LIKE | {"starcoder2"},
    "llama.cpp": _LLAMA_LIKE | {"starcoder2"},
    "mlx-lm": _LLAMA_LIKE | {"starcoder2"},
    "exllamav3": _LLAMA_LIKE,
}


def with_window(found: EngineView, rope: RopeConfig) -> EngineView:
    """The view with a note on the window, where every layer of the model attends within one.

    Args:
        found: the view on an engine.
        rope: the config that it reads.
    """
    window = rope.sliding_window
    if window is None or not can_widen(rope) or found.status in ("unsupported", "unknown"):
        return found
    if window >= rope.max_position_embeddings:
        return found
    kind = rope.model_type
    if kind in _KEEP.get(found.engine.id, ()):
        note = f"every layer attends within the sliding window of {window:,} tokens"
    elif kind in _IGNORE.get(found.engine.id, ()):
        note = f"it does not read the sliding window of {window:,}: layers attend to the whole text"
    else:
        note = f"what it does with the sliding window of {window:,} is not known"
    return replace(found, notes=(*found.notes, note))
