"""Check a layout on a twin: a tiny random model of the same kind, baked and compared.

The twin has the config of the checkpoint (flags, layer types, RoPE block) with smaller sizes, so
transformers runs the same code as for the large model.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from yarncli.baking.deciding import Baking, decide_bake
from yarncli.baking.shrink import DROPPED, shrink
from yarncli.baking.writing import write_copy
from yarncli.checkpoint.memory import available_memory
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckFailed, CheckpointError, UnsupportedArchitectureError

TOLERANCE = 1e-4  # relative to the largest logit; exact bakes reach 1e-6
_BYTES = 4  # bytes of a parameter in float32
# Code that comes with a checkpoint is never run, and nothing is fetched.
_OURS: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
_ROOM = 1.25  # room for activations, logits and temporary copies of the loader
_MOST_PARAMETERS = 250_000_000
_SHOWS = 3e-4  # if the factor changes the logits by less, the check proves nothing

_QUERY_OR_KEY = ("q_", "k_", "qkv", "query", "wq", "wkv", "kv_", "input_linear")
# What transformers and torch raise for a config that they cannot build or run.
_BUILD_ERRORS = (
    ValueError, TypeError, KeyError, AttributeError, IndexError,
    RuntimeError, ImportError, NotImplementedError, AssertionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TwinCheck:
    """Largest relative difference of logits, median over sequences."""

    unbaked: float
    """Unbaked weights with the baked config: what leaving the factor out would change."""
    baked: float
    """Baked weights with the baked config: what the bake changes."""


def check_layout(baking: Baking) -> TwinCheck:
    """Bake a tiny random twin with the same options, and compare logits before and after.

    Raises:
        UnsupportedArchitectureError: transformers cannot build or run such a twin, or the factor
            hardly changes its logits, so the check would prove nothing.
        CheckFailed: the baked twin computes something else, so the layout is wrong.
    """
    config = baking.unbaked.value
    with quiet(), tempfile.TemporaryDirectory(prefix="yarncli-twin-") as scratch:
        source = Path(scratch, "source")
        try:
            save_random(shrink(expanded(config)), source, rope_of=shrink(config))
            result = _compare(source, Path(scratch), baking)
        except _BUILD_ERRORS as error:
            raise UnsupportedArchitectureError(
                f"The layout cannot be checked: transformers {transformers.__version__} does not "
                f"run a small {baking.model_type} model ({type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else ''})."
            ) from error
    if result.unbaked < _SHOWS:
        raise UnsupportedArchitectureError(
            "The layout cannot be checked: a small random model of this kind hardly depends on the "
            f"attention factor (logits change by {result.unbaked:.1e})."
        )
    if not result.baked <= TOLERANCE:
        raise CheckFailed(
            f"The layout {baking.baked.layout!r} is wrong for {baking.model_type}: "
            f"baking with it changes the logits of a small random model by {result.baked:.1e}, and "
            f"rounding explains at most {TOLERANCE:g}. Nothing was written."
        )
    return result


def _compare(source: Path, scratch: Path, baking: Baking) -> TwinCheck:
    # The side depends on tensors (key biases, cache scales) that the twin may not have.
    settings = replace(baking.settings, side=baking.baked.side)
    out = scratch / "baked"
    write_copy(decide_bake(open_checkpoint(str(source)), settings), out)
    before = logits(source)
    after = logits(out)
    (source / "config.json").write_bytes((out / "config.json").read_bytes())
    return TwinCheck(difference(before, logits(source)), difference(before, after))


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Median over sequences of the largest difference relative to the largest logit.

    A median, because a correct bake can still flip one routing choice by rounding.
    """
    each = [float((x - y).abs().max() / x.abs().max()) for x, y in zip(a, b, strict=True)]
    return sorted(each)[len(each) // 2]


def logits(directory: Path, *, sequences: int = 3, length: int = 96) -> torch.Tensor:
    """Logits of a saved checkpoint on fixed random tokens, float32: (sequences, length, vocab)."""
    config = transformers.AutoConfig.from_pretrained(directory, **_OURS)
    model = _auto(config).from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", **_OURS
    )
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(3, 60, (sequences, length), generator=generator)
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=tokens, use_cache=False).logits
    return found


