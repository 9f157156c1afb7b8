"""A GGUF file as the `RopeConfig` from which extensions are planned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from yarncli.config.families.family import Family
from yarncli.config.families.table import FAMILIES
from yarncli.config.reading import RopeConfig, Scope
from yarncli.config.windows import find_published, trained_window
from yarncli.errors import CheckpointError
from yarncli.gguf.architectures import Architecture
from yarncli.gguf.facts import CONTEXT, ORIGINAL, Gguf
from yarncli.gguf.loading import Failure
from yarncli.gguf.reading import GgufRope, read_gguf
from yarncli.gguf.refusals import refuse_no_model
from yarncli.rope.parameters import RopeParameters

# Model types that share an architecture: the one with models of these sizes and θ counts.
_LIKE = {"llama": ("llama", "mistral", "mixtral"), "qwen3moe": ("qwen3_moe",)}


def as_rope_config(gguf: Gguf, *, original_length: int | None = None) -> RopeConfig:
    """What a config of the same model would say about positions.

    Only what llama.cpp computes counts: the refusals of transformers are not those of a GGUF file.

    Args:
        gguf: the file.
        original_length: the window the model was trained with, tokens, if the caller knows better.

    Raises:
        CheckpointError: the file is no model, or llama.cpp does not rotate by it.
        UnsupportedArchitectureError: llama.cpp does not know the architecture, or it has no RoPE.
    """
    row = refuse_no_model(gguf)
    found = read_gguf(gguf)
    if isinstance(found, Failure):
        raise CheckpointError(f"llama.cpp does not rotate by this file: {found.because}.")
    if found.parameters is None:
        raise CheckpointError(
            "What llama.cpp computes from this file is no setting that could be extended: its "
            "frequencies are no positive numbers, or no formula has them with its attention factor."
        )
    values = {
        "hidden_size": gguf.get("embedding_length"),
        "num_hidden_layers": gguf.get("block_count"),
        "intermediate_size": gguf.get("feed_forward_length"),
    }
    family = _family(gguf, found, values)
    original, source = _original(gguf, found, family, values, original_length)
    count = int(gguf.get("block_count") or len(gguf.blocks))
    heads = _number(gguf.get("attention.head_count"))
    return RopeConfig(
        model_type=gguf.architecture,
        family=family,
        text_path=(),
        scopes={"model": _scope(gguf, row, found.parameters, count)},
        max_position_embeddings=found.window,
        length_key=gguf.name(CONTEXT),
        original_length=original,
        original_source=source,
        spelling_found="none",
        num_hidden_layers=count,
        num_attention_heads=heads,
        num_key_value_heads=_number(gguf.get("attention.head_count_kv", heads)),
        head_dim=found.head_dim,
        sliding_window=gguf.window,
        nope_layers=(),
        windowed_layers=tuple(sorted(gguf.windowed_blocks or ())),
        is_mla=row.mla or row.compress,
        mrope=gguf.is_mrope,
        # A file states the extended window under every type.
        maximum_is_window=True,
        notes=(),
        values=values,
    )


def _scope(gguf: Gguf, row: Architecture, parameters: RopeParameters, count: int) -> Scope:
    """The layers that rotate by the setting of the file."""
    windowed = gguf.windowed_blocks or set()
    own = windowed if row.sliding and not row.sliding.scaled else set()
    return Scope(
        name="model",
        parameters=parameters,
        layers=tuple(n for n in range(count) if n not in own),
        windowed=False,
        window=None if own else gguf.window,
        path=None,
    )


def _family(gguf: Gguf, found: GgufRope, values: dict[str, Any]) -> Family:
    own = gguf.architecture.replace("-", "_")
    names = [name for name in _LIKE.get(gguf.architecture, (own,)) if name in FAMILIES]
    families = [FAMILIES[name] for name in names] or [FAMILIES["llama"]]
    like = (f for f in families if find_published(f, found.rope_theta, values))
    return replace(next(like, families[0]), refuses={}, scopes=())


def _original(
    gguf: Gguf, found: GgufRope, family: Family, values: dict[str, Any], given: int | None
) -> tuple[int, str]:
    """The window that the model was trained with, tokens, and where that is known from."""
    if given is not None:
        return given, "--original-length"
    if found.original_length is not None and gguf.get(ORIGINAL):
        return found.original_length, gguf.name(ORIGINAL)
    known = trained_window(family, found.rope_theta, values, found.window)
    if known is not None:
        return known, f"known original of {family.model_type}"
    return found.window, gguf.name(CONTEXT)


def _number(value: Any) -> int:
    """A count that may be given for each layer: the largest."""
    return int(max(value)) if isinstance(value, list | tuple) else int(value or 0)
