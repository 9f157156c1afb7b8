"""What a directory or repository without `config.json` is, by the names of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

# The first row that matches a file name counts: pattern, what the folder is, what to do.
_SIGNS: tuple[tuple[str, str, str], ...] = (
    (
        r"model_index\.json",
        "a diffusion pipeline",
        "RoPE scaling is for causal language models; one of its parts may be one: name its folder.",
    ),
    (
        r"adapter_config\.json",
        "an adapter (PEFT)",
        "That file names its base model (base_model_name_or_path). Give the base model instead.",
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
        "a dataset",
        "It has no model.",
    ),
    (
        r"app\.py|streamlit_app\.py",
        "a Space",
        "It is a program: name the model that it loads.",
    ),
    (
        r"(?:tokenizer|tokenizer_config|vocab)\.json|tokenizer\.model|[^/]*\.tiktoken",
        "a tokenizer alone",
        "It has no model: config.json belongs beside it.",
    ),
    (
        r"[^/]*\.safetensors(?:\.index\.json)?|pytorch_model[^/]*\.bin|weights[^/]*\.npz",
        "weights alone",
        "config.json belongs beside them: fetch it from where they come from.",
    ),
)


# Files that users give where a checkpoint is meant, by the end of their names.
_WEIGHTS = "a file of weights; name its directory"
_DATASET = "a dataset, which has no model"
_ARCHIVE = "an archive; unpack it and name its directory"
_FILES = {
    ".gguf": "a GGUF file, which this command does not take; name the checkpoint it was made from",
    **dict.fromkeys(
        (".safetensors", ".bin", ".pt", ".pth", ".npz", ".ckpt", ".h5", ".msgpack", ".pkl"),
        _WEIGHTS,
    ),
    **dict.fromkeys((".parquet", ".arrow", ".jsonl", ".csv", ".tsv"), _DATASET),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".xz", ".zst", ".7z"), _ARCHIVE),
    **dict.fromkeys((".md", ".txt", ".jinja"), "a text; name the directory of the checkpoint"),
    **dict.fromkeys((".py", ".ipynb"), "a program; name the directory of the checkpoint"),
    ".onnx": "an ONNX model; yarncli reads Hugging Face checkpoints",
    ".nemo": "a checkpoint of a training framework; export it as a Hugging Face checkpoint first",
    ".model": "a tokenizer; name the directory of the checkpoint",
    ".tiktoken": "a tokenizer; name the directory of the checkpoint",
}
# The same by their first bytes, whatever they are called.
_BEGINNINGS = (
    (rb"GGUF", _FILES[".gguf"]),
    (rb"PK\x03\x04", "an archive, or weights that torch saved; name its directory"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", _ARCHIVE),
    (rb"PAR1|ARROW1", _DATASET),
    (rb"\x80[\x02-\x05]|\x89HDF", _WEIGHTS),
    (rb"[\s\S]{4}[\x00-\x05]\x00{3}\{", _WEIGHTS),  # safetensors: a length, then JSON
)


def describe_file(name: str, beginning: bytes = b"") -> str:
    """What a file is that cannot be a `config.json`; empty where it may be one.

    Args:
        name: of the file.
        beginning: its first bytes, at least 16; empty to tell by the name alone.
    """
    found = next((what for end, what in _FILES.items() if name.lower().endswith(end)), "")
    return found or next((what for sign, what in _BEGINNINGS if re.match(sign, beginning)), "")


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