def expanded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every default that transformers fills in."""
    kept = {key: value for key, value in config.items() if key not in DROPPED}
    found: dict[str, Any] = transformers.AutoConfig.for_model(**kept).to_dict()
    return found


def save_random(
    config: Mapping[str, Any],
    directory: Path,
    *,
    rope_of: Mapping[str, Any] | None = None,
) -> None:
    """Build a model from a config and save it, with random values in every kind of parameter.

    Args:
        config: the config of the model.
        directory: where to save it.
        rope_of: the config to copy RoPE blocks from, because transformers would write them in its
            own spelling.
    """
    made = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):  # sizes with names that `shrink` does not know may be large
        shape = _auto(made).from_config(made, attn_implementation="eager")
    count = sum(parameter.numel() for parameter in shape.parameters())
    if count > _MOST_PARAMETERS:
        raise ValueError(f"it has {count:,} parameters even with small sizes")
    torch.manual_seed(0)
    model = _auto(made).from_config(made, attn_implementation="eager", dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("temp"):
                parameter.add_(4.0)
            elif parameter.ndim == 1 or name.endswith("bias") or "norm" in name.split(".")[-2]:
                parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.5 + 0.1)
            elif "embed" not in name and "lm_head" not in name:
                # Sharp attention, so that the attention factor changes the logits.
                parameter.mul_(4.0 if any(part in name for part in _QUERY_OR_KEY) else 1.5)
    model.save_pretrained(directory)
    _keep_rope(directory / "config.json", rope_of or config)


def _keep_rope(path: Path, config: Mapping[str, Any]) -> None:
    saved = json.loads(path.read_text())

    def restore(target: dict[str, Any], source: Mapping[str, Any]) -> None:
        for key in ("rope_scaling", "rope_parameters"):
            target.pop(key, None)
            if key in source:
                target[key] = source[key]
        for key, value in source.items():
            inner = target.get(key)
            nested = key.endswith("_config") and key != "per_layer_config"
            if nested and isinstance(value, Mapping) and isinstance(inner, dict):
                restore(inner, value)

    restore(saved, config)
    path.write_text(json.dumps(saved, indent=2))


def _auto(config: Any) -> Any:
    for auto in (transformers.AutoModelForImageTextToText, transformers.AutoModelForCausalLM):
        if type(config) in auto._model_mapping:
            return auto
    raise ValueError(f"transformers has no language model for {config.model_type}")


@contextmanager
def quiet() -> Iterator[None]:
    """Switch off progress bars and warnings of transformers in the block."""
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    if bars:
        transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


@dataclass(frozen=True, slots=True)
class LogitsCheck:
    """How far two checkpoints differ over the last half of a text."""

    difference: float
    """The largest difference of logits, relative to the largest logit."""
    same_choice: float
    """The share of positions at which both rank the same token first."""
    positions: int
    """Number of compared positions."""


def compare_logits(source: Path, baked: Path, text: str, parameters: int) -> LogitsCheck:
    """Run both checkpoints on `text` with transformers; remote code is never run.

    Args:
        source: the unbaked checkpoint.
        baked: the baked checkpoint.
        text: the text to read; only the second half of its positions counts.
        parameters: the number of parameters of the model.

    Raises:
        CheckpointError: there is not enough memory or no tokenizer, or the text has fewer than 2
            tokens.
    """
    needed, free = int(parameters * _BYTES * _ROOM), available_memory()
    if free is not None and needed > free:
        raise CheckpointError(
            f"--verify-logits needs {needed / 1e9:.1f} GB of memory for this model, and "
            f"{free / 1e9:.1f} GB are free. Use --verify, which checks a small model instead."
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **_OURS)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source} has no tokenizer that transformers can load.") from error
    tokens = tokenizer(text, return_tensors="pt").input_ids
    if tokens.shape[1] < 2:
        raise CheckpointError("--verify-logits needs a text of at least 2 tokens.")
    start = tokens.shape[1] // 2
    with quiet():
        one, other = (_text_logits(path, tokens)[start:] for path in (source, baked))
    same = (one.argmax(-1) == other.argmax(-1)).float().mean()
    largest = (one - other).abs().max() / one.abs().max()
    return LogitsCheck(float(largest), float(same), len(one))


def _text_logits(directory: Path, tokens: torch.Tensor) -> Any:
    config = transformers.AutoConfig.from_pretrained(directory, **_OURS)
    model = _auto(config).from_pretrained(directory, dtype=torch.float32, **_OURS)
    with torch.no_grad():
        return model.eval()(input_ids=tokens, use_cache=False).logits[0]
