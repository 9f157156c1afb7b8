"""Load a checkpoint for evaluation: model, tokenizer and device, always in the same way."""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from yarncli.checkpoint.files import read_file
from yarncli.checkpoint.source import MAX_JSON_SIZE
from yarncli.errors import CheckpointError, MissingExtraError, UsageError
from yarncli.evaluation.settings import DEVICES, DTYPE_ALIASES, LoadSettings
from yarncli.evaluation.trust import refuse_remote_code
from yarncli.hub.failures import config_error
from yarncli.jsontext.text import JsonText
from yarncli.options import choose

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


# What transformers raises about a damaged or foreign checkpoint.
# Files that hold the words of a tokenizer.
_VOCABULARY = re.compile(
    r"tokenizer\.json|tekken\.json|vocab\.(?:json|txt)|.*\.(?:model|tiktoken|spm|bpe)"
)
_REFUSALS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    ImportError,
    RuntimeError,
    SafetensorError,
    config_error(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that is ready for prompts."""

    model: Any
    """The model of transformers."""
    device: torch.device
    """The device of its inputs."""
    dtype: torch.dtype
    """Dtype of its weights."""
    unused: tuple[str, ...] = ()
    """Names of tensors in the checkpoint that the model does not use."""

    def require_finite(self, logits: torch.Tensor, length: int) -> None:
        """Refuse logits, of a prompt of `length` tokens, that say nothing.

        Raises:
            CheckpointError: they are not finite.
        """
        if not bool(torch.isfinite(logits).all()):
            raise CheckpointError(
                f"The model's logits are not finite (NaN or infinite) with a prompt of {length} "
                f"tokens in {self.dtype}. Try --dtype float32 or bfloat16."
            )


def choose_device(wanted: str) -> torch.device:
    """The device to run on; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UsageError: the device does not exist here.
    """
    if wanted.casefold() == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted.casefold())
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch's own list names devices that no build of it has.
        reason, expected, _ = str(error).splitlines()[0].partition("Expected one of")
        if expected:
            reason = f"there is no such device. Known: {', '.join(DEVICES)}, and cuda:1."
        raise UsageError(f"--device {wanted} cannot be used here: {reason}") from error
    return device


def choose_dtype(wanted: str, device: torch.device, config: Mapping[str, Any]) -> torch.dtype:
    """The dtype of the weights while evaluating.

    Raises:
        UsageError: an unknown name.
    """
    wanted = choose(wanted, ("auto", *DTYPES), "dtype", aliases=DTYPE_ALIASES)
    if wanted == "auto":
        text = config.get("text_config")
        nested = text if isinstance(text, dict) else {}
        named = [d.get(key) for d in (config, nested) for key in ("dtype", "torch_dtype")]
        name = next((n for n in named if isinstance(n, str)), "float32")
        # Half precision is slow on most CPUs and rounds what is being measured.
        return torch.float32 if device.type == "cpu" else DTYPES.get(name, torch.bfloat16)
    return DTYPES[wanted]


def load_tokenizer(directory: Path, *, trust_remote_code: bool = False) -> Any:
    """The checkpoint's tokenizer.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    refuse_remote_code(directory, "tokenizer_config.json", trust_remote_code)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                directory, trust_remote_code=trust_remote_code, local_files_only=True
            )
    except _REFUSALS as error:
        if not any(_VOCABULARY.fullmatch(path.name) for path in directory.iterdir()):
            raise _no_tokenizer(directory) from error
        raise CheckpointError(
            f"The tokenizer in {directory} cannot be loaded: {_first_line(error)} "
            "Put tokenizer.json beside config.json, or give another with --tokenizer."
        ) from error
    # Without its files transformers makes some tokenizers that know no word.
    tokens = tokenizer.encode("The grass is green.", add_special_tokens=False)
    if not set(tokens) - {tokenizer.unk_token_id}:
        raise _no_tokenizer(directory)
    # Longer prompts than the old window are the point; no warning about them.
    tokenizer.model_max_length = 10**30
    return tokenizer


def _no_tokenizer(directory: Path) -> CheckpointError:
    return CheckpointError(
        f"{directory} has no usable tokenizer. Put tokenizer.json, or the tokenizer files of its "
        "model type, beside config.json, or give another tokenizer with --tokenizer."
    )


