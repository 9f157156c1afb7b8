"""Windows of published models, for configs that do not show the trained window.

A config does not show that `max_position_embeddings` was raised by hand: it looks like the config
of a longer model. But if model type, sizes and θ are those of a published model, its window is
known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yarncli.config.families.family import Family

Sizes = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Models that were published with plain RoPE: one model type, one θ."""

    name: str
    """What people call them."""
    rope_theta: float
    """θ; a model that was trained further for longer texts has another."""
    sizes: frozenset[Sizes]
    """`hidden_size`, `num_hidden_layers` and `intermediate_size` of each."""
    windows: tuple[int, ...]
    """`max_position_embeddings` as published, in ascending order, tokens."""
    trained: Mapping[int, int] = field(default_factory=dict)
    """Of those, the ones that were trained with a shorter window: published → trained.

    Where that holds for the whole model type, `Family.known_originals` says it.
    """


def _models(
    name: str, rope_theta: float, windows: tuple[int, ...], *sizes: Sizes, **more: Any
) -> Published:
    return Published(
        name=name, rope_theta=rope_theta, windows=windows, sizes=frozenset(sizes), **more
    )


# Read from the published config.json of each name, unless another source is given.
PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    # transformers' Gemma2Config has the 2B model's sizes.
    "gemma2": (_models("Gemma 2", 1e4, (8192,), (2304, 26, 9216)),),
    "llama": (
        # transformers' LlamaConfig: "Llama 1 supports up to 2048 tokens, Llama 2 up to 4096,
        # CodeLlama up to 16384".
        _models(
            "Llama 1 and 2", 1e4, (2048, 4096), (4096, 32, 11008), (5120, 40, 13824),
            (6656, 60, 17920), (8192, 80, 22016), (8192, 80, 28672),
        ),
        _models(
            "CodeLlama", 1e6, (16384,), (4096, 32, 11008), (5120, 40, 13824), (8192, 48, 22016)
        ),
        # Llama 3.1 and 3.2 reach 131,072 by their llama3 scaling only, over 8,192.
        _models(
            "Llama 3", 5e5, (8192,), (4096, 32, 14336), (8192, 80, 28672), (16384, 126, 53248),
            (2048, 16, 8192), (3072, 28, 8192),
        ),
    ),
    "mistral": (
        # Trained with 8,192 (arXiv:2310.06825, table 1), which the YaRN authors extended by 8 to
        # 65,536 and by 16 to 131,072 (jquesnelle/yarn, train.sh and finetune.py).
        _models("Mistral-7B-v0.1", 1e4, (32768,), (4096, 32, 14336), trained={32768: 8192}),
        _models("Mistral-7B-v0.2", 1e6, (32768,), (4096, 32, 14336)),
        _models("Mistral-Nemo", 1e6, (131072, 1024000), (5120, 40, 14336)),
    ),
    "mixtral": (
        _models("Mixtral-8x7B", 1e6, (32768,), (4096, 32, 14336)),
        _models("Mixtral-8x22B", 1e6, (65536,), (6144, 56, 16384)),
    ),
    "phi3": (_models("Phi-3-mini-4k", 1e4, (4096,), (3072, 32, 8192)),),
    "qwen2": (
        _models(
            "Qwen2.5-3B and Qwen1.5", 1e6, (32768,), (2048, 36, 11008), (1024, 24, 2816),
            (8192, 80, 24576),
        ),
        # The base models have 131,072, the instruct models 32,768.
        _models(
            "Qwen2 and 2.5", 1e6, (32768, 131072), (896, 24, 4864), (1536, 28, 8960),
            (3584, 28, 18944), (5120, 48, 13824), (5120, 64, 27648), (8192, 80, 29568),
        ),
    ),
    "qwen3": (
        # The models of July 2025, which read 262,144, have another θ.
        _models(
            "Qwen3", 1e6, (32768, 40960), (1024, 28, 3072), (2048, 28, 6144), (2560, 36, 9728),
            (4096, 36, 12288), (5120, 40, 17408), (5120, 64, 25600),
        ),
    ),
    "qwen3_moe": (_models("Qwen3", 1e6, (32768, 40960), (2048, 48, 6144), (4096, 94, 12288)),),
}  # fmt: skip


def find_published(
    family: Family, rope_theta: float, values: Mapping[str, Any]
) -> Published | None:
    """The published models with the type, θ and sizes of a text part.

    Args:
        family: what is known about its model type.
        rope_theta: the base of its frequencies.
        values: the text part as the file has it.
    """
    keys = ("hidden_size", "num_hidden_layers", "intermediate_size")
    sizes = tuple(values.get(family.names.get(key, key)) for key in keys)
    for models in PUBLISHED.get(family.model_type, ()):
        if models.rope_theta == rope_theta and sizes in models.sizes:
            return models
    return None


def trained_window(
    family: Family, rope_theta: float, values: Mapping[str, Any], maximum: int
) -> int | None:
    """The window that a published model with this `max_position_embeddings` was trained with.

    Args:
        family: what is known about its model type.
        rope_theta: the base of its frequencies.
        values: the text part as the file has it.
        maximum: `max_position_embeddings`, tokens.

    Returns:
        Tokens; `None` where the maximum is the trained window, as far as anyone knows.
    """
    models = find_published(family, rope_theta, values)
    known = family.known_originals.get(maximum)
    return known or (models.trained.get(maximum) if models else None)
