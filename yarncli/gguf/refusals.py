"""What cannot be done to a GGUF file: each refusal is a sentence that says what to do instead."""

from __future__ import annotations

import math

from yarncli.errors import CheckpointError, UnsupportedArchitectureError
from yarncli.gguf.architectures import Architecture, find_architecture, load_table
from yarncli.gguf.facts import CONTEXT, LONG, SHORT, Gguf
from yarncli.gguf.runtime import Computed, run
from yarncli.rope.parameters import RopeParameters

# Beyond this a window does not fit its key.
_LONGEST = 2**32 - 1
# They use the tensor in some layers only, for a purpose of their own (`models/step35.cpp`).
_OWN_FREQS = ("step35", "gemma4", "gemma4-assistant")


def refuse_no_model(gguf: Gguf) -> Architecture:
    """Refuse a file that is no language model with RoPE that the runtime knows.

    Returns:
        The row of its architecture.

    Raises:
        CheckpointError: it is an adapter, a projector, a vocabulary, or a later part of a model.
        UnsupportedArchitectureError: the architecture is unknown, or does not rotate.
    """
    kind = gguf.keys.get("general.type")
    name = gguf.architecture
    if kind is not None and kind.value != "model":
        raise CheckpointError(
            f"general.type is {kind.value!r}: the file is no language model, so there is no "
            "context window to extend. Give the file of the model itself."
        )
    if not name:
        raise CheckpointError(
            "general.architecture is missing, so nothing says what model this is. Of a split "
            "model give the first file: only that has the keys."
        )
    row = find_architecture(name)
    if row is None:
        version = load_table()["version"]
        raise UnsupportedArchitectureError(
            f"llama.cpp {version} knows no architecture {name!r}, so nobody can say what it would "
            "compute."
        )
    if name == "clip":
        raise CheckpointError(
            "The architecture is clip: the file holds an image encoder, which has no context "
            "window. Give the file of the language model."
        )
    if row.rotates == "none":
        raise UnsupportedArchitectureError(
            f"llama.cpp's graph of {name} does not use RoPE, so there is nothing to scale."
        )
    splits = gguf.keys.get("split.count")
    if not gguf.tensors and (splits is None or splits.value < 2):
        raise CheckpointError(
            "The file has no tensors: it holds a vocabulary only. Give the file of the model."
        )
    return row


def refuse_file(
    gguf: Gguf, setting: RopeParameters, length: int, *, replaces: bool
) -> Architecture:
    """Refuse a file that cannot take a setting, whichever way it is written.

    Args:
        gguf: the file.
        setting: what it is to compute.
        length: the window it is to have, tokens.
        replaces: the scaling that the file has may go.

    Returns:
        The row of its architecture.

    Raises:
        CheckpointError: the file is no model, is scaled already, or is not of this setting's model.
        UnsupportedArchitectureError: the runtime cannot compute it.
    """
    row = refuse_no_model(gguf)
    sizes = gguf.sizes()
    if sizes is None:
        raise CheckpointError("The file does not say how wide an attention head is.")
    if sizes.rotary_dim != setting.rotary_dim:
        raise CheckpointError(
            f"The file rotates {sizes.rotary_dim} dimensions of a head and the setting "
            f"{setting.rotary_dim}: they are of two models."
        )
    if not 0 < length <= _LONGEST:
        raise CheckpointError(
            f"{gguf.name(CONTEXT)} holds at most {_LONGEST:,} tokens, not {length:,}."
        )
    if setting.rope_type == "dynamic":
        raise UnsupportedArchitectureError(
            "llama.cpp has no dynamic scaling: it aborts on that type. Use --method ntk, whose "
            "frequencies are those that dynamic has at the new length."
        )
    if row.full_nope and gguf.window:
        raise UnsupportedArchitectureError(
            f"Every layer of this {row.name} model that rotates attends only within "
            f"{gguf.window:,} tokens, and the others do not use RoPE: scaling it cannot lengthen "
            "the model."
        )
    if not replaces and is_scaled(gguf):
        raise CheckpointError(
            "The file has a RoPE scaling already. Extend that with --rescale, or drop it with "
            "--replace-scaling --original-length N."
        )
    return row


def is_scaled(gguf: Gguf) -> bool:
    """Whether keys or tensors of a file scale its RoPE, or would if the runtime loaded it."""
    found = run(gguf)
    if not isinstance(found, Computed) or found.rotation is None:
        return True
    has_lists = LONG in gguf.tensors or SHORT in gguf.tensors
    plain = found.rotation.rope_type in ("default", "proportional")
    return has_lists or not plain or not math.isclose(found.attention_factor, 1, rel_tol=1e-6)


def refuse_rope_freqs(gguf: Gguf, row: Architecture, setting: RopeParameters) -> None:
    """Refuse frequencies that only `rope_freqs.weight` can give, where it does not.

    Raises:
        UnsupportedArchitectureError: always says what is possible instead.
    """
    what = "A yarn setting with these options" if setting.rope_type == "yarn" else "A setting"
    needs = (
        f"{what} of type {setting.rope_type} needs the tensor rope_freqs.weight, which llama.cpp's "
        f"graph of {row.name}"
    )
    if row.rope_freqs != "used":
        does = "ignores" if row.rope_freqs else "refuses to load"
        flags = " Custom betas can be given to llama-server with --yarn-beta-fast and "
        flags += "--yarn-beta-slow; truncate: false cannot be had."
        hint = flags if setting.rope_type == "yarn" else ""
        raise UnsupportedArchitectureError(
            f"{needs} {does}. Use --method yarn with its default betas, linear or ntk.{hint}"
        )
    if row.name in _OWN_FREQS:
        raise UnsupportedArchitectureError(
            f"{needs} uses for its own purpose. Use --method yarn, linear or ntk."
        )
    if gguf.is_mrope:
        raise UnsupportedArchitectureError(
            f"{needs} was not examined with: this file has multimodal RoPE. Use --method yarn, "
            "linear or ntk."
        )


def refuse_temperature(gguf: Gguf, row: Architecture, wanted: float, natural: float) -> None:
    """Refuse an attention factor that the key `attn_factor` would give to more than it should.

    Args:
        gguf: the file.
        row: that of its architecture.
        wanted: the factor asked for.
        natural: what the runtime takes without the key.

    Raises:
        UnsupportedArchitectureError: the model has latent attention, or layers with a window.
    """
    asked = f"The attention factor {wanted:.5g} differs from {natural:.5g}, which llama.cpp takes"
    if row.mla or row.compress:
        raise UnsupportedArchitectureError(
            f"{asked}, and in {row.name}, which uses multi-head latent attention, its key changes "
            "the softmax scale too. Leave the factor at its default, or use --method ntk."
        )
    if gguf.window:
        raise UnsupportedArchitectureError(
            f"{asked}, and its key changes the layers that attend within {gguf.window:,} tokens "
            "too. Leave the factor at its default, or use --method ntk."
        )
