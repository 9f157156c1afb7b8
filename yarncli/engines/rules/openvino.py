"""OpenVINO: optimum-intel traces the model of transformers, an older one for some model types."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from yarncli.engines.tables import Row, find_row
from yarncli.engines.types import Engine, Launch, Model, NotKnown, NotSupported, Reading

_NEWEST = "5.5"


def make_engine(backends: Mapping[str, Engine]) -> Engine:
    """The engine on top of the transformers that it traces.

    Args:
        backends: oldest release, such as "4.55" → the rules of transformers from there on.
    """
    return Engine(
        id="openvino",
        name="OpenVINO",
        versions="optimum-intel 2.2, with the newest transformers that it allows",
        read=lambda model: _read(model, backends),
        launch=launch,
        about=(
            "It computes what the transformers that it traces computes, with the newest release "
            "that the exporter allows for a model type; dynamic was not examined.",
        ),
    )


def _read(model: Model, backends: Mapping[str, Engine]) -> Reading:
    """What the traced model computes; it sets no limit on the length.

    Raises:
        LoaderError: transformers refuses the config.
        EngineCrash: the model fails while it is built.
        NotSupported: optimum-intel does not export the model type.
        NotKnown: dynamic, whose branch a trace cannot follow.

    Source: optimum/exporters/openvino/model_configs.py, the line that the table names;
        model_patcher.py:467-537 for longrope.
    """
    row = find_row("openvino", model)
    kind = str(model.model_type).replace("-", "_")
    if model.text_path and kind not in row.table["registered"]:
        raise NotSupported(f"{row.release} does not export {model.model_type}.")
    reading = _backend(row, backends).read(model)
    if any(used.parameters.rope_type == "dynamic" for used in reading.scopes.values()):
        raise NotKnown(f"Nobody examined what a trace by {row.release} makes of dynamic.")
    return Reading(reading.scopes, notes=reading.notes, faults=reading.faults)


def _backend(row: Row, backends: Mapping[str, Engine]) -> Engine:
    """The rules of the newest transformers that the exporter takes for a model type."""
    newest = _numbers(row.entry.get("transformers", _NEWEST))
    oldest = max((v for v in backends if _numbers(v) <= newest), key=_numbers)
    return backends[oldest]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def launch(parts: Launch) -> str:
    """The export; `openvino_genai.LLMPipeline` serves its folder."""
    words = ["optimum-cli", "export", "openvino", "--model", parts.model.source]
    return shlex.join([*words, "openvino-model"])
