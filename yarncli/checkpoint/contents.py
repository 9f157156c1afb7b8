"""What a directory or repository without `config.json` is, by the names of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

# The first of these that a file name speaks of: the name, what it says, what to do.
_SIGNS: tuple[tuple[str, str, str], ...] = (
    (
        r"model_index\.json",
        "a diffusion pipeline",
        "RoPE scaling is for causal language models; one of its parts may be one: name its folder.",
    ),
    (
        r"adapter_config\.json",
        "an adapter (PEFT)",
        "Its model is named there as base_model_name_or_path: name that one.",
    ),
    (r"[^/]*\.gguf", "a GGUF model", "Name the file: its path, or hf://org/name/file.gguf."),
    (
        r"(?:consolidated[^/]*|params\.json)",
        "a checkpoint in its publisher's own format",
        "yarncli reads Hugging Face checkpoints: convert it first.",
    ),
    (
        r"[^/]*\.nemo|[^/]*\.ckpt|[^/]*\.pth?",
        "a checkpoint of a training framework",
        "yarncli reads Hugging Face checkpoints: export it first.",
    ),
    (r"[^/]*\.onnx", "an ONNX model", "yarncli reads Hugging Face checkpoints."),
    (
        r"open_clip_config\.json",
        "an image and text encoder (OpenCLIP)",
        "RoPE scaling is for causal language models.",
    ),
    (
        r"(?:.*/)?[^/]*\.(?:parquet|arrow|jsonl|csv)|dataset_infos?\.json|dataset_dict\.json",
        "a data set",
        "It has no model.",
    ),
    (
        r"(?:tokenizer|tokenizer_config|vocab)\.json|tokenizer\.model|[^/]*\.tiktoken",
        "a tokenizer alone",
        "It has no model: config.json belongs beside it.",
    ),
    (
        r"[^/]*\.safetensors(?:\.index\.json)?|pytorch_model[^/]*\.bin",
        "weights alone",
        "config.json belongs beside them: fetch it from where they come from.",
    ),
)


# Files that users give where a checkpoint is meant.
_FILES = {
    ".gguf": "a GGUF file, which this command does not take",
    ".bin": "a file of weights; name its directory",
    ".pt": "a file of weights; name its directory",
    ".pth": "a file of weights; name its directory",
    ".safetensors": "a file of weights; name its directory",
    ".onnx": "an ONNX model; yarncli reads Hugging Face checkpoints",
}


def describe_file(name: str) -> str:
    """What a file is that cannot be a `config.json`, by its name; empty where it may be one."""
    return next((what for end, what in _FILES.items() if name.endswith(end)), "")


def describe_without_config(names: Iterable[str]) -> str:
    """What it seems to be, and what to do, in sentences to follow "it has no config.json"; or "".

    Args:
        names: of its files, below its top.
    """
    found = list(names)
    for pattern, what, advice in _SIGNS:
        sign = next((name for name in found if re.fullmatch(pattern, name)), None)
        if sign is not None:
            return f" It looks like {what} ({sign[:80]}). {advice}"
    inner = sorted(name for name in found if re.fullmatch(r"[^/]+/config\.json", name))
    if inner:
        return f" There is one in {inner[0]}: name that folder."
    return "" if found else " It is empty."
