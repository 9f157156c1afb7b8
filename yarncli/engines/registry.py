"""The engines, in the order of the tables."""

from __future__ import annotations

from collections.abc import Mapping

from yarncli.engines.rules import (
    ctranslate2,
    exllamav3,
    llama_cpp,
    lmdeploy,
    mlx_lm,
    mlx_vlm,
    modular_max,
    ollama,
    onnxruntime_genai,
    openvino,
    sglang,
    tensorrt_llm,
    tgi,
    transformers_4,
    transformers_5,
    vllm,
)
from yarncli.engines.types import Engine
from yarncli.options import choose

# How to add an engine (CONTRIBUTING.md, “An engine”, has the details):
#
# 1. Read its model code at one named version: frequencies, attention factor and served length for
#    each RoPE type.
# 2. Write `engines/rules/NAME.py` with `read(model)`, `launch(parts)` and `ENGINE = Engine(…)`.
# 3. Set `override` and `repair` of the `Engine` if its command line can correct a misreading.
# 4. Import it above, and add it to this table. The tables of the docs have the same order.
# 5. Add it to `IDS` of `tests/engines/test_command.py`, and compare it with values of the engine
#    itself in `tests/engines/test_servers.py`. Then run `make docs`.
ENGINES: Mapping[str, Engine] = {
    engine.id: engine
    for engine in (
        transformers_5.ENGINE,
        *transformers_4.ENGINES,
        vllm.ENGINE,
        sglang.ENGINE,
        llama_cpp.ENGINE,
        mlx_lm.ENGINE,
        mlx_vlm.ENGINE,
        tgi.make_engine((transformers_4.ENGINES[1], transformers_4.ENGINES[0])),
        tensorrt_llm.ENGINE,
        exllamav3.ENGINE,
        ollama.ENGINE,
        onnxruntime_genai.ENGINE,
        *lmdeploy.ENGINES,
        ctranslate2.ENGINE,
        modular_max.ENGINE,
        openvino.make_engine(
            {
                "5.0": transformers_5.ENGINE,
                "4.56": transformers_4.ENGINES[0],
                "4.51": transformers_4.ENGINES[1],
            }
        ),
    )
}


# Programs that load models with the code of an engine above, and the id of that engine.
ALIASES = {"Aphrodite": "vllm", "KTransformers": "sglang"}
# Other names of the engines themselves; the newest release is meant.
_SHORT = {"transformers": "transformers-5", "mlx": "mlx-lm", "trtllm": "tensorrt-llm"}


def get_engine(engine_id: str) -> Engine:
    """The engine called `engine_id`, or the one that a program of that name is made of.

    Capitals and punctuation do not count: `vLLM` and `llamacpp` are found.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    found = choose(engine_id, (*ENGINES, *ALIASES), "engine", aliases=_SHORT)
    return ENGINES[ALIASES.get(found, found)]
