"""The engines, in the order of the tables."""

from __future__ import annotations

from collections.abc import Mapping

from yarncli.engines.rules import (
    exllamav3,
    llama_cpp,
    mlx_lm,
    ollama,
    sglang,
    tensorrt_llm,
    tgi,
    transformers_4,
    transformers_5,
    vllm,
)
from yarncli.engines.verdict import Engine
from yarncli.errors import UsageError

ENGINES: Mapping[str, Engine] = {
    engine.id: engine
    for engine in (
        transformers_5.ENGINE,
        *transformers_4.ENGINES,
        *vllm.ENGINES,
        sglang.ENGINE,
        llama_cpp.ENGINE,
        mlx_lm.ENGINE,
        tgi.ENGINE,
        tensorrt_llm.ENGINE,
        exllamav3.ENGINE,
        ollama.ENGINE,
    )
}


def get_engine(engine_id: str) -> Engine:
    """The engine called `engine_id`.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    if engine_id not in ENGINES:
        raise UsageError(f"There is no engine {engine_id!r}. Known: {', '.join(ENGINES)}.")
    return ENGINES[engine_id]
