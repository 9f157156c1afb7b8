"""GGUF files made, and read, by gguf-py: the other implementation of the format."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import gguf
import numpy as np

QUANTISED = {
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_K": gguf.GGMLQuantizationType.Q4_K,
    "Q6_K": gguf.GGMLQuantizationType.Q6_K,
    "IQ4_XS": gguf.GGMLQuantizationType.IQ4_XS,
}


def write_gguf(
    path: Path,
    *,
    tokens: int = 40,
    rows: int = 64,
    alignment: int | None = None,
    keys: dict[str, Any] | None = None,
    rope_freqs: bool = False,
    split: int = 0,
) -> Path:
    """A file with tensors of many types; returns its path, of a split one that of the first."""
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=split)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_name("Tést")
    writer.add_block_count(1)
    writer.add_context_length(2048)
    writer.add_embedding_length(256)
    writer.add_head_count(4)
    writer.add_rope_freq_base(10000.0)
    for name, value in (keys or {}).items():
        kind = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}
        getattr(writer, f"add_{kind[type(value)]}")(name, value)
    writer.add_token_list([f"token {n}" for n in range(tokens)])
    writer.add_token_scores([float(n) for n in range(tokens)])
    writer.add_token_merges([f"t{n} o" for n in range(tokens * 2)])
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    random = np.random.default_rng(0)
    if rope_freqs:
        writer.add_tensor("rope_freqs.weight", np.linspace(1, 8, 32, dtype=np.float32))
    for name, kind in QUANTISED.items():
        nbytes = gguf.quant_shape_to_byte_shape((rows, 256), kind)
        data = random.integers(0, 256, nbytes, dtype=np.uint8)
        writer.add_tensor(f"blk.0.{name.lower()}.weight", data, raw_dtype=kind)
    writer.add_tensor("token_embd.weight", random.normal(size=(rows, 256)).astype(np.float16))
    writer.add_tensor("output_norm.weight", random.normal(size=(5,)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if not split:
        return path
    return next(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))


def tensors_of(path: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Name → type, shape and checksum of the data, as gguf-py reads them."""
    return {
        tensor.name: (
            tensor.tensor_type.name,
            tuple(int(size) for size in tensor.shape),
            sha256(np.ascontiguousarray(tensor.data)).hexdigest(),
        )
        for tensor in gguf.GGUFReader(path).tensors
    }


def keys_of(path: Path) -> dict[str, tuple[str, Any]]:
    """Key → type and value, as gguf-py reads them; without the counts and the version."""
    fields = gguf.GGUFReader(path).fields
    return {
        name: (field.types[0].name, field.contents())
        for name, field in fields.items()
        if not name.startswith("GGUF.")
    }


def floats_of(path: Path, name: str) -> list[float]:
    """The data of a tensor of 32-bit numbers."""
    found = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == name)
    return found.data.tolist()
