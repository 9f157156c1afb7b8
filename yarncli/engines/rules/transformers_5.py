"""transformers 5: the reference reading, and the one whose numbers are "intended" by default."""

from __future__ import annotations

import json
from dataclasses import replace

from yarncli.engines.loaders import LoaderError, Model, refuse_aliases, version_5
from yarncli.engines.verdict import Engine, EngineCrash, Launch, Reading, Used, mla_softmax
from yarncli.rope.parameters import RopeParameters

# Model types whose attention multiplies the softmax scale by m(s·mscale_all_dim)².
MLA_SOFTMAX = frozenset(
    """
    axk1 axk2 bailing_hybrid deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa
    hy_v4 kimi_k2 longcat_flash minicpm3 mistral4 mistral_large4_text youtu
    """.split()
)


# Model types whose config class leaves head_dim empty, which these RoPE types then fail on.
_NO_HEAD_DIM = frozenset(
    """
    hunyuan_v1_dense hunyuan_v1_moe hunyuan_vl_text minimax ministral mixtral
    """.split()
)
_ORIGINAL = "original_max_position_embeddings"
_NEED_HEAD_DIM = ("yarn", "dynamic", "longrope")


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
    has_softmax = kind in MLA_SOFTMAX and p.rope_type != "default"
    return Used(p, scale, mla_softmax(p) if has_softmax else 1.0)


def used(model: Model, p: RopeParameters) -> Used:
    """The same, for a model that transformers 5 can build.

    Raises:
        EngineCrash: an MLA model whose scaling has no factor, or a width the class leaves empty.
    """
    kind = model.rope.model_type
    no_width = kind in _NO_HEAD_DIM and model.text.get("head_dim") is None
    if no_width and p.rope_type in _NEED_HEAD_DIM:
        raise EngineCrash(
            f"{kind} without head_dim in config.json: TypeError. Add head_dim: {p.head_dim}."
        )
    if kind in MLA_SOFTMAX and p.rope_type != "default" and p.mscale_all_dim and p.factor is None:
        raise EngineCrash("mscale_all_dim is given and factor is not, which this model needs.")
    return numbers(model, p)


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
