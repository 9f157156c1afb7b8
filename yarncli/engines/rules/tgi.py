"""Text Generation Inference: `rope_scaling` through transformers 4, rotary classes of its own."""

from __future__ import annotations

import shlex
from dataclasses import replace

from yarncli.engines.loaders import Model, is_v5_only, legacy
from yarncli.engines.rules.vllm import longrope_scale_by_lengths
from yarncli.engines.verdict import (
    Engine,
    EngineCrash,
    Launch,
    Reading,
    Used,
    mscale_ratio,
    second_hand_softmax,
)
from yarncli.rope.parameters import RopeParameters


def read(model: Model) -> Reading:
    """What TGI computes; it serves max_position_embeddings tokens.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails at start-up.
    """
    notes: list[str] = []
    faults: list[str] = []
    if is_v5_only(model):
        notes.append("ignores rope_parameters: θ and scaling are its defaults")
    parameters = legacy(model, type_wins=False)
    scopes = {name: _used(model, p, notes, faults) for name, p in parameters.items()}
    return Reading(scopes, model.rope.max_position_embeddings, tuple(notes), tuple(faults))


def _used(model: Model, p: RopeParameters, notes: list[str], faults: list[str]) -> Used:
    match p.rope_type:
        case "linear":
            notes.append("linear does nothing")
            return Used(replace(p, rope_type="default"))
        case "yarn":
            if "original_max_position_embeddings" not in model.block("rope_scaling"):
                raise EngineCrash("yarn without original_max_position_embeddings: KeyError.")
            scale = mscale_ratio(p, mscale=1.0, mscale_all_dim=0.0)
            return Used(
                replace(p, beta_fast=None, beta_slow=None, truncate=None),
                scale,
                second_hand_softmax(model, p),
            )
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
    "tgi",
    "Text Generation Inference",
    "2025",
    "read",
    read,
    launch,
    about=(
        "linear does nothing.",
        "yarn: betas are always 32 and 1; `attention_factor` and `truncate` are not read, the "
        "mscale pair is.",
        "longrope with `short_mscale`/`long_mscale` multiplies the angles by them.",
    ),
)
