"""mlx-lm: `rope_scaling` and top-level θ only, but for a few newer models."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.loaders import is_v5_only, legacy, version_5
from yarncli.engines.shared import (
    IGNORES_ROPE_PARAMETERS,
    ORIGINAL,
    longrope_scale_by_lengths,
    mla_softmax,
    mscale_ratio,
    refuse_su,
)
from yarncli.engines.types import Engine, EngineCrash, Launch, Model, Reading, Used
from yarncli.rope.parameters import RopeParameters

_READS_ROPE_PARAMETERS = frozenset(
    """
    exaone_moe gemma4_text glm_moe_dsa laguna lfm2 lfm2_moe mellum ministral3 qwen3_5_text
    qwen3_5_moe_text
    """.split()
)
_NEEDS_THETA = frozenset({"qwen3", "olmo3"})
_DEFAULT_ORIGINAL = 4096


def read(model: Model) -> Reading:
    """What mlx-lm computes; it sets no limit on the length.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails while loading.
    """
    kind = model.rope.model_type
    notes = []
    if kind in _READS_ROPE_PARAMETERS and is_v5_only(model):
        parameters = version_5(model)
    else:
        if kind in _NEEDS_THETA and model.text.get("rope_theta") is None:
            raise EngineCrash(f"{kind} has no default for rope_theta: TypeError while loading.")
        if is_v5_only(model):
            notes.append(IGNORES_ROPE_PARAMETERS)
        _check_names(kind, model.block("rope_scaling"))
        parameters = legacy(model, default_theta=1e6 if kind == "qwen2" else None)
    scopes = {name: _used(model, p) for name, p in parameters.items()}
    return Reading(scopes, notes=tuple(notes))


def _check_names(kind: str, block: Mapping[str, Any]) -> None:
    if kind != "phi3":
        refuse_su(block.get("type", block.get("rope_type")))
    elif block and not {"type", "long_factor"} <= block.keys():
        raise EngineCrash("phi3 needs the keys type and long_factor in rope_scaling.")


def _used(model: Model, p: RopeParameters) -> Used:
    kind = model.rope.model_type
    if kind == "gpt_neox":
        return Used(replace(p, rope_type="default"))
    if p.rope_type == "yarn":
        stated = [model.block(key).get(ORIGINAL) for key in ("rope_scaling", "rope_parameters")]
        original = next((n for n in stated if isinstance(n, int)), _DEFAULT_ORIGINAL)
        softmax = mla_softmax(p) if model.family.scales_softmax else 1.0
        read_as = replace(p, truncate=None, original_max_position_embeddings=original)
        return Used(read_as, mscale_ratio(p), softmax)
    if p.rope_type == "longrope":
        return Used(replace(p, short_factor=p.long_factor), longrope_scale_by_lengths(p))
    return Used(p, p.effective_attention_factor())


def launch(parts: Launch) -> str:
    """`mlx_lm.server`, which takes no config overrides."""
    return shlex.join(["mlx_lm.server", "--model", parts.model.source])


ENGINE = Engine(
    id="mlx-lm",
    name="mlx-lm",
    versions="August 2026",
    read=read,
    launch=launch,
    about=(
        "Most models read `rope_scaling` and top-level θ only; `type` beats `rope_type`.",
        "yarn: the scale is m(s·mscale) / m(s·mscale_all_dim) with defaults 1 and 0; "
        "`attention_factor` and `truncate` are not read.",
        "longrope always uses the long factors and a scale from the two lengths.",
    ),
)
