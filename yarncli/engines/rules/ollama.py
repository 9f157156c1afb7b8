"""Ollama's own import of safetensors checkpoints; a GGUF file is the other way in."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.loaders import is_v5_only, legacy
from yarncli.engines.shared import IGNORES_ROPE_PARAMETERS, ORIGINAL, proportional_by_layers
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
from yarncli.rope.formulas import get_mscale
from yarncli.rope.parameters import RopeParameters, with_frequencies

_RUNTIME_THETA = 10000.0
# Model types whose importer takes the width of a head from hidden_size.
_BY_HIDDEN = ("llama", "mixtral", "mllama_text_model")


def read(model: Model) -> Reading:
    """What the importer keeps and the engine then computes.

    Raises:
        LoaderError: the config cannot be read.
        EngineCrash: the importer fails, or writes a file that cannot work.
        NotSupported: the importer does not know the architecture.
        NotKnown: nobody read what becomes of the model.
    """
    row = find_row("ollama", model)
    row.require_class(model)
    entry = row.entry
    if row.model_type == "gemma3_text" and model.text_path:
        return _gemma3_with_images(model, row)
    if entry.get("reader") in _WHOLE:
        if model.refusal:
            raise NotKnown(model.refusal)
        scopes = _WHOLE[entry["reader"]](model, row)
        return Reading(scopes, served_length=model.rope.max_position_embeddings)
    if entry.get("flat") and model.text_path:
        raise LoaderError("It needs the fields of the text part at the top level of config.json.")
    default = entry.get("default_theta")
    if entry.get("both_thetas"):
        default = model.block("rope_parameters").get("rope_theta") or default
    if default == 0 and model.text.get("rope_theta") is None:
        raise EngineCrash("The importer writes θ 0 where rope_theta is not at the top level.")
    if _hidden_width(model) not in (None, *(s.parameters.head_dim for s in _scopes(model))):
        raise NotKnown("Nobody examined what it makes of a head_dim that is not hidden / heads.")
    notes = [IGNORES_ROPE_PARAMETERS] if is_v5_only(model) else []
    scopes = {}
    for name, p in legacy(model, default_theta=default).items():
        if entry.get("writes_theta") is False:
            p = replace(p, rope_theta=_RUNTIME_THETA)
        scopes[name] = _used(row, p, model, notes)
    lengths = (model.text.get(key) for key in entry.get("length", ()))
    served = next((n for n in lengths if isinstance(n, int) and n), None)
    return Reading(
        scopes,
        served_length=served or model.rope.max_position_embeddings,
        notes=tuple(dict.fromkeys(notes)),
    )


def _scopes(model: Model) -> list[Any]:
    return list(model.rope.scopes.values())


def _hidden_width(model: Model) -> int | None:
    """hidden_size / num_attention_heads, which the importer rotates; `None` where not given."""
    hidden = model.text.get("hidden_size")
    if not isinstance(hidden, int) or model.rope.model_type not in _BY_HIDDEN:
        return None
    return hidden // model.rope.num_attention_heads


def _used(row: Row, p: RopeParameters, model: Model, notes: list[str]) -> Used:
    block, kind = model.block("rope_scaling"), p.rope_type
    if "reader" in row.entry:
        return _READERS[row.entry["reader"]](replace(_yarn(p, block), truncate=None), model)
    if kind == "default":
        return Used(p)
    said = block.get(row.entry.get("by", {}).get(kind, "type"))
    match row.word(kind):
        case "reads" if said == kind:
            return Used(p)
        case "differs" if said == kind:
            notes.append("the original window is lost: all frequencies but the first are divided")
            return Used(_without_original(p))  # its temperature cancels the kernel's
        case "refuses" if said is not None:
            raise EngineCrash(f"The importer panics on type {said!r}.")
    notes.append(f"the importer drops {kind} for {row.model_type}; import a GGUF file instead")
    return Used(replace(p, rope_type="default"))


def _without_original(p: RopeParameters) -> RopeParameters:
    """The ramp of ggml for an original window of 0: only the first pair is kept.

    Reference: `ggml_rope_yarn_corr_dims`, whose lower end is then 0 and upper end minus infinity.
    """
    first, *rest = replace(p, rope_type="default").inv_freq()
    return with_frequencies(p, [first, *(f / p.resolved_factor() for f in rest)])


def _yarn(p: RopeParameters, block: Mapping[str, Any]) -> RopeParameters:
    """The factor as yarn, whatever the type."""
    factor, original = block.get("factor"), block.get(ORIGINAL)
    if not isinstance(factor, int | float) or factor < 1 or not isinstance(original, int):
        raise EngineCrash(f"Its model divides by the factor; it wants factor and {ORIGINAL}.")
    return RopeParameters(
        rope_type="yarn", rope_theta=p.rope_theta, head_dim=p.head_dim, factor=float(factor),
        original_max_position_embeddings=original,
        max_position_embeddings=p.max_position_embeddings,
        partial_rotary_factor=p.partial_rotary_factor,
    )  # fmt: skip


def _deepseek(p: RopeParameters, model: Model) -> Used:
    """No scale on cos and sin; the softmax scale by mscale_all_dim.

    Reference: `model/models/deepseek2/model.go`, `RoPEOptions` and `New`.
    """
    whole = model.block("rope_scaling").get("mscale_all_dim") or 0.0
    return Used(p, 1.0, get_mscale(p.resolved_factor(), float(whole)) ** 2)


def _gpt_oss(p: RopeParameters, model: Model) -> Used:
    """The original window is `initial_context_length`; the ramp ends at whole dimensions.

    Reference: `model/models/gptoss/model.go`, `applyRotaryPositionEmbeddings`.
    """
    original = model.text.get("initial_context_length")
    factor = model.text.get("rope_scaling_factor") or p.resolved_factor()
    if not isinstance(original, int):
        raise NotKnown("Nobody examined what it makes of a config without initial_context_length.")
    found = replace(p, factor=float(factor), original_max_position_embeddings=original)
    return Used(found, get_mscale(found.resolved_factor()))


def _gemma3_with_images(model: Model, row: Row) -> Reading:
    """Nothing of the setting is read: every number is the runtime's own, by the count of layers.

    Reference: `convert/convert_gemma3.go`, `KV`; `model/models/gemma3/model_text.go`,
        `newTextModel` and `ropeValuesForLayer`.
    """
    layers, p = range(model.rope.num_hidden_layers), next(iter(model.rope.scopes.values()))
    windowed = tuple(i for i in layers if (i + 1) % 6)
    width, window = model.text.get("head_dim", 256), model.text.get("sliding_window", 0)
    served = model.config.get("max_position_embeddings") or row.entry["outer_length"]
    is_known = len(layers) in _GEMMA3_LAYERS and model.rope.windowed_layers == windowed
    if not is_known or not isinstance(served, int) or not isinstance(window, int):
        raise NotKnown(f"{row.release} was read for Gemma 3 of 4B, 12B and 27B as published.")
    if window >= served or p.parameters.head_dim != width:
        raise NotKnown(f"{row.release} was not read for these widths and windows of Gemma 3.")
    sizes = {"head_dim": width, "max_position_embeddings": p.parameters.max_position_embeddings}
    own = {
        "full_attention": RopeParameters(rope_type="linear", rope_theta=1e6, factor=8.0, **sizes),
        "sliding_attention": RopeParameters(rope_type="default", rope_theta=1e4, **sizes),
    }
    note = "reads no RoPE setting: θ 1e6 with a factor of 8 and θ 1e4 are its own"
    return Reading(
        {n: Used(own[n]) for n in model.rope.scopes}, served_length=served, notes=(note,)
    )


def _gemma4(model: Model, row: Row) -> dict[str, Used]:
    """Widths are read from the file only: without one the importer writes 0."""
    if not all(isinstance(model.text.get(key), int) for key in ("head_dim", "global_head_dim")):
        raise NotKnown(f"{row.release} was read for files that state head_dim and global_head_dim.")
    return proportional_by_layers(model)


def _mistral3(model: Model, row: Row) -> dict[str, Used]:
    """yarn with all of its keys in `rope_parameters`; no temperature where both mscales are set.

    Reference: `convert/convert_mistral_causal.go`, `KV`; `model/models/mistral3/model_text.go`,
        `applyRotaryPositionEmbeddings`.
    """
    (name, scope), block = *model.rope.scopes.items(), model.block("rope_parameters")
    p, stated = scope.parameters, [block.get(key) for key in (*_MISTRAL3, ORIGINAL)]
    if block.get("rope_type") != "yarn" or not all(isinstance(n, int | float) for n in stated):
        raise NotKnown(f"{row.release} was read for {row.model_type} with yarn and all its keys.")
    if not isinstance(block.get("llama_4_scaling_beta"), int | float):
        raise EngineCrash("The importer panics without llama_4_scaling_beta in rope_parameters.")
    theta = model.text.get("rope_theta") or block.get("rope_theta")
    if not isinstance(theta, int | float):
        raise EngineCrash("The importer writes θ 0 where there is no rope_theta.")
    read_as = replace(_yarn(p, block), rope_theta=float(theta), beta_fast=float(block["beta_fast"]),
                      beta_slow=float(block["beta_slow"]))  # fmt: skip
    has_pair = bool(block.get("mscale") and block.get("mscale_all_dim"))
    return {name: Used(read_as, 1.0 if has_pair else get_mscale(read_as.resolved_factor()))}


def _qwen3_5(model: Model, row: Row) -> dict[str, Used]:
    """Plain RoPE, whose θ and share of a head the importer insists on.

    Reference: `convert/convert_qwen3next.go`, `parseMore`; `model/models/qwen3next/model.go`.
    """
    (name, scope), block = *model.rope.scopes.items(), model.block("rope_parameters")
    row.word(scope.parameters.rope_type)
    for key in ("rope_theta", "partial_rotary_factor"):
        top, inner = model.text.get(key), block.get(key)
        if not (top or inner):
            raise LoaderError(f"The importer wants {key}: it is an error without it.")
        if top and inner and top != inner:
            raise NotKnown(f"{row.release} was not read for two different {key}.")
    if model.block("rope_scaling") or not block.get("mrope_section"):
        raise NotKnown(
            f"{row.release} was read for {row.model_type} with mrope_section in rope_parameters."
        )
    return {name: Used(scope.parameters)}


_GEMMA3_LAYERS = (34, 48, 62)
_MISTRAL3 = ("factor", "beta_fast", "beta_slow")
_READERS = {"deepseek": _deepseek, "gpt_oss": _gpt_oss}
# Readers of the whole config; the importer reads no `rope_scaling` for these.
_WHOLE = {"gemma4": _gemma4, "mistral3": _mistral3, "qwen3_5": _qwen3_5}


def launch(parts: Launch) -> str:
    """The import, with the window in the Modelfile."""
    text = f"FROM {parts.model.source}\\nPARAMETER num_ctx {parts.length}\\n"
    return f"printf {shlex.quote(text)} > Modelfile && ollama create my-model -f Modelfile"


ENGINE = Engine(
    id="ollama",
    name="Ollama (import of safetensors)",
    versions="importer of early 2026",
    read=read,
    launch=launch,
    about=(
        'Llama and Mixtral: only `type: "linear"` and `rope_type: "llama3"` are kept.',
        "Qwen 2: only `type` is read; yarn loses its original window and its temperature, and "
        "any other type fails.",
        "It has no importer for Mistral, Qwen 3 and most others: import a GGUF file made by "
        "llama.cpp instead, for which llama.cpp's verdict holds up to `context_length`, the most "
        "it serves.",
    ),
)
