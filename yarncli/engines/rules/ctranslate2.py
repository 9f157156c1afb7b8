"""CTranslate2: its converter writes θ and the scaling of what transformers 5 loads."""

from __future__ import annotations

import shlex
from dataclasses import replace

from yarncli.engines.loaders import version_5
from yarncli.engines.tables import Row, find_row
from yarncli.engines.types import (
    Engine,
    EngineCrash,
    Launch,
    LoaderError,
    Model,
    NotKnown,
    Reading,
    Used,
)
from yarncli.rope.parameters import RopeParameters, canonical_rope_type


def read(model: Model) -> Reading:
    """What a model converted by CTranslate2 4.8 computes; it sets no limit on the length.

    Raises:
        LoaderError: transformers 5 or the converter refuses the config.
        EngineCrash: the converter fails on it.
        NotSupported: the converter has no loader for the model.
        NotKnown: it was not examined.

    Source: ctranslate2/converters/transformers.py:342-364 and the loader that the table names;
        src/layers/attention_layer.cc (OpenNMT/CTranslate2@132258e), `RotaryEmbeddings`.
    """
    row = find_row("ctranslate2", model)
    if model.text.get("new_decoder_architecture"):
        raise NotKnown(f"{row.release} was run on the older Falcon architecture only.")
    if "two_widths" in row.entry:
        _refuse_two_widths(model, row)
    return Reading({name: _used(model, row, p, name) for name, p in version_5(model).items()})


def _refuse_two_widths(model: Model, row: Row) -> None:
    """Gemma 4: the config class of transformers 5.23 gives no single `head_dim` for its layers.

    Raises:
        EngineCrash: the layers have two widths.
        NotKnown: they have one, as no published file has.
    """
    if len({scope.parameters.head_dim for scope in model.rope.scopes.values()}) > 1:
        raise EngineCrash(
            f"{row.release} cannot convert {row.model_type} with transformers 5.23: "
            f"{row.entry['two_widths'].partition(':')[0]}, its layers have two widths of a head."
        )
    raise NotKnown(f"{row.release} was run on {row.model_type} with two widths of a head only.")


def _used(model: Model, row: Row, p: RopeParameters, scope: str) -> Used:
    """What the loader made of the same type when it was run."""
    kind = p.rope_type
    if row.entry["rope"] == "mixed":  # these loaders look at the type, and `type` comes first
        kind = canonical_rope_type(str(model.winning_block(scope).get("type") or kind))
    probe = "longrope type" if kind == "longrope" else f"{kind} both"
    outcome = row.outcome(probe, scope)
    if not outcome:
        raise NotKnown(f"Nobody examined what {row.release} does with {kind}.")
    if "Error" in outcome:
        raise LoaderError(f"{row.model_type} with {kind}: {outcome}.")
    plain = replace(p, rope_type="default")
    if "theta=" in outcome:
        return Used(replace(plain, rope_theta=float(outcome.partition("theta=")[2].split()[0])))
    return Used(plain if outcome.startswith("plain") else replace(p, rope_type=kind))


def launch(parts: Launch) -> str:
    """The converter; a program loads what it writes with `ctranslate2.Generator`."""
    words = ["ct2-transformers-converter", "--model", parts.model.source]
    return shlex.join([*words, "--output_dir", "ct2-model"])


ENGINE = Engine(
    id="ctranslate2",
    name="CTranslate2",
    versions="4.8, with transformers 5",
    basis="run",
    read=read,
    launch=launch,
    about=(
        "linear is right for Llama, Mistral, Qwen 2 and 3; yarn and dynamic are refused.",
        "llama3 in a Llama model (Llama 3.1 and later) is converted without its factor and its "
        "original length, so its RoPE is plain. In other models it is refused.",
        "For Gemma and Falcon it ignores every scaling, and θ.",
    ),
)
