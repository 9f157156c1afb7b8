"""transformers 5: the reference reading, and the one whose numbers are "intended" by default."""

from __future__ import annotations

import functools
from dataclasses import replace

from yarncli.engines.loaders import refuse_aliases, version_5
from yarncli.engines.published import published_reading
from yarncli.engines.resolving import unread_entries
from yarncli.engines.shared import ORIGINAL, from_pretrained, transformers_used, with_silent_theta
from yarncli.engines.tables import Row, find_transformers_row
from yarncli.engines.types import Engine, EngineCrash, LoaderError, Model, NotKnown, Reading, Used
from yarncli.rope.parameters import RopeParameters

_ID = "transformers-5"


def read(model: Model) -> Reading:
    """What transformers 5 computes; it sets no limit on the length.

    Raises:
        LoaderError: it does not load the config.
        EngineCrash: it loads, and fails when the model is built or runs.
        NotSupported: it has no code for the model.
        NotKnown: nobody examined the model, or the checkpoint's own code that would run.

    Source: transformers 5.23 `modeling_rope_utils.py`; per model type `wiring/transformers-5.json`.
    """
    own = published_reading(_ID, model)
    if own:
        return own
    row = find_transformers_row(_ID, model)
    refuse_aliases(model)
    lost = unread_entries(model.text, model.family)
    notes: list[str] = []
    scopes = {n: _used(model, n, p, row, notes) for n, p in version_5(model).items()}
    return Reading(scopes, notes=tuple(notes), faults=(lost,) if lost else ())


def _used(model: Model, name: str, p: RopeParameters, row: Row, notes: list[str]) -> Used:
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
    if p.rope_type == "default" and _keeps_whole_head(model, name):
        p = replace(p, partial_rotary_factor=1.0)
    kind = model.rope.model_type
    failures = [row.failure(f"longrope {way}") for way in ("v5", "legacy", "mscales")]
    if p.rope_type == "longrope" and all(failures):
        raise EngineCrash(f"longrope for {kind}: {failures[0]}.")
    if p.rope_type == "proportional" and row.outcome("proportional").startswith("other"):
        raise NotKnown(f"Nobody examined what {kind} makes of the widths of proportional.")
    p = with_silent_theta(model, row, block, p)
    _crash_on_widths(model, p, row)
    _crash_without_beta(model, p)
    return transformers_used(model, p)


def _keeps_whole_head(model: Model, scope: str) -> bool:
    """Whether a nested entry lacks the share that DeepSeek-V4's class computes for flat dicts."""
    if model.family.scope_sizes_rule != "qk_rope_head_dim" or model.block("rope_scaling"):
        return False
    entry = model.block("rope_parameters").get(scope)
    return entry is not None and "partial_rotary_factor" not in {*entry, *model.text}


def _crash_on_widths(model: Model, p: RopeParameters, row: Row) -> None:
    """Refuse sizes that the attention cannot be multiplied with.

    Raises:
        EngineCrash: the sections of multimodal RoPE, the plain RoPE of Mistral 4, or the lists of
            longrope where layers differ in width, do not fit.
    """
    error = row.failure(f"{p.rope_type} v5")
    if error.startswith("AmbiguousGlobalPerLayer"):
        raise EngineCrash(f"{p.rope_type} for {model.rope.model_type}: {error}.")
    own = row.entry.get("sections")
    sections = p.extra.get("mrope_section", own)
    if own and isinstance(sections, list) and 2 * sum(sections) != p.rotary_dim:
        raise EngineCrash(
            f"mrope_section is {sections}, its own where the file has none, for {p.rotary_dim} "
            "rotary dimensions: RuntimeError. Their sum must be half of them."
        )
    if model.family.rotary_size_key == "qk_head_dim" and p.rope_type == "default":
        raise EngineCrash(
            f"Plain RoPE turns the whole head of a {model.rope.model_type} model, whose keys are "
            "narrower: RuntimeError."
        )


def _crash_without_beta(model: Model, p: RopeParameters) -> None:
    """Refuse what Mistral's attention multiplies by, and the file lacks.

    Raises:
        EngineCrash: it is missing.

    Source: `modeling_ministral3.py` 104-149, `modeling_mistral4.py` 358-483.
    """
    beta = "llama_4_scaling_beta"
    if beta not in model.family.rope_defaults:
        return
    has_original = (
        p.rope_type in ("yarn", "llama3", "longrope") or p.original_max_position_embeddings
    )
    if p.extra.get(beta) is None or not has_original:
        lacking = ORIGINAL if p.extra.get(beta) is not None else beta
        raise EngineCrash(f"{lacking} is missing, which its attention reads: TypeError.")


ENGINE = Engine(
    id=_ID,
    name="transformers 5",
    versions="5.0 – 5.23",
    basis="run",
    read=read,
    launch=functools.partial(from_pretrained, engine=_ID),
    override="v5",
    about=(
        "A truthy `rope_scaling` replaces `rope_parameters`; θ in the dict beats top-level θ; "
        "`rope_type` beats `type`.",
        "dynamic and longrope follow the length of each call.",
        "`truncate` inside one scope of a nested config is ignored.",
        "A scaling dict without its factor is a KeyError; a null factor, and null betas, are not.",
    ),
)
