"""Text Generation Inference: `rope_scaling` through transformers 4, rotary classes of its own."""

from __future__ import annotations

import shlex
from dataclasses import replace

from yarncli.engines.loaders import is_v5_only, legacy
from yarncli.engines.shared import (
    IGNORES_ROPE_PARAMETERS,
    ORIGINAL,
    longrope_scale_by_lengths,
    mscale_ratio,
    second_hand_softmax,
)
from yarncli.engines.types import Engine, EngineCrash, Launch, Model, Reading, Used
from yarncli.rope.parameters import RopeParameters


def read(model: Model) -> Reading:
    """What TGI computes; it serves max_position_embeddings tokens.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails at start-up.
    """
    notes = [IGNORES_ROPE_PARAMETERS] if is_v5_only(model) else []
    faults: list[str] = []
    parameters = legacy(model, type_wins=False)
    scopes = {name: _used(model, p, notes, faults) for name, p in parameters.items()}
    served = model.rope.max_position_embeddings
    return Reading(scopes, served_length=served, notes=tuple(notes), faults=tuple(faults))


def _used(model: Model, p: RopeParameters, notes: list[str], faults: list[str]) -> Used:
    match p.rope_type:
        case "linear":
            notes.append("linear does nothing")
            return Used(replace(p, rope_type="default"))
        case "yarn":
            if ORIGINAL not in model.block("rope_scaling"):
                raise EngineCrash(f"yarn without {ORIGINAL}: KeyError.")
            plain = replace(p, beta_fast=None, beta_slow=None, truncate=None)
            return Used(plain, mscale_ratio(p), second_hand_softmax(model, p))
        case "longrope":
            if "short_mscale" in p.extra or "long_mscale" in p.extra:
                faults.append("multiplies the angles by short_mscale and long_mscale")
            return Used(p, longrope_scale_by_lengths(p))
    return Used(p)


def launch(parts: Launch) -> str:
    """`text-generation-launcher`, which takes no config overrides."""
    words = ["text-generation-launcher", "--model-id", parts.model.source]
    words += ["--max-total-tokens", str(parts.length), "--max-input-tokens", str(parts.length - 1)]
    return shlex.join(words)


ENGINE = Engine(
    id="tgi",
    name="Text Generation Inference",
    versions="2025",
    read=read,
    launch=launch,
    about=(
        "linear does nothing.",
        "yarn: betas are always 32 and 1; `attention_factor` and `truncate` are not read, the "
        "mscale pair is.",
        "longrope with `short_mscale`/`long_mscale` multiplies the angles by them.",
    ),
)
