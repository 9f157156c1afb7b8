"""What a card says about the model itself: its family, its sizes, and the memory for a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from yarncli.checkpoint.formats import read_cache_format, read_format
from yarncli.checkpoint.memory import sequence_bytes, stated_dtype
from yarncli.checkpoint.source import Checkpoint
from yarncli.config.reading import RopeConfig, read_rope
from yarncli.config.weight_format import WeightFormat
from yarncli.errors import CheckpointError, UsageError
from yarncli.history import History
from yarncli.inspection.description import Weights, read_weights
from yarncli.planning.plan import window_of
from yarncli.progress import format_bytes
from yarncli.publishing.markdown import code, listed, plain

# Name of a dtype in safetensors → its name in torch, which configs use and readers know.
_DTYPES = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
_WRITERS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that a card is about, as its files describe it."""

    architecture: str
    """The first of the config's `architectures`; empty if it names none."""
    writes: bool
    """Whether the model generates text, judged by that name."""
    model_type: str
    """Model type that the config states; empty if it states none."""
    rope: RopeConfig | None
    """What the config says about positions; None for an unknown model type."""
    length: int
    """Context window, tokens; 0 if it is not known."""
    weights: Weights | None
    """What the headers of the weights say; None if there are none or one cannot be read."""
    format: WeightFormat
    """How the weights are stored."""
    cache_bytes: int
    """Size of the KV cache of one sequence of `length` tokens; 0 if it is not known."""
    cache_dtype: str
    """Dtype of the KV cache."""
    is_chat: bool
    """Whether there is a chat template."""
    has_processor: bool
    """Whether the model has a processor in addition to the tokenizer."""
    has_code: bool
    """Whether the checkpoint contains code that `trust_remote_code` runs."""


def read_subject(
    checkpoint: Checkpoint, history: History, rest: Checkpoint | None = None
) -> Subject:
    """Describe the model of a checkpoint.

    Args:
        checkpoint: the checkpoint that the card describes.
        history: the steps that led to it.
        rest: the checkpoint with the weights and other files that this one lacks; None for itself.

    Raises:
        CheckpointError: a JSON file cannot be read.
    """
    config = checkpoint.config().value
    places = [place for place in (checkpoint, rest) if place is not None]
    names = {file.name for place in places for file in place.files}
    tokenizer = next(filter(None, (p.optional_json("tokenizer_config.json") for p in places)), None)
    stored, rope = read_format(places[-1]), None
    length, cache, dtype, kept = 0, 0, "bfloat16", read_cache_format(checkpoint)
    # The model type is unknown, or is read as another type and has no window. `check` reports it.
    with suppress(CheckpointError, UsageError):
        rope = read_rope(config, assume_like=history.assume_like, own_code=True)
        length = history.plan.length if history.plan else window_of(history.informed(rope))
        cache = sequence_bytes(config, rope, length, kept)
        dtype = stated_dtype(config, rope) or dtype
    weights = None
    with suppress(CheckpointError):  # not fetched or damaged; `check` reports it
        weights = read_weights(places[-1], config, stored)
    architecture = _architecture(config)
    return Subject(
        architecture=architecture,
        writes=not architecture or architecture.endswith(_WRITERS),
        model_type=str(config.get("model_type") or ""),
        rope=rope,
        length=length,
        weights=weights,
        format=stored,
        cache_bytes=cache,
        cache_dtype=kept or dtype,
        is_chat=any(name.startswith("chat_template.") for name in names)
        or (tokenizer is not None and bool(tokenizer.value.get("chat_template"))),
        has_processor=bool(names & {"processor_config.json", "preprocessor_config.json"}),
        has_code=bool(config.get("auto_map")),
    )


def overview(subject: Subject, original_length: int) -> Iterator[str]:
    """The model as a list of facts, as in cards of published models.

    Args:
        subject: the model.
        original_length: the window before the extension, tokens; 0 where none is recorded.
    """
    rope, weights = subject.rope, subject.weights
    named = [f"`{subject.architecture}`"] if subject.architecture.isidentifier() else []
    if subject.model_type:
        named.append(f"model type {code(subject.model_type)}")
    if rope and rope.assume_like:
        named.append(f"assumed to be like {rope.assume_like}")
    if named:
        yield f"- Architecture: {', '.join(named)}"
    if weights:
        yield f"- Parameters: {_parameters(weights, subject.format)}"
    if rope:
        yield f"- Layers: {rope.stored_layers}"
    if subject.length:
        before = f"; {original_length:,} before the extension" if original_length else ""
        yield f"- Context length: {subject.length:,} tokens{before}"
    if subject.cache_bytes:
        size = f"{format_bytes(subject.cache_bytes)} in {plain(subject.cache_dtype)}"
        text = f"one sequence of {subject.length:,} tokens"
        yield f"- KV cache of {text}: {size}, in addition to the weights"


def _parameters(weights: Weights, stored: WeightFormat) -> str:
    """Number of parameters, their format, and the size of the files, as the headers state them."""
    count = weights.unpacked
    number = "not known" if count is None else in_words(count)
    # The dtype of packed numbers is that of their container, so the format is named instead.
    dtypes = [_DTYPES.get(name, plain(name)) for name in weights.parameters]
    how = f"in {plain(stored.name)} format" if stored.id else f"in {listed(dtypes)}"
    return f"{number} {how} ({format_bytes(weights.nbytes)})"


def in_words(count: float) -> str:
    """A number of parameters in words.

    Example:
        >>> in_words(8_190_735_360)
        '8.19 billion'
    """
    if count < 1e6:
        return f"{count:,.0f}"
    for unit in ("million", "billion"):
        count /= 1000 if unit == "billion" else 1e6
        if count < 999.5:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:.3g} trillion"


def _architecture(config: Mapping[str, Any]) -> str:
    classes = config.get("architectures")
    return str(classes[0]) if isinstance(classes, list) and classes else ""


def task_of(config: Mapping[str, Any]) -> str | None:
    """The Hub's name for the task of a model; None if its class does not tell."""
    architecture = _architecture(config)
    if architecture.endswith("ForCausalLM"):
        return "text-generation"
    sees = "vision_config" in config and "audio_config" not in config
    if architecture.endswith("ForConditionalGeneration") and sees:
        return "image-text-to-text"
    return None
