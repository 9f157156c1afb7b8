"""TensorRT-LLM: `rope_scaling`, with θ also from `rope_parameters`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.loaders import is_v5_only, legacy
from yarncli.engines.shared import (
    ORIGINAL,
    longrope_scale_by_lengths,
    mscale_ratio,
    proportional_by_layers,
    refuse_gaps,
    second_hand_softmax,
)
from yarncli.engines.tables import Row, find_row
from yarncli.engines.types import Engine, EngineCrash, Launch, Model, NotKnown, Reading, Used
from yarncli.rope.parameters import RopeParameters, canonical_rope_type

_DEFAULT_ORIGINAL = 1024
_NOT_NULL = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")
_WIDTHS = ("rotary_dim", "rotary_pct", "partial_rotary_factor", "qk_rope_head_dim")
_ONE_KERNEL_ONLY = ("attention_factor", "truncate", "mscale", "mscale_all_dim")


def read(model: Model) -> Reading:
    """What TensorRT-LLM computes; its table ends at max_position_embeddings.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails at start-up.
        NotSupported: it has no model file.
        NotKnown: the model file, or what it makes of the type, was not read.

    Source: tensorrt_llm/_torch/attention_backend/interface.py@000a01d, `RopeParams.from_config`,
        and the model file that the table names.
    """
    row = find_row("tensorrt-llm", model)
    if "class" in row.entry:
        row.require_class(model)
    if row.entry.get("needs_block") and not model.block("rope_scaling"):
        raise NotKnown(f"Nobody examined {row.release} without rope_scaling in {row.model_type}.")
    if row.entry.get("reader") == "gemma4":
        served = model.rope.max_position_embeddings
        return Reading(proportional_by_layers(model), served_length=served)
    theta = model.block("rope_parameters").get("rope_theta") or _theta_inside(model, row)
    notes = ["takes θ from rope_parameters, but no scaling"] if is_v5_only(model) else []
    parameters = legacy(model, default_theta=float(theta) if theta else None)
    if row.entry.get("nested"):
        for name in parameters:
            block = model.winning_block(name)
            row.word(canonical_rope_type(str(block.get("rope_type") or block.get("type"))))
    _insist_on_width(model, row)
    scopes = {name: _used(model, row, p) for name, p in parameters.items()}
    return Reading(scopes, served_length=model.rope.max_position_embeddings, notes=tuple(notes))


def _theta_inside(model: Model, row: Row) -> float | None:
    """θ of a file that states it inside `rope_scaling` only; `None` where it does not.

    The config classes of transformers 5 take it from there, those of 4.57 have their own default.

    Raises:
        NotKnown: the two differ, as far as the table knows.
    """
    inside = model.block("rope_scaling").get("rope_theta")
    if inside is None or any(model.text.get(key) is not None for key in model.family.theta_keys):
        return None
    if inside != row.entry.get("default_theta"):
        raise NotKnown(
            f"{row.release} takes rope_theta out of rope_scaling with some releases of "
            "transformers only. State it at the top level too."
        )
    return float(inside)


def _used(model: Model, row: Row, p: RopeParameters) -> Used:
    row.word(p.rope_type)
    block = model.block("rope_scaling")
    keys = row.entry.get("requires", ())
    if p.rope_type == "default" and keys:
        raise EngineCrash(f"{row.model_type} without rope_scaling: TypeError.")
    if p.rope_type == "longrope":
        return _longrope(model, row, p)
    if p.rope_type != "yarn":
        return Used(p)
    refuse_gaps(block, p.rope_type, not_null=("factor", *_NOT_NULL))
    for key in keys:
        if key not in block:
            raise EngineCrash(f"{row.model_type} without {key}: KeyError. State it.")
    original = model.text.get(ORIGINAL) or block.get(ORIGINAL) or _DEFAULT_ORIGINAL
    if row.entry.get("kernel") == "fused":
        _insist_on_plain_yarn(row, p, block, original)
    read_as = replace(p, original_max_position_embeddings=original, truncate=None)
    if row.entry.get("kernel") == "v4":
        return Used(read_as)  # its two mscales are set to 0
    return Used(read_as, mscale_ratio(p), second_hand_softmax(model, p))


def _insist_on_width(model: Model, row: Row) -> None:
    """Insist that what rotates of a head is said where `RopeParams.from_config` looks.

    Raises:
        NotKnown: it is not.
    """
    if row.entry.get("nested") or any(model.text.get(key) is not None for key in _WIDTHS):
        return
    if any(s.parameters.rotary_dim != s.parameters.head_dim for s in model.rope.scopes.values()):
        raise NotKnown(f"Nobody examined what {row.release} rotates of a head here.")


def _longrope(model: Model, row: Row, p: RopeParameters) -> Used:
    """The long list for every text, and a scale from the two lengths.

    Raises:
        NotKnown: the maximum is not above the original length, where the list is another one.
    """
    original = model.text.get(ORIGINAL) or model.block("rope_scaling").get(ORIGINAL)
    read_as = replace(p, original_max_position_embeddings=original or _DEFAULT_ORIGINAL)
    if p.max_position_embeddings <= read_as.original_length:
        raise NotKnown(f"Nobody examined which of longrope's lists {row.release} takes here.")
    read_as = replace(read_as, short_factor=p.long_factor)
    return Used(read_as, longrope_scale_by_lengths(read_as))


def _insist_on_plain_yarn(
    row: Row, p: RopeParameters, block: Mapping[str, Any], original: int
) -> None:
    """Where two kernels compute yarn from different keys, only what both agree on is known.

    Source: models/modeling_qwen3.py@010bb95, `compute_yarn_parameters`: it takes its factor from
        the two lengths and reads `attention_factor` and `truncate`, which `RopeParams` does not.
    """
    odd = [key for key in _ONE_KERNEL_ONLY if block.get(key) is not None]
    ratio = p.max_position_embeddings / original
    if odd or not math.isclose(ratio, p.resolved_factor(), rel_tol=1e-6):
        what = " and ".join(odd) or "a factor that is not the ratio of the two lengths"
        raise NotKnown(
            f"{row.release} has two kernels for {row.model_type}, which treat {what} differently; "
            "nobody examined which of them runs."
        )


def launch(parts: Launch) -> str:
    """`trtllm-serve`, which takes no config overrides."""
    words = ["trtllm-serve", parts.model.source, "--max_seq_len", str(parts.length)]
    return shlex.join(words)


ENGINE = Engine(
    id="tensorrt-llm",
    name="TensorRT-LLM",
    versions="1, PyTorch backend",
    read=read,
    launch=launch,
    about=(
        "yarn: `attention_factor` is not read, the mscale pair is; without an original length it "
        "takes 1024, and the top-level one wins.",
        "The table of angles ends at max_position_embeddings.",
        "longrope: the long list for every text, with a scale from the two lengths.",
        "What it makes of dynamic is not known, nor what Qwen's multimodal models make of any "
        "type but the plain one.",
    ),
)
