"""A GGUF file as the `RopeConfig` from which extensions are planned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from yarncli.config.families.family import Family
from yarncli.config.families.table import FAMILIES
from yarncli.config.reading import RopeConfig, Scope
from yarncli.config.windows import find_published, trained_window
from yarncli.errors import CheckpointError, UnsupportedArchitectureError
from yarncli.gguf.architectures import Architecture
from yarncli.gguf.facts import CONTEXT, ORIGINAL, Gguf
from yarncli.gguf.loading import Failure
from yarncli.gguf.reading import GgufRope, read_gguf
from yarncli.gguf.refusals import refuse_failure, refuse_no_model

# Architecture → model types that use it. The one that has published models of these sizes and this
# θ is taken.
_LIKE = {"llama": ("llama", "mistral", "mixtral"), "qwen3moe": ("qwen3_moe",)}


def as_rope_config(
    gguf: Gguf, *, original_length: int | None = None, replaces: bool = False
) -> RopeConfig:
    """The `RopeConfig` that a config.json of the same model would give.

    Only llama.cpp runs the file, so what transformers refuses is allowed here.

    Args:
        gguf: the file.
        original_length: the window that the model was trained with, tokens; None reads the file.
        replaces: whether the scaling of the file may be replaced; then it may be faulty.

    Raises:
        CheckpointError: the file is not a model, or llama.cpp does not run it with RoPE.
        UnsupportedArchitectureError: llama.cpp does not know the architecture, or it has no RoPE.
    """
    row = refuse_no_model(gguf)
    found = _read(gguf, replaces=replaces)
    values = {
        "hidden_size": gguf.get("embedding_length"),
        "num_hidden_layers": gguf.get("block_count"),
        "intermediate_size": gguf.get("feed_forward_length"),
    }
    family = _family(gguf, found, values)
    original, source = _original(gguf, found, family, values, original_length)
    heads = _number(gguf.get("attention.head_count"))
    return RopeConfig(
        model_type=gguf.architecture,
        family=family,
        text_path=(),
        scopes={"model": _scope(gguf, row, found)},
        max_position_embeddings=found.window,
        length_key=gguf.name(CONTEXT),
        original_length=original,
        original_source=source,
        spelling_found="none",
        num_hidden_layers=_count(gguf),
        num_attention_heads=heads,
        num_key_value_heads=_number(gguf.get("attention.head_count_kv", heads)),
        head_dim=found.head_dim,
        sliding_window=gguf.window,
        nope_layers=(),
        windowed_layers=tuple(sorted(gguf.windowed_blocks or ())),
        is_mla=row.mla or row.compress,
        mrope=gguf.is_mrope,
        # A GGUF file states the extended window with every scaling type.
        maximum_is_window=True,
        notes=(),
        values=values,
    )


def _read(gguf: Gguf, *, replaces: bool) -> GgufRope:
    """What llama.cpp computes; without the scaling if that is faulty and may be replaced."""
    found = read_gguf(gguf)
    if isinstance(found, Failure):
        refuse_failure(found, replaces=replaces)
    if replaces and (isinstance(found, Failure) or found.parameters is None):
        found = read_gguf(gguf.unscaled())
    if isinstance(found, Failure):
        raise CheckpointError(f"llama.cpp does not rotate by this file: {found.because}.")
    if found.parameters is None:
        raise CheckpointError(
            "What llama.cpp computes from this file cannot be extended: its frequencies are not "
            "positive numbers, or no known formula gives them with this attention factor."
        )
    return found


def _scope(gguf: Gguf, row: Architecture, found: GgufRope) -> Scope:
    """The layers that are scaled, including those with a window if they share the setting."""
    assert found.parameters is not None  # _read has checked it
    is_apart = row.sliding is not None and not row.sliding.scaled
    apart = gguf.windowed_blocks or () if is_apart else ()
    layers = tuple(n for n in range(_count(gguf)) if n not in apart)
    if not layers:
        raise UnsupportedArchitectureError(
            f"Every layer of this {row.name} file attends only within {gguf.window:,} tokens, "
            "so scaling RoPE cannot extend its context."
        )
    return Scope(
        name="model",
        parameters=found.parameters,
        layers=layers,
        windowed=False,
        window=None if apart else gguf.window,
        path=None,
    )


def _count(gguf: Gguf) -> int:
    return int(gguf.get("block_count") or len(gguf.blocks))


def _family(gguf: Gguf, found: GgufRope, values: dict[str, Any]) -> Family:
    own = gguf.architecture.replace("-", "_")
    names = [name for name in _LIKE.get(gguf.architecture, (own,)) if name in FAMILIES]
    families = [FAMILIES[name] for name in names] or [FAMILIES["llama"]]
    like = (f for f in families if find_published(f, found.rope_theta, values))
    return replace(next(like, families[0]), refuses={}, scopes=())


def _original(
    gguf: Gguf, found: GgufRope, family: Family, values: dict[str, Any], given: int | None
) -> tuple[int, str]:
    """The window that the model was trained with, tokens, and the source of that number."""
    if given is not None:
        return given, "--original-length"
    if found.original_length is not None and gguf.get(ORIGINAL):
        return found.original_length, gguf.name(ORIGINAL)
    known = trained_window(family, found.rope_theta, values, found.window)
    if known is not None:
        return known, f"known original of {family.model_type}"
    return found.window, gguf.name(CONTEXT)


def _number(value: Any) -> int:
    """A count; if the key is a list with one count per layer, the largest."""
    return int(max(value)) if isinstance(value, list | tuple) else int(value or 0)
