"""ONNX Runtime GenAI: its model builder writes cos/sin tables from what transformers 5 loads."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.loaders import version_5
from yarncli.engines.shared import ORIGINAL, longrope_scale_by_lengths, refuse_entries
from yarncli.engines.tables import Row, find_row
from yarncli.engines.types import (
    Engine,
    EngineCrash,
    Launch,
    LoaderError,
    Model,
    NotKnown,
    Reading,
    Used,
)
from yarncli.rope.formulas import get_mscale
from yarncli.rope.parameters import RopeParameters

_TABLE = "onnxruntime-genai"
_BETAS = ("beta_fast", "beta_slow")
_MSCALES = ("mscale", "mscale_all_dim")


def read(model: Model) -> Reading:
    """What the graph that its builder 0.18 makes computes; its tables end at the window.

    Raises:
        LoaderError: transformers 5 or the builder refuses the config.
        EngineCrash: the builder fails on it.
        NotSupported: there is no builder for the model.
        NotKnown: it was not examined.

    Source: onnxruntime_genai/models/builders/base.py:52-57, 312-344, 665-701, 3312-3396.
    """
    row = find_row(_TABLE, model)
    refuse_entries(model)
    parameters = version_5(model)
    if row.entry["rope"] == "refuses" and not row.outcome("default both").startswith("plain"):
        error = row.outcome("default both")
        raise EngineCrash(
            f"{row.release} cannot build {row.model_type} with transformers 5.23: {error}."
        )
    (p,) = parameters.values()
    used = _used(model, row, p)
    faults: list[str] = []
    if p.rope_type != "default" and model.rope.mrope:
        faults.append(f"with {p.rope_type} it drops the sections of multimodal RoPE")
    served = int(model.text.get("seq_length") or model.rope.max_position_embeddings)
    return Reading({"model": used}, served_length=served, faults=tuple(faults))


def _used(model: Model, row: Row, p: RopeParameters) -> Used:
    block = model.winning_block("model")
    if row.outcome("linear both") == "plain":
        return _by_own_class(model, row, p)
    if row.model_type == "gpt_oss" and p.rope_type in ("default", "linear"):
        raise EngineCrash(f"gpt-oss with {p.rope_type}: KeyError 'rescale_inv_freq'.")
    probe = {"linear": "linear both", "yarn": "yarn betas"}.get(p.rope_type, "default both")
    if "Error" in row.outcome(probe) and p.rope_type != "default":
        raise LoaderError(f"{row.model_type} with {p.rope_type}: {row.outcome(probe)}.")
    match p.rope_type:
        case "default" | "linear":
            return Used(p)
        case "yarn":
            return _yarn(model, p, block)
        case "longrope" if row.outcome("longrope type").startswith("longrope"):
            return _longrope(p, block)
    raise LoaderError(f"{p.rope_type}: NotImplementedError in the builder.")


def _by_own_class(model: Model, row: Row, p: RopeParameters) -> Used:
    """Builders whose own `make_rope_init` looks for one type and passes over all others.

    Source: builders/llama.py:15-27, builders/hunyuan.py:26.
    """
    if p.rope_type == "dynamic" and row.outcome("dynamic both") != "plain":
        if "alpha" in p.extra:
            raise NotKnown("Nobody examined what its builder makes of dynamic with alpha.")
        raise LoaderError("dynamic without alpha: KeyError in the builder.")
    if p.rope_type == "llama3" and row.word("llama3") == "reads":
        return Used(replace(p, original_max_position_embeddings=_original(model, p)))
    return Used(replace(p, rope_type="default"))


def _original(model: Model, p: RopeParameters) -> int:
    """The top-level original length, else that of the dict, else the window."""
    found = model.text.get(ORIGINAL) or p.original_max_position_embeddings
    return int(found or model.text.get("seq_length") or p.max_position_embeddings)


def _yarn(model: Model, p: RopeParameters, block: Mapping[str, Any]) -> Used:
    """Never truncated; betas without a default; a pair of mscales, or mscale alone.

    Source: builders/base.py:670-686, 3312-3333, 3354-3376.
    """
    if p.factor is None or any(block.get(k, 0) is None for k in (*_BETAS, *_MSCALES)):
        raise EngineCrash("yarn with a null factor, beta or mscale: TypeError in the builder.")
    if not (p.beta_fast and p.beta_slow):
        raise EngineCrash(
            "yarn without beta_fast and beta_slow: ZeroDivisionError. State both, and truncate "
            "false, which is what it computes."
        )
    original, half = _original(model, p), p.head_dim / 2
    if p.rotary_dim != p.head_dim:
        raise EngineCrash("yarn with partial rotary embeddings: RuntimeError in the builder.")
    low, high = (
        half * math.log(original / (beta * 2 * math.pi)) / math.log(p.rope_theta)
        for beta in (p.beta_fast, p.beta_slow)
    )
    if not 0 < low < high < half - 1:
        raise EngineCrash("The ends of yarn's ramp lie outside the pairs: AssertionError.")
    read_as = replace(p, original_max_position_embeddings=original, truncate=False)
    return Used(read_as, _mscale(p))


def _mscale(p: RopeParameters) -> float:
    factor, top, whole = p.resolved_factor(), p.mscale or 0.0, p.mscale_all_dim or 0.0
    if top > 0 and whole > 0:
        return get_mscale(factor, top) / get_mscale(factor, whole)
    return top if top > 0 else get_mscale(factor)


def _longrope(p: RopeParameters, block: Mapping[str, Any]) -> Used:
    """Source: builders/phi.py:86-104: `type` by index; a scale from the two lengths."""
    if "type" not in block:
        raise LoaderError("longrope without the key type: KeyError in the builder. Add it.")
    stated = p.extra.get("long_mscale"), p.extra.get("short_mscale")
    if any(stated) and stated[0] != stated[1]:
        raise NotKnown("Different short_mscale and long_mscale were not examined.")
    return Used(p, float(stated[0] or longrope_scale_by_lengths(p)))


def launch(parts: Launch) -> str:
    """The model builder; what it writes is served by any program on ONNX Runtime GenAI.

    Source: onnxruntime_genai/models/builder.py:841-885; -m takes a Hub id, -i a folder.
    """
    source = parts.model.source
    words = ["python", "-m", "onnxruntime_genai.models.builder", "-i", source]
    return shlex.join([*words, "-o", "onnx-model", "-p", "int4", "-e", "cpu"])


ENGINE = Engine(
    id=_TABLE,
    name="ONNX Runtime GenAI",
    versions="0.18, with transformers 5",
    basis="run",
    read=read,
    launch=launch,
    about=(
        "Its builder for Llama, SmolLM 3 and Nemotron reads llama3 only, and silently ignores "
        "yarn, linear, dynamic and longrope.",
        "Other builders: linear is right; yarn needs `beta_fast` and `beta_slow`, never truncates "
        "the ramp and does not read `attention_factor`; llama3 and dynamic are refused.",
        "longrope only for Phi-3, with `type` beside `rope_type`.",
    ),
)
