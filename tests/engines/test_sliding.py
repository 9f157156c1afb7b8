"""`engines` says what each engine does with the window of a model whose every layer has one."""

from __future__ import annotations

from typing import Any

import pytest

from support.configs import LLAMA
from yarncli.engines.judgement import judge

MISTRAL: dict[str, Any] = {
    **LLAMA,
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
}


def notes(config: dict[str, Any], engine: str) -> str:
    (found,) = judge(config, engines=[engine]).verdicts
    return " ".join(note for note in found.notes if "window" in note)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("transformers-5", "every layer attends within the sliding window of 4,096"),
        ("transformers-4.50", "every layer attends within the sliding window of 4,096"),
        ("vllm", "every layer attends within the sliding window of 4,096"),
        ("sglang", "does not read the sliding window of 4,096"),
        ("llama.cpp", "does not read the sliding window of 4,096"),
        ("mlx-lm", "does not read the sliding window of 4,096"),
        ("tgi", "is not known"),
    ],
)
def test_each_engine_has_its_own_way(engine: str, said: str) -> None:
    assert said in notes(MISTRAL, engine)


@pytest.mark.parametrize("window", [None, 32768, 65536])
def test_a_window_that_bounds_nothing_is_not_spoken_of(window: int | None) -> None:
    for engine in ("transformers-5", "sglang", "tgi"):
        assert notes({**MISTRAL, "sliding_window": window}, engine) == ""


def test_models_with_other_layers_are_not_either() -> None:
    assert notes({"model_type": "gemma2", "sliding_window": 4096}, "vllm") == ""
