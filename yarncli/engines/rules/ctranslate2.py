"""CTranslate2: its converter writes θ and the scaling of what transformers 5 loads."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace

from yarncli.engines.loaders import version_5
from yarncli.engines.tables import Row, find_row
from yarncli.engines.types import (
    Engine,
    EngineCrash,
    Launch,
    LoaderError,
    Model,
    Reading,
    Used,
)
from yarncli.rope.parameters import RopeParameters


def read(model: Model) -> Reading:
    """What a model converted by CTranslate2 4.8 computes; it sets no limit on the length.

    Raises:
        LoaderError: transformers 5 or the converter refuses the config.
        EngineCrash: the converter fails on it.
        NotSupported: the converter has no loader for the model.
        NotKnown: it was not examined.

    Source: ctranslate2/converters/transformers.py:342-364 and the loader that the table names;
        src/layers/attention_layer.cc (OpenNMT/CTranslate2@132258e), `RotaryEmbeddings`.
    """
    row = find_row("ctranslate2", model)
    faults: list[str] = []
    scopes = {name: _used(row, p, name, faults) for name, p in version_5(model).items()}
    return Reading(scopes, faults=tuple(faults))


def _used(row: Row, p: RopeParameters, scope: str, faults: list[str]) -> Used:
    probe = f"{p.rope_type} both" if p.rope_type != "longrope" else "longrope type"
    outcome = row.outcome(probe, scope)
    if "Error" in outcome:
        raise LoaderError(f"{p.rope_type}: {outcome}.")
    if "theta=" in outcome:
        theta = float(outcome.partition("theta=")[2].split()[0])
        return Used(replace(p, rope_type="default", rope_theta=theta))
    if outcome.startswith("plain"):
        return Used(replace(p, rope_type="default"))
    if p.rope_type == "longrope":
        faults.append("once a text was long, it keeps the long factors for short ones")
        return Used(p, _scale(p))
    return Used(p)


def _scale(p: RopeParameters) -> float:
    """From the two lengths, whose ratio is one of integers and loses its fraction."""
    ratio = p.max_position_embeddings // p.original_length
    if ratio < 1:
        raise EngineCrash("The original length is above max_position_embeddings.")
    return math.sqrt(1 + math.log(ratio) / math.log(p.original_length)) if ratio > 1 else 1.0


def launch(parts: Launch) -> str:
    """The converter; a program loads what it writes with `ctranslate2.Generator`."""
    words = ["ct2-transformers-converter", "--model", parts.model.source]
    return shlex.join([*words, "--output_dir", "ct2-model"])


ENGINE = Engine(
    id="ctranslate2",
    name="CTranslate2",
    versions="4.8, with transformers 5",
    basis="run",
    read=read,
    launch=launch,
    about=(
        "yarn and dynamic are refused: NotImplementedError.",
        "Loaders without RoPE scaling (Gemma, Phi, Falcon, GPT-NeoX) pass over it.",
    ),
)
