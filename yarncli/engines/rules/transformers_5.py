"""transformers 5: the reference reading, and the one whose numbers are "intended" by default."""

from __future__ import annotations

from dataclasses import replace

from yarncli.engines.loaders import refuse_aliases, version_5
from yarncli.engines.shared import ORIGINAL, from_pretrained, transformers_used
from yarncli.engines.types import Engine, LoaderError, Model, Reading


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
        if "su" in (block.get("type"), block.get("rope_type")) and ORIGINAL not in block:
            raise LoaderError(f"rope_type 'su' needs {ORIGINAL} in the same dict.")
        if model.rope.model_type == "phimoe" and p.rope_type == "longrope":
            p = replace(p, long_factor=p.short_factor)
            notes.append("phimoe never uses its long factors")
        if model.family.scopes and p.truncate is False:
            # modeling_rope_utils.py reads `truncate` beside the scopes, not inside one.
            p = replace(p, truncate=None)
            notes.append(f"ignores truncate inside {name}")
        scopes[name] = transformers_used(model, p)
    return Reading(scopes, notes=tuple(notes))


ENGINE = Engine(
    id="transformers-5",
    name="transformers 5",
    versions="5.0 – 5.23",
    basis="run",
    read=read,
    launch=from_pretrained,
    override="v5",
    about=(
        "A truthy `rope_scaling` replaces `rope_parameters`; θ in the dict beats top-level θ; "
        "`rope_type` beats `type`.",
        "dynamic and longrope follow the length of each call.",
        "`truncate` inside one scope of a nested config is ignored.",
    ),
)
