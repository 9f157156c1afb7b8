"""transformers 5: the reference reading, and the one whose numbers are "intended" by default."""

from __future__ import annotations

import json
from dataclasses import replace

from yarncli.config.families.family import Release
from yarncli.engines.loaders import LoaderError, Model, refuse_aliases, version_5
from yarncli.engines.verdict import Engine, EngineCrash, Launch, Reading, Used, mla_softmax
from yarncli.rope.parameters import RopeParameters

_ORIGINAL = "original_max_position_embeddings"


def read(model: Model) -> Reading:
    """What transformers 5 computes; it sets no limit on the length.

    Raises:
        LoaderError: it does not load the config.
        EngineCrash: it loads, and fails when the model is built.
    """
    refuse_aliases(model)
    notes = []
    scopes = {}
    for name, p in version_5(model).items():
        block = model.winning_block(name)
        if "su" in (block.get("type"), block.get("rope_type")) and _ORIGINAL not in block:
            raise LoaderError(f"rope_type 'su' needs {_ORIGINAL} in the same dict.")
        if model.rope.model_type == "phimoe" and p.rope_type == "longrope":
            p = replace(p, long_factor=p.short_factor)
            notes.append("phimoe never uses its long factors")
        if model.family.scopes and p.truncate is False:
            # modeling_rope_utils.py reads `truncate` beside the scopes, not inside one.
            p = replace(p, truncate=None)
            notes.append(f"ignores truncate inside {name}")
        scopes[name] = used(model, p)
    return Reading(scopes, None, tuple(notes))


def numbers(model: Model, p: RopeParameters) -> Used:
    """One setting with the two temperatures that transformers 5 gives it."""
    kind = model.rope.model_type
    scale = p.effective_attention_factor()
    if kind == "phimoe" and p.rope_type == "longrope":
        scale = phimoe_scale(p, model.length)
    has_softmax = model.family.scales_softmax and p.rope_type != "default"
    return Used(p, scale, mla_softmax(p) if has_softmax else 1.0)


def used(model: Model, p: RopeParameters) -> Used:
    """The same, for a model that transformers 5 can build.

    Raises:
        EngineCrash: an MLA model whose scaling has no factor, or a width the class leaves empty.
    """
    refuse_null_head_dim(model, p, "5")
    scaled = model.family.scales_softmax and p.rope_type != "default"
    if scaled and p.mscale_all_dim and p.factor is None:
        raise EngineCrash("mscale_all_dim is given and factor is not, which this model needs.")
    return numbers(model, p)


def refuse_null_head_dim(model: Model, p: RopeParameters, release: Release) -> None:
    """Refuse a RoPE type that is computed from `head_dim` where the config class leaves it null.

    Raises:
        EngineCrash: `release` does so and the file gives no width.
    """
    null = release in model.family.head_dim_null_in and model.text.get("head_dim") is None
    if null and p.rope_type in ("yarn", "dynamic", "longrope"):
        raise EngineCrash(
            f"{model.rope.model_type} without head_dim in config.json: TypeError. "
            f"Add head_dim: {p.head_dim}."
        )


def phimoe_scale(p: RopeParameters, length: int) -> float:
    """PhiMoE's two scales, which replace LongRoPE's; `length` in tokens chooses."""
    name = "long_mscale" if length > p.original_length else "short_mscale"
    return float(p.extra.get(name, p.effective_attention_factor()))


def launch(parts: Launch) -> str:
    """The Python call that loads the model, with overrides as keyword arguments."""
    call = "".join(f", {key}={value!r}" for key, value in (parts.fields or {}).items())
    return f"AutoModelForCausalLM.from_pretrained({json.dumps(parts.model.source)}{call})"


ENGINE = Engine(
    "transformers-5",
    "transformers 5",
    "5.0 – 5.23",
    "run",
    read,
    launch,
    override="v5",
    about=(
        "A truthy `rope_scaling` replaces `rope_parameters`; θ in the dict beats top-level θ; "
        "`rope_type` beats `type`.",
        "dynamic and longrope follow the length of each call.",
        "`truncate` inside one scope of a nested config is ignored.",
    ),
)
