"""TensorRT-LLM: `rope_scaling`, with θ also from `rope_parameters`."""

from __future__ import annotations

import shlex
from dataclasses import replace

from yarncli.engines.loaders import is_v5_only, legacy
from yarncli.engines.shared import (
    ORIGINAL,
    longrope_scale_by_lengths,
    mscale_ratio,
    second_hand_softmax,
)
from yarncli.engines.types import Engine, Launch, Model, NotKnown, Reading, Used
from yarncli.rope.parameters import RopeParameters

_DEFAULT_ORIGINAL = 1024


def read(model: Model) -> Reading:
    """What TensorRT-LLM computes; its table ends at max_position_embeddings.

    Raises:
        LoaderError: it refuses the config.
        NotKnown: there is no rule.
    """
    theta = model.block("rope_parameters").get("rope_theta")
    notes = ["takes θ from rope_parameters, but no scaling"] if is_v5_only(model) else []
    parameters = legacy(model, default_theta=float(theta) if theta else None)
    scopes = {name: _used(model, p) for name, p in parameters.items()}
    return Reading(scopes, served_length=model.rope.max_position_embeddings, notes=tuple(notes))


def _used(model: Model, p: RopeParameters) -> Used:
    match p.rope_type:
        case "dynamic":
            raise NotKnown("yarncli has no rule for what it makes of dynamic.")
        case "yarn":
            inner = model.block("rope_scaling").get(ORIGINAL)
            original = model.text.get(ORIGINAL) or inner or _DEFAULT_ORIGINAL
            read_as = replace(p, original_max_position_embeddings=original, truncate=None)
            return Used(read_as, mscale_ratio(p), second_hand_softmax(model, p))
        case "longrope":
            return Used(p, longrope_scale_by_lengths(p))
    return Used(p)


def launch(parts: Launch) -> str:
    """`trtllm-serve`, which takes no config overrides."""
    words = ["trtllm-serve", parts.model.source, "--max_seq_len", str(parts.length)]
    return shlex.join(words)


ENGINE = Engine(
    id="tensorrt-llm",
    name="TensorRT-LLM",
    versions="2026",
    read=read,
    launch=launch,
    about=(
        "yarn: `attention_factor` is not read, the mscale pair is; without an original length it "
        "takes 1024, and the top-level one wins.",
        "The table of angles ends at max_position_embeddings.",
    ),
)
