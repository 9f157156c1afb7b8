"""Text Generation Inference: `rope_scaling` through transformers 4, rotary classes of its own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from yarncli.engines.loaders import is_v5_only, legacy, with_inner_theta
from yarncli.engines.published import published_reading
from yarncli.engines.shared import (
    IGNORES_ROPE_PARAMETERS,
    ORIGINAL,
    longrope_scale_by_lengths,
    mscale_ratio,
    refuse_gaps,
)
from yarncli.engines.tables import Row, brings_config, find_row, load_table, runs_own_code
from yarncli.engines.types import (
    Engine,
    EngineCrash,
    Launch,
    Model,
    NoReading,
    NotKnown,
    NotSupported,
    Reading,
    Used,
)
from yarncli.rope.parameters import RopeParameters, mla_softmax


def make_engine(backends: Sequence[Engine]) -> Engine:
    """The engine, with the releases of transformers that it may go to.

    Args:
        backends: the rules of the oldest and the newest.
    """
    return replace(_ENGINE, read=lambda model: _read(model, backends))


def _read(model: Model, backends: Sequence[Engine]) -> Reading:
    """What TGI computes; it serves max_position_embeddings tokens.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails at start-up.
        NotSupported: neither it nor its transformers has the model.
        NotKnown: its model file was not read.

    Source: text_generation_server/layers/rotary.py@0666316, `PositionRotaryEmbedding.static`, and
        the model file that the table names.
    """
    if model.model_type not in load_table("tgi")["registered"] and not model.assume_like:
        return _through_transformers(model, backends)
    row = find_row("tgi", model)
    _insist_on_width(model, row)
    if row.entry.get("needs_block") and not model.block("rope_scaling").get("mrope_section"):
        raise NotKnown(f"Nobody examined TGI 3 without mrope_section in {row.model_type}.")
    notes = [IGNORES_ROPE_PARAMETERS] if is_v5_only(model) else []
    faults: list[str] = []
    if "inner_theta" in row.entry:
        model = with_inner_theta(model, row.entry["inner_theta"])
    parameters = legacy(model, type_wins=False)
    scopes = {name: _used(model, row, p, notes, faults) for name, p in parameters.items()}
    served = model.rope.max_position_embeddings
    return Reading(scopes, served_length=served, notes=tuple(notes), faults=tuple(faults))


def _through_transformers(model: Model, backends: Sequence[Engine]) -> Reading:
    """What AutoModelForCausalLM computes, where all releases in question agree.

    Raises:
        LoaderError: they refuse the config.
        EngineCrash: they fail on it.
        NotSupported: no such release maps the model type.
        NotKnown: the checkpoint's own code would run, or the releases differ.

    Source: models/__init__.py@78c236f, the end of `get_model`;
        models/transformers_flash_causal_lm.py@1169fea.
    """
    kind, table = model.model_type, load_table("tgi")
    if kind in table["unsure"]:
        raise NotKnown(f"TGI 3 runs {kind} by transformers, if its release has that.")
    if kind not in table["causal"]:
        own = published_reading("tgi", model)
        if own:
            return _of_a_batch(own, model)
        if brings_config(model.config):
            raise NotKnown(f"TGI 3 would run the checkpoint's own code for {kind}.")
        raise NotSupported(f"TGI 3 and its transformers have no causal model for {kind}.")
    oldest, newest = (_tried(engine, model) for engine in backends)
    if isinstance(newest, NoReading):
        if type(oldest) is type(newest):
            raise newest
    elif isinstance(oldest, Reading) and oldest.scopes == newest.scopes:
        return _of_a_batch(newest, model)
    raise NotKnown(f"TGI 3 runs {kind} by transformers, whose releases differ here.")


def _tried(engine: Engine, model: Model) -> Reading | NoReading:
    try:
        return engine.read(model)
    except NoReading as error:
        return error


def _of_a_batch(found: Reading, model: Model) -> Reading:
    """The reading, where it is the same for each text of a batch.

    Its attention function takes no softmax scale from the model.

    Raises:
        NotKnown: it is not, or that matters.
    """
    for used in found.scopes.values():
        if used.parameters.rope_type in ("dynamic", "longrope") or used.softmax_scale_ratio != 1:
            raise NotKnown(f"Nobody examined {used.parameters.rope_type} in TGI's transformers.")
    return replace(found, served_length=model.rope.max_position_embeddings)


def _insist_on_width(model: Model, row: Row) -> None:
    """Insist that what rotates of a head is what its class takes, from hidden_size or whole.

    Raises:
        NotKnown: it is not.
    """
    hidden, heads = model.text.get("hidden_size"), model.rope.num_attention_heads
    for p in (scope.parameters for scope in model.rope.scopes.values()):
        width = hidden // heads if isinstance(hidden, int) else None
        is_partial = p.rotary_dim != p.head_dim and "share" not in row.entry
        other = row.entry.get("width") == "hidden_size" and width != p.head_dim
        if other or is_partial:
            raise NotKnown(f"Nobody examined the width of a head of {row.model_type} in TGI 3.")


def _used(model: Model, row: Row, p: RopeParameters, notes: list[str], faults: list[str]) -> Used:
    block = model.block("rope_scaling")
    p = replace(p, rope_theta=row.entry["theta"]) if "theta" in row.entry else p
    if row.entry.get("mla") and p.rope_type != "yarn":
        raise EngineCrash(f"{row.model_type} without yarn: AttributeError 'mscale_all_dim'.")
    refuse_gaps(block, p.rope_type, not_null=("factor", "mscale", "mscale_all_dim"))
    if row.word(p.rope_type) == "ignores":
        notes.append(f"{p.rope_type} does nothing")
        return Used(replace(p, rope_type="default"))
    match p.rope_type:
        case "dynamic":
            faults.append("dynamic: shorter texts use the base of the longest text so far")
        case "llama3" if ORIGINAL not in block:
            raise EngineCrash(f"llama3 without {ORIGINAL}: KeyError.")
        case "yarn":
            if ORIGINAL not in block:
                raise EngineCrash(f"yarn without {ORIGINAL}: KeyError.")
            plain = replace(p, beta_fast=None, beta_slow=None, truncate=None)
            return Used(plain, mscale_ratio(p), mla_softmax(p) if "mla" in row.entry else 1.0)
        case "longrope":
            faults.append("longrope: the factors change at the original window inside each text")
            if "short_mscale" in p.extra or "long_mscale" in p.extra:
                faults.append("multiplies the angles by short_mscale and long_mscale")
            return Used(p, longrope_scale_by_lengths(p))
    return Used(p)


def launch(parts: Launch) -> str:
    """`text-generation-launcher`, which takes no config overrides."""
    words = ["text-generation-launcher", "--model-id", parts.model.source]
    if runs_own_code("tgi", parts.model.config):
        words.append("--trust-remote-code")
    words += ["--max-total-tokens", str(parts.length), "--max-input-tokens", str(parts.length - 1)]
    return shlex.join(words)


_ENGINE = Engine(
    id="tgi",
    name="Text Generation Inference",
    versions="3",
    read=lambda model: _read(model, ()),
    launch=launch,
    about=(
        "linear does nothing.",
        "yarn: betas are always 32 and 1; `attention_factor` and `truncate` are not read, the "
        "mscale pair is.",
        "longrope changes its factors at the original window inside each text; with "
        "`short_mscale`/`long_mscale` it multiplies the angles by them.",
        "Model types without code of its own run by transformers 4.51 to 4.57, if that has them.",
    ),
)
