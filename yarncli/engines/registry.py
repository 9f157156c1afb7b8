"""The engines, in the order of the tables, and the questions the rest of the tool asks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from yarncli.engines.intended import Intended
from yarncli.engines.launching import with_launch
from yarncli.engines.loaders import read_model
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
from yarncli.engines.verdict import Engine, EngineView, view
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


def judge(
    config: Mapping[str, Any],
    intended: Intended | None = None,
    *,
    engines: Iterable[str] = (),
    source: str = "SOURCE",
    assume_like: str | None = None,
    launch: bool = True,
) -> list[EngineView]:
    """What engines will make of a config, in the order of the tables.

    Args:
        config: the JSON object of `config.json`.
        intended: what is meant; by default what transformers 5 reads.
        engines: ids; all where empty.
        source: what to call the checkpoint in launch lines.
        assume_like: treat an unknown model type as this one.
        launch: whether to work out launch lines.

    Raises:
        UsageError: an unknown engine id.
        ConfigError: the sizes of the model cannot be read.
        UnsupportedArchitectureError: no RoPE, or a model type that is not known.
    """
    chosen = [get_engine(name) for name in dict.fromkeys(engines)] or list(ENGINES.values())
    length = intended.length if intended else None
    model = read_model(config, source=source, length=length, assume_like=assume_like)
    meant = intended or Intended.by_config(model)
    found = [view(engine, model, meant.scopes) for engine in chosen]
    return [with_launch(item, model, meant.scopes) for item in found] if launch else found


def misreadings(
    config: Mapping[str, Any],
    engine_id: str,
    intended: Intended | None = None,
    *,
    assume_like: str | None = None,
) -> list[str]:
    """Why one engine will not do what is meant, one sentence each; empty where it will.

    Args:
        config: the JSON object of `config.json`.
        engine_id: the engine.
        intended: what is meant; by default what transformers 5 reads.
        assume_like: treat an unknown model type as this one.

    Raises:
        UsageError: an unknown engine id.
        ConfigError: the sizes of the model cannot be read.
        UnsupportedArchitectureError: no RoPE, or a model type that is not known.
    """
    (found,) = judge(config, intended, engines=[engine_id], assume_like=assume_like, launch=False)
    if found.status == "exact":
        return []
    return list(dict.fromkeys([found.summary(), *found.notes]))
