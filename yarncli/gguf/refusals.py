"""Refusals of what cannot be done to a GGUF file. Each one says why, or what to do instead."""

from __future__ import annotations

import math

from yarncli.errors import CheckpointError, UnsupportedArchitectureError
from yarncli.gguf.architectures import Architecture, find_architecture, load_table
from yarncli.gguf.facts import CONTEXT, LONG, SHORT, Gguf
from yarncli.gguf.loading import Failure
from yarncli.gguf.runtime import Computed, run
from yarncli.rope.parameters import RopeParameters

# Tokens. The key of the window is a u32.
_LONGEST = 2**32 - 1
# These architectures use the tensor in some layers only, for their own purpose
# (`models/step35.cpp`).
_OWN_FREQS = ("step35", "gemma4", "gemma4-assistant")


def refuse_no_model(gguf: Gguf) -> Architecture:
    """Refuse a file that is not a language model with RoPE, or that llama.cpp does not know.

    Returns:
        The row of its architecture.

    Raises:
        CheckpointError: it is an adapter, a projector, a vocabulary, or a later part of a model.
        UnsupportedArchitectureError: the architecture is unknown, or does not use RoPE.
    """
    kind = gguf.keys.get("general.type")
    name = gguf.architecture
    if kind is not None and kind.value != "model":
        raise CheckpointError(
            f"general.type is {kind.value!r}: the file is not a language model, so it has no "
            "context window to extend. Give the file of the model itself."
        )
    if not name:
        raise CheckpointError(
            "general.architecture is missing, so the file does not say what model it is. If the "
            "model is split, give the first file: only that one has the keys."
        )
    row = find_architecture(name)
    if row is None:
        version = load_table()["version"]
        raise UnsupportedArchitectureError(
            f"llama.cpp {version} does not know the architecture {name!r}, so what it would "
            "compute is unknown."
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
    if row.fixed:
        raise UnsupportedArchitectureError(
            f"llama.cpp's graph of {name} rotates by θ 10000 without scaling, whatever the file "
            "says, so its context cannot be extended."
        )
    splits = gguf.keys.get("split.count")
    if not gguf.tensors and (splits is None or splits.value < 2):
        raise CheckpointError(
            "The file has no tensors: it holds only a vocabulary. Give the file of the model."
        )
    return row


def refuse_file(
    gguf: Gguf, setting: RopeParameters, length: int, *, replaces: bool
) -> Architecture:
    """Refuse a file that cannot have a setting, neither by keys nor by tensors.

    Args:
        gguf: the file.
        setting: the wanted setting.
        length: the wanted window, tokens.
        replaces: whether the scaling that the file has may be replaced.

    Returns:
        The row of its architecture.

    Raises:
        CheckpointError: the file is not a model, is already scaled, or belongs to another model.
        UnsupportedArchitectureError: the runtime cannot compute it.
    """
    row = refuse_no_model(gguf)
    sizes = gguf.sizes()
    if sizes is None:
        raise CheckpointError("The file does not say how wide an attention head is.")
    if sizes.rotary_dim != setting.rotary_dim:
        raise CheckpointError(
            f"The file rotates {sizes.rotary_dim} dimensions of a head, but the setting rotates "
            f"{setting.rotary_dim}: they belong to different models."
        )
    if not 0 < length <= _LONGEST:
        raise CheckpointError(
            f"{gguf.name(CONTEXT)} can state at most {_LONGEST:,} tokens, not {length:,}."
        )
    if setting.rope_type == "dynamic":
        raise UnsupportedArchitectureError(
            "llama.cpp has no dynamic scaling: it aborts on that type. Use --method ntk: it has "
            "the same frequencies as dynamic at the new length."
        )
    if row.full_nope and gguf.window:
        raise UnsupportedArchitectureError(
            f"Every layer of this {row.name} model that rotates attends only within "
            f"{gguf.window:,} tokens, and the other layers do not use RoPE, so scaling RoPE "
            "cannot extend the context of the model."
        )
    found = run(gguf)
    if isinstance(found, Failure):
        refuse_failure(found, replaces=replaces)
    elif not replaces and is_scaled(gguf, found):
        raise CheckpointError(
            "The file already has a RoPE scaling. Extend it with --rescale, or replace it with "
            "--replace-scaling --original-length N."
        )
    return row


def refuse_failure(failure: Failure, *, replaces: bool) -> None:
    """Refuse a file that llama.cpp does not run with RoPE, unless the faulty scaling is replaced.

    Args:
        failure: why llama.cpp does not.
        replaces: whether the scaling that the file has may be replaced.

    Raises:
        CheckpointError: the file has to be repaired first.
    """
    if failure.kind == "no RoPE" or failure.fault == "other":
        raise CheckpointError(f"llama.cpp does not rotate by this file: {failure.because}.")
    if not replaces:
        raise CheckpointError(
            f"llama.cpp does not run this file as it is: {failure.because}. Replace its scaling "
            "with --replace-scaling --original-length N."
        )


def is_scaled(gguf: Gguf, found: Computed) -> bool:
    """Whether keys or tensors of a file scale its RoPE.

    Args:
        gguf: the file.
        found: what llama.cpp computes from it.
    """
    if found.rotation is None:
        return True
    has_lists = LONG in gguf.tensors or SHORT in gguf.tensors
    plain = found.rotation.rope_type in ("default", "proportional")
    return has_lists or not plain or not math.isclose(found.attention_factor, 1, rel_tol=1e-6)


def refuse_rope_freqs(gguf: Gguf, row: Architecture, setting: RopeParameters) -> None:
    """Refuse a setting that needs `rope_freqs.weight` if llama.cpp does not use that tensor.

    Raises:
        UnsupportedArchitectureError: llama.cpp does not use it; the message names other methods.
    """
    what = "A yarn setting with these options" if setting.rope_type == "yarn" else "A setting"
    needs = (
        f"{what} of type {setting.rope_type} needs the tensor rope_freqs.weight, which llama.cpp's "
        f"graph of {row.name}"
    )
    if row.rope_freqs != "used":
        does = "ignores" if row.rope_freqs else "refuses to load"
        flags = " Custom betas can be given to llama-server with --yarn-beta-fast and "
        flags += "--yarn-beta-slow; there is no option for truncate: false."
        hint = flags if setting.rope_type == "yarn" else ""
        raise UnsupportedArchitectureError(
            f"{needs} {does}. Use --method yarn with its default betas, linear or ntk.{hint}"
        )
    if row.name in _OWN_FREQS:
        raise UnsupportedArchitectureError(
            f"{needs} uses for another purpose. Use --method yarn, linear or ntk."
        )
    if gguf.is_mrope:
        raise UnsupportedArchitectureError(
            f"{needs} uses in a way that was not examined for multimodal RoPE, which this file "
            "has. Use --method yarn, linear or ntk."
        )


def refuse_temperature(gguf: Gguf, row: Architecture, wanted: float, natural: float) -> None:
    """Refuse an attention factor if the key `attn_factor` would change more than that factor.

    Args:
        gguf: the file.
        row: the row of its architecture.
        wanted: the factor asked for.
        natural: the factor that llama.cpp uses without the key.

    Raises:
        UnsupportedArchitectureError: the model has latent attention, or layers with a window.
    """
    asked = f"The attention factor {wanted:.5g} differs from {natural:.5g}, which llama.cpp uses"
    if row.mla or row.compress:
        raise UnsupportedArchitectureError(
            f"{asked}. {row.name} has multi-head latent attention, where the key for the factor "
            "also changes the softmax scale. Leave the factor at its default, or use --method ntk."
        )
    if gguf.window:
        raise UnsupportedArchitectureError(
            f"{asked}. The key for the factor also changes the layers that attend within "
            f"{gguf.window:,} tokens. Leave the factor at its default, or use --method ntk."
        )
