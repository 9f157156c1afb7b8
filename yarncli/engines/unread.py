"""Verdicts on a model type without a row: only whether an engine has code for it is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from yarncli.engines.tables import brings_config, class_in, has_type, load_table
from yarncli.engines.types import Engine
from yarncli.engines.verdict import EngineView, unknown_view


def unread_view(engine: Engine, config: Mapping[str, Any], reason: str) -> EngineView:
    """The verdict on a model type that nobody examined: unknown, or not supported.

    Args:
        engine: the engine.
        config: the JSON object of `config.json`.
        reason: why nothing is known.
    """
    if not _lacks(engine.id, config):
        return unknown_view(engine, reason)
    table = load_table(engine.id)
    note = f"{engine.name} {table['version']} has no code for {config.get('model_type')}."
    return EngineView(engine=engine, status="unsupported", length=0, notes=(note,))


def _lacks(engine: str, config: Mapping[str, Any]) -> bool:
    """Whether the engine's own list of models, which its table holds, leaves this one out.

    An engine that would run the checkpoint's own code has every type; without a list it is unknown.
    """
    table, kind = load_table(engine), str(config.get("model_type"))
    auto = ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM")  # those that TGI looks for
    has_code = brings_config(config) and any(class_in(config, key) for key in auto)
    if engine.startswith("transformers-"):
        return not brings_config(config) and not has_type(engine, kind)
    if "through_transformers" in table or (table.get("runs_own_code") and has_code):
        return False
    if config.get("model_file"):  # mlx-lm and mlx-vlm run that
        return False
    if "configs" in table:
        name = class_in(config, "AutoConfig")
        return bool(name) and name not in table["configs"]
    if "registered" in table:
        keys = ("registered", "causal", "unsure")
        has = {k.replace("-", "_") for key in keys for k in table.get(key, ())}
        return kind.replace("-", "_") not in has
    if "architectures" in table:
        named = {class_in(config, "AutoModelForCausalLM"), *_architectures(config)} - {""}
        return bool(named) and not named & {*table["architectures"]}
    return table.get("others") == "unsupported" and kind not in table["model_types"]


def _architectures(config: Mapping[str, Any]) -> Iterator[str]:
    named = config.get("architectures")
    yield from (str(name) for name in named or ()) if isinstance(named, list) else ()
