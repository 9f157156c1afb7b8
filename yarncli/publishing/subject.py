"""What a card tells of the model itself: its family, sizes, and the memory that a text takes."""

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

# Names of safetensors → of torch, which configs and readers use.
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
    """The first of the config's `architectures`; empty where it names none."""
    writes: bool
    """Whether it is made to write text, as far as that name tells."""
    model_type: str
    """As the config states it; empty where it does not."""
    rope: RopeConfig | None
    """What the config says about positions; None where nobody knows how it is read."""
    length: int
    """The window, tokens; 0 where it is not known."""
    weights: Weights | None
    """What the headers say; None without weights, or where one cannot be read."""
    format: WeightFormat
    """How the weights are stored."""
    cache_bytes: int
    """What the KV cache of one sequence of `length` tokens takes; 0 where it is not known."""
    cache_dtype: str
    """In which numbers."""
    is_chat: bool
    """Whether there is a chat template."""
    has_processor: bool
    """Whether a processor prepares its input, beside the tokenizer."""
    has_code: bool
    """Whether code comes with the checkpoint that `trust_remote_code` runs."""


def read_subject(
    checkpoint: Checkpoint, history: History, rest: Checkpoint | None = None
) -> Subject:
    """The model of a checkpoint.

    Args:
        checkpoint: the one that the card is about.
        history: the steps that led to it.
        rest: where its weights are, and the other files that it lacks; None for itself.

    Raises:
        CheckpointError: a JSON file cannot be read.
    """
    config = checkpoint.config().value
    places = [place for place in (checkpoint, rest) if place is not None]
    names = {file.name for place in places for file in place.files}
    tokenizer = next(filter(None, (p.optional_json("tokenizer_config.json") for p in places)), None)
    stored, rope = read_format(places[-1]), None
    length, cache, dtype, kept = 0, 0, "bfloat16", read_cache_format(checkpoint)
    # A model type that is not known, or read as another without a window; `check` has said so.
    with suppress(CheckpointError, UsageError):
        rope = read_rope(config, assume_like=history.assume_like, own_code=True)
        length = history.plan.length if history.plan else window_of(history.informed(rope))
        cache = sequence_bytes(config, rope, length, kept)
        dtype = stated_dtype(config, rope) or dtype
    weights = None
    with suppress(CheckpointError):  # not fetched, or damaged; `check` says which
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
    """The model in a list, as cards of published models have it.

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
        yield f"- KV cache of one sequence of {subject.length:,} tokens: {size}, beside the weights"


def _parameters(weights: Weights, stored: WeightFormat) -> str:
    """How many, in what, and how large the files are; only what the headers prove."""
    count = weights.unpacked
    number = "not known" if count is None else in_words(count)
    # Packed numbers have the dtype of their container.
    dtypes = [_DTYPES.get(name, plain(name)) for name in weights.parameters]
    how = f"in {plain(stored.name)} format" if stored.id else f"in {listed(dtypes)}"
    return f"{number} {how} ({format_bytes(weights.nbytes)})"


def in_words(count: float) -> str:
    """A number of parameters as people say it: `8.19 billion`."""
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
    """The Hub's name for what a model does; None where its class does not tell."""
    architecture = _architecture(config)
    if architecture.endswith("ForCausalLM"):
        return "text-generation"
    sees = "vision_config" in config and "audio_config" not in config
    if architecture.endswith("ForConditionalGeneration") and sees:
        return "image-text-to-text"
    return None
