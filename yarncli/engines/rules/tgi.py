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
    refuse_gaps,
)
from yarncli.engines.tables import Row, find_row
from yarncli.engines.types import Engine, EngineCrash, Launch, Model, Reading, Used
from yarncli.rope.parameters import RopeParameters


def read(model: Model) -> Reading:
    """What TGI computes; it serves max_position_embeddings tokens.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails at start-up.
        NotKnown: its model file was not read.

    Source: text_generation_server/layers/rotary.py@0666316, `PositionRotaryEmbedding.static`, and
        the model file that the table names.
    """
    row = find_row("tgi", model)
    notes = [IGNORES_ROPE_PARAMETERS] if is_v5_only(model) else []
    faults: list[str] = []
    parameters = legacy(model, type_wins=False)
    scopes = {name: _used(model, row, p, notes, faults) for name, p in parameters.items()}
    served = model.rope.max_position_embeddings
    return Reading(scopes, served_length=served, notes=tuple(notes), faults=tuple(faults))


def _used(model: Model, row: Row, p: RopeParameters, notes: list[str], faults: list[str]) -> Used:
    block = model.block("rope_scaling")
    refuse_gaps(block, p.rope_type, not_null=("factor", "mscale", "mscale_all_dim"))
    if row.word(p.rope_type) == "ignores":
        notes.append(f"{p.rope_type} does nothing")
        return Used(replace(p, rope_type="default"))
    match p.rope_type:
        case "dynamic":
            faults.append("dynamic: the base of the longest text so far stays for shorter ones")
        case "llama3" if ORIGINAL not in block:
            raise EngineCrash(f"llama3 without {ORIGINAL}: KeyError.")
        case "yarn":
            if ORIGINAL not in block:
                raise EngineCrash(f"yarn without {ORIGINAL}: KeyError.")
            plain = replace(p, beta_fast=None, beta_slow=None, truncate=None)
            return Used(plain, mscale_ratio(p))
        case "longrope":
            faults.append("longrope: the factors change at the original window inside each text")
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
    versions="3",
    read=read,
    launch=launch,
    about=(
        "linear does nothing.",
        "yarn: betas are always 32 and 1; `attention_factor` and `truncate` are not read, the "
        "mscale pair is.",
        "longrope changes its factors at the original window inside each text; with "
        "`short_mscale`/`long_mscale` it multiplies the angles by them.",
        "Llama, Mistral, Mixtral, Gemma 2, Qwen 2 and 3 were read; the others are not known.",
    ),
)
