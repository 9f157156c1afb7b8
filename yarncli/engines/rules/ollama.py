"""Ollama's own import of safetensors checkpoints; a GGUF file is the other way in."""

from __future__ import annotations

import shlex
from dataclasses import replace

from yarncli.engines.loaders import is_v5_only, legacy
from yarncli.engines.shared import IGNORES_ROPE_PARAMETERS
from yarncli.engines.types import Engine, EngineCrash, Launch, Model, NotKnown, Reading, Used
from yarncli.rope.formulas import default_inv_freq
from yarncli.rope.parameters import RopeParameters

_LLAMA = frozenset({"llama", "mistral", "mixtral"})
_QWEN = frozenset({"qwen2", "qwen3", "qwen3_moe"})


def read(model: Model) -> Reading:
    """What the importer keeps and the engine then computes.

    Raises:
        LoaderError: the config cannot be read.
        EngineCrash: the importer fails.
        NotKnown: there is no rule for its model type.
    """
    notes = [IGNORES_ROPE_PARAMETERS] if is_v5_only(model) else []
    block = model.block("rope_scaling")
    scopes = {
        name: _used(model, p, block.get("type"), block.get("rope_type"), notes)
        for name, p in legacy(model).items()
    }
    served = model.rope.max_position_embeddings
    return Reading(scopes, served_length=served, notes=tuple(dict.fromkeys(notes)))


def _used(model: Model, p: RopeParameters, old: object, new: object, notes: list[str]) -> Used:
    if p.rope_type == "default":
        return Used(p)
    kind = model.rope.model_type
    if kind in _LLAMA and (old == "linear" or new == "llama3"):
        return Used(p)
    if kind in _QWEN and old == "yarn":
        notes.append("the original window is lost: all frequencies but the first are divided")
        return Used(_without_original(p))  # its temperature cancels the kernel's
    if kind in _QWEN and old is not None:
        raise EngineCrash(f"The importer panics on type {old!r}.")
    if kind not in _LLAMA | _QWEN:
        raise NotKnown(
            f"yarncli has no rule for what its importer makes of {p.rope_type} in {kind}; import a "
            "GGUF file instead."
        )
    notes.append(f"the importer drops {p.rope_type} for {kind}; import a GGUF file instead")
    return Used(replace(p, rope_type="default"))


def _without_original(p: RopeParameters) -> RopeParameters:
    """The ramp of ggml for an original window of 0: only the first pair is kept.

    Reference: `ggml_rope_yarn_corr_dims`, whose lower end is then 0 and upper end minus infinity.
    """
    pairs = len(default_inv_freq(p.rope_theta, p.rotary_dim))
    factors = (1.0, *([p.resolved_factor()] * (pairs - 1)))
    return replace(p, rope_type="longrope", short_factor=factors, long_factor=factors)


def launch(parts: Launch) -> str:
    """The import, with the window in the Modelfile."""
    text = f"FROM {parts.model.source}\\nPARAMETER num_ctx {parts.length}\\n"
    return f"printf {shlex.quote(text)} > Modelfile && ollama create my-model -f Modelfile"


ENGINE = Engine(
    id="ollama",
    name="Ollama (import of safetensors)",
    versions="August 2026",
    read=read,
    launch=launch,
    about=(
        'Llama: only `type: "linear"` and `rope_type: "llama3"` survive.',
        "Qwen 2 and 3: only `type` is read; yarn loses its original window and runs without a "
        "temperature, any other type fails.",
        "Import a GGUF file made by llama.cpp instead.",
    ),
)