def load_model(
    directory: Path, settings: LoadSettings, *, config: Mapping[str, Any] | None = None
) -> LoadedModel:
    """Load the language model of a checkpoint directory, in evaluation mode.

    A multimodal model is loaded whole and asked with text alone.

    Args:
        directory: holds config.json and the weights.
        settings: where and how.
        config: the content of config.json to use instead of the file's, to try a RoPE setting
            without writing it.

    Raises:
        CheckpointError: it needs remote code that is not trusted, or cannot be loaded.
        UsageError: a device or dtype that does not exist.
    """
    from transformers import AutoConfig

    refuse_remote_code(directory, "config.json", settings.trust_remote_code)
    raw = dict(config) if config is not None else read_config(directory)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device, raw)
    several = settings.device in ("auto", "cuda") and torch.cuda.device_count() > 1
    shared: dict[str, Any] = {
        "trust_remote_code": settings.trust_remote_code,
        "local_files_only": True,
    }
    arguments: dict[str, Any] = {"dtype": dtype, **shared}
    if settings.attn_implementation is not None:
        arguments["attn_implementation"] = settings.attn_implementation
    if several:
        arguments["device_map"] = "auto"
    with quiet(), loading_errors(directory), config_directory(directory, config) as read_from:
        loaded_config = AutoConfig.from_pretrained(read_from, **shared)
        model, fit = _auto_class(loaded_config).from_pretrained(
            directory,
            config=loaded_config,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
            **arguments,
        )
    _require_all_weights(directory, fit)
    if settings.adapter is not None:
        model = _with_adapter(model, settings.adapter)
    if not several:
        model = model.to(device)
    neutralise_generation(model)
    unused = tuple(sorted(fit["unexpected_keys"]))
    return LoadedModel(
        model=model.eval(), device=model.device if several else device, dtype=dtype, unused=unused
    )


def _auto_class(config: Any) -> Any:
    """The auto class of transformers that generates text with a model of this config."""
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    # With code of its own, the checkpoint says itself what its causal class is.
    own = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    causal = own or type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    sees = not causal and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


def _require_all_weights(directory: Path, fit: Mapping[str, Any]) -> None:
    """Refuse a model of which a part would be random.

    Args:
        directory: the checkpoint.
        fit: the loading info of transformers.

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    for name, stored, wanted in sorted(fit["mismatched_keys"]):
        raise CheckpointError(
            f"{directory} has {name} of shape {list(stored)} but its config.json needs "
            f"{list(wanted)}. Use the config.json that belongs to these weights."
        )
    missing = sorted(fit["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{directory} lacks {len(missing)} tensors of its model, such as {missing[0]}, which "
            "would be random. Its shards or its config.json belong to another model."
        )


@contextmanager
def loading_errors(what: object) -> Iterator[None]:
    """Turn an error of transformers into one sentence.

    Raises:
        CheckpointError: always, but for memory that ran out.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except _REFUSALS as error:
        raise CheckpointError(f"{what} cannot be loaded: {_first_line(error)}") from error


def _with_adapter(model: Any, adapter: str) -> Any:
    """The model with a PEFT adapter merged into its weights.

    Raises:
        MissingExtraError: peft is not installed.
        CheckpointError: there is no adapter, or it is for another model.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtraError(
            "--adapter needs peft, which is not installed. Install it with: pip install peft"
        ) from error
    with quiet(), loading_errors(adapter):
        return PeftModel.from_pretrained(model, adapter).merge_and_unload()


def neutralise_generation(model: Any) -> None:
    """Drop every decoding default of the checkpoint except which tokens end a text.

    Sampling, penalties, forced and suppressed tokens would all change the verdicts.
    """
    from transformers import GenerationConfig

    old = model.generation_config
    ends = old.eos_token_id
    pad = old.pad_token_id
    if pad is None:
        pad = ends[0] if isinstance(ends, list) and ends else ends
    model.generation_config = GenerationConfig(
        bos_token_id=old.bos_token_id, eos_token_id=ends, pad_token_id=pad, do_sample=False
    )


@contextmanager
def config_directory(directory: Path, config: Mapping[str, Any] | None) -> Iterator[Path]:
    """Where transformers reads the config: through its own reader, as a converted copy would be."""
    if config is None:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="yarncli-") as temporary:
        for module in directory.glob("*.py"):  # run only with trust_remote_code
            (Path(temporary) / module.name).write_bytes(read_file(module, MAX_JSON_SIZE))
        (Path(temporary) / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
        yield Path(temporary)


def read_config(directory: Path) -> dict[str, Any]:
    """config.json as plain data.

    Raises:
        CheckpointError: it cannot be read.
    """
    return _read(directory / "config.json")


def _read(path: Path) -> dict[str, Any]:
    return JsonText.parse(read_file(path, MAX_JSON_SIZE), str(path)).value


def _first_line(error: BaseException) -> str:
    """What the error says, in one line; some say only in the second what is wrong."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    text = " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
    return text.rstrip(".") + "."


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars, notes and warnings; errors still raise."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
