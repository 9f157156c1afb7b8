"""transformers 5: the reference reading, and the one whose numbers are "intended" by default."""

from __future__ import annotations

import json
from dataclasses import replace

from yarncli.rope.engines.reading import Model, refuse_aliases, version_5
from yarncli.rope.engines.view import Engine, EngineCrash, Launch, Reading, Used, mla_softmax
from yarncli.rope.parameters import RopeParameters

# Model types whose attention multiplies the softmax scale by m(s·mscale_all_dim)².
MLA_SOFTMAX = frozenset(
    """
    axk1 axk2 bailing_hybrid deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa
    hy_v4 kimi_k2 longcat_flash minicpm3 mistral4 mistral_large4_text youtu
    """.split()
)


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
        if model.family.scopes and p.truncate is False:
            # modeling_rope_utils.py reads `truncate` beside the scopes, not inside one.
            p = replace(p, truncate=None)
            notes.append(f"ignores truncate inside {name}")
        scopes[name] = used(model, p)
    return Reading(scopes, None, tuple(notes))


def used(model: Model, p: RopeParameters) -> Used:
    """One setting with transformers 5's two temperatures.

    Raises:
        EngineCrash: an MLA model whose scaling has no factor.
    """
    softmax = 1.0
    if model.rope.model_type in MLA_SOFTMAX and p.rope_type != "default" and p.mscale_all_dim:
        if p.factor is None:
            raise EngineCrash("mscale_all_dim is given and factor is not, which this model needs.")
        softmax = mla_softmax(p)
    return Used(p, p.effective_attention_factor(), softmax)


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
