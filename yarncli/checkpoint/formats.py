"""The format of a checkpoint's weights, and how many parameters they are when unpacked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from yarncli.checkpoint.safetensors import Header, TensorInfo
from yarncli.checkpoint.source import Checkpoint
from yarncli.config.quantisation import MODELOPT_FILE
from yarncli.config.weight_format import WeightFormat, stated_cache, stated_format

# The format of weights that are the only ones in a directory, by the ends of their names.
_FILES = (
    (("gguf",), WeightFormat("gguf", "GGUF")),
    (("bin", "pt", "pth", "pkl", "ckpt"), WeightFormat("pickle", "pickled")),
)
_CONSOLIDATED = WeightFormat("consolidated", "consolidated (the publisher's own names)")


def read_format(checkpoint: Checkpoint) -> WeightFormat:
    """The format of the weights: as the config states it, or as the files are.

    Raises:
        CheckpointError: a config file cannot be read.
        HubError: it cannot be fetched.
    """
    stated = stated_format(*_stating(checkpoint))
    files = _format_of_files(checkpoint)
    if files is None or not stated.id:
        return files or stated
    # The combination of the two formats was not examined.
    return WeightFormat(f"{files.id}+{stated.id}", f"{stated.name} in {files.name} files")


def read_cache_format(checkpoint: Checkpoint) -> str | None:
    """The format of the KV cache that the checkpoint asks for. Raises as `read_format`."""
    return stated_cache(*_stating(checkpoint))


def _stating(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Config, its text part, and ModelOpt's own file."""
    config = checkpoint.config().value
    inner = config.get("text_config")
    beside = checkpoint.optional_json(MODELOPT_FILE)
    return config, inner if isinstance(inner, dict) else {}, beside.value if beside else None


def _format_of_files(checkpoint: Checkpoint) -> WeightFormat | None:
    """What the weights are, where they are no safetensors with the names of transformers."""
    top = [f.name for f in checkpoint.files if "/" not in f.name and f.kind in _WEIGHTS]
    names = [name for name in top if not name.startswith("adapter_")]
    if any(name.endswith(".safetensors") for name in names):
        own = all(name.startswith("consolidated") for name in names if name.endswith("safetensors"))
        return _CONSOLIDATED if own else None
    if any(name.startswith("consolidated") for name in names):
        return _CONSOLIDATED
    for ends, found in _FILES:
        if any(name.rpartition(".")[2] in ends for name in names):
            return found
    return None


_WEIGHTS = ("shard", "weights")


# Parameters


# Methods whose packing is known here.
_KNOWN = frozenset(
    "auto-round awq bitsandbytes compressed-tensors exl3 fbgemm_fp8 fp8 gptq mlx mlx-bare modelopt "
    "mxfp4 mxfp8 nvfp4".split()
)
# What they store beside the weights, by the last part of its name.
_BESIDE = frozenset(
    "absmax quant_map nested_absmax nested_quant_map SCB weight_format bitsandbytes__nf4 "
    "bitsandbytes__fp4 scale scales biases qzeros g_idx weight_scale weight_scale_inv "
    "weight_scale_2 weight_global_scale weight_zero_point weight_shape weight_g_idx input_scale "
    "input_zero_point input_global_scale k_scale v_scale suh svh su sv mcg mul1".split()
)
_STORED = ("weight", "qweight", "weight_packed", "trellis")


def count_parameters(
    headers: Iterable[Header], config: Mapping[str, Any], weights: WeightFormat
) -> int | None:
    """Number of parameters: packed ones count as unpacked; scales and the like do not count.

    Args:
        headers: of its shards.
        config: the JSON object of `config.json`.
        weights: their format.

    Returns:
        The number; `None` for a format whose packing is not known here.
    """
    tensors = {name: info for header in headers for name, info in header.tensors.items()}
    if not weights.id:
        return sum(info.parameters for info in tensors.values())
    if weights.method.partition("+")[0] not in _KNOWN:
        return None
    return sum(_unpacked(info, tensors, config) for info in tensors.values())


def _unpacked(
    info: TensorInfo, tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]
) -> int:
    owner, _, last = info.name.rpartition(".")
    base = owner.removesuffix(".quant_state").removesuffix(".weight")
    if last in _BESIDE and any(f"{base}.{stored}" in tensors for stored in _STORED):
        return 0
    experts, _, part = last.rpartition("_")  # MXFP4 of gpt-oss: two numbers in a byte
    if experts and part == "scales" and f"{owner}.{experts}_blocks" in tensors:
        return 0
    if last == "trellis" and len(info.shape) == 3:  # EXL3: tiles of 16 × 16
        return info.shape[0] * info.shape[1] * 256
    four = info.dtype == "U8" or (info.dtype == "I8" and f"{owner}.scale" in tensors)
    if (experts and part == "blocks") or (four and last in _STORED):
        return 2 * info.parameters
    if last in _STORED and info.dtype in ("I32", "U32"):
        return round(info.parameters * 32 / _bits(config, owner))
    return info.parameters


def _bits(config: Mapping[str, Any], module: str) -> float:
    """Bits of one packed number of a module; 4 where nothing states it, as most have."""
    for key in ("quantization", "quantization_config"):
        whole = config.get(key)
        inner = config.get("text_config")
        if not isinstance(whole, dict) and isinstance(inner, dict):
            whole = inner.get(key)
        if not isinstance(whole, dict):
            continue
        groups = whole.get("config_groups")
        first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
        named = first.get("weights") if isinstance(first, dict) else None
        for found in (whole.get(module), named, whole):
            bits = found.get("bits", found.get("num_bits")) if isinstance(found, dict) else None
            if isinstance(bits, (int, float)) and 1 <= bits <= 32:
                return bits
    return 4
