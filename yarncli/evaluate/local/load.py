"""Load a checkpoint for evaluation: model, tokenizer, device, with nothing left to chance."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from yarncli.errors import CheckpointError, UsageError
from yarncli.evaluate.passkey import LoadSettings

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to be asked, and the device its inputs go to."""

    model: Any
    device: torch.device
    dtype: torch.dtype


def choose_device(wanted: str) -> torch.device:
    """The device to run on; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UsageError: the device does not exist here.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {wanted} cannot be used here: {reason}") from error
    return device


def choose_dtype(wanted: str, device: torch.device, config: Mapping[str, Any]) -> torch.dtype:
    """The dtype of the weights while evaluating.

    Raises:
        UsageError: an unknown name.
    """
    if wanted == "auto":
        text = config.get("text_config")
        nested = text if isinstance(text, dict) else {}
        named = [d.get(key) for d in (config, nested) for key in ("dtype", "torch_dtype")]
        name = next((n for n in named if isinstance(n, str)), "float32")
        # Half precision is slow on most CPUs and rounds what is being measured.
        return torch.float32 if device.type == "cpu" else DTYPES.get(name, torch.bfloat16)
    if wanted not in DTYPES:
        raise UsageError(f"--dtype must be auto, {', '.join(DTYPES)}, not {wanted!r}.")
    return DTYPES[wanted]


def load_tokenizer(directory: Path, *, trust_remote_code: bool = False) -> Any:
    """The checkpoint's tokenizer.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    _refuse_remote_code(directory, "tokenizer_config.json", trust_remote_code)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                directory, trust_remote_code=trust_remote_code, local_files_only=True
            )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise CheckpointError(
            f"The tokenizer in {directory} cannot be loaded: {_first_line(error)} "
            "Put tokenizer.json beside config.json, or name another with --tokenizer."
        ) from error
    # Longer prompts than the old window are the point; no warning about them.
    tokenizer.model_max_length = 10**30
    return tokenizer


def load_model(
    directory: Path, settings: LoadSettings, *, config: Mapping[str, Any] | None = None
) -> LoadedModel:
    """Load the causal language model of a checkpoint directory, in evaluation mode.

    Args:
        directory: holds config.json and the weights.
        settings: where and how.
        config: the content of config.json to use instead of the file's, to try a RoPE setting
            without writing it.

    Raises:
        CheckpointError: it needs remote code that is not trusted, or cannot be loaded.
        UsageError: a device or dtype that does not exist.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    _refuse_remote_code(directory, "config.json", settings.trust_remote_code)
    raw = dict(config) if config is not None else read_config(directory)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device, raw)
    several = settings.device in ("auto", "cuda") and torch.cuda.device_count() > 1
    arguments: dict[str, Any] = {
        "dtype": dtype,
        "trust_remote_code": settings.trust_remote_code,
        "local_files_only": True,
    }
    if settings.attn_implementation is not None:
        arguments["attn_implementation"] = settings.attn_implementation
    if several:
        arguments["device_map"] = "auto"
    try:
        with quiet(), _config_directory(directory, config) as config_directory:
            loaded_config = AutoConfig.from_pretrained(
                config_directory,
                trust_remote_code=settings.trust_remote_code,
                local_files_only=True,
            )
            model = AutoModelForCausalLM.from_pretrained(
                directory, config=loaded_config, **arguments
            )
            if settings.adapter is not None:
                model = _with_adapter(model, settings.adapter)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        ImportError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise CheckpointError(f"{directory} cannot be loaded: {_first_line(error)}") from error
    if not several:
        model = model.to(device)
    _neutralise_generation(model)
    return LoadedModel(model.eval(), model.device if several else device, dtype)


def _with_adapter(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UsageError("--adapter needs peft. Install it with: pip install peft") from error
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


def _neutralise_generation(model: Any) -> None:
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


def _refuse_remote_code(directory: Path, name: str, trusted: bool) -> None:
    if trusted or not (directory / name).is_file():
        return
    if _read(directory / name).get("auto_map"):
        raise CheckpointError(
            f"{directory} brings its own Python code ({name}: auto_map), which yarncli does not "
            "run by default. Read that code, then pass --trust-remote-code."
        )


@contextmanager
def _config_directory(directory: Path, config: Mapping[str, Any] | None) -> Iterator[Path]:
    """Where transformers reads the config: through its own reader, as a converted copy would be."""
    if config is None:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="yarncli-") as temporary:
        for module in directory.glob("*.py"):
            (Path(temporary) / module.name).write_bytes(module.read_bytes())
        (Path(temporary) / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
        yield Path(temporary)


def read_config(directory: Path) -> dict[str, Any]:
    """config.json as plain data.

    Raises:
        CheckpointError: it cannot be read.
    """
    return _read(directory / "config.json")


def _read(path: Path) -> dict[str, Any]:
    from yarncli.jsontext import JsonText

    try:
        return JsonText.parse(path.read_bytes(), str(path)).value
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."


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
