"""GGUF files for tests, written by gguf-py: the demo model, and small random ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

from yarncli.baking.blocks import block_scaler, row_bytes
from yarncli.demo import write_demo
from yarncli.gguf.carriers import TemperaturePlan
from yarncli.gguf.facts import Gguf, Tensor, Typed

_ADDERS = {
    "u32": "add_uint32", "i32": "add_int32", "u64": "add_uint64", "f32": "add_float32",
    "f64": "add_float64", "str": "add_string", "bool": "add_bool", "arr": "add_array",
}  # fmt: skip
_NAMES = {
    "UINT32": "u32", "INT32": "i32", "UINT64": "u64", "FLOAT32": "f32", "FLOAT64": "f64",
    "STRING": "str", "BOOL": "bool", "ARRAY": "arr",
}  # fmt: skip

_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}

Arrays = dict[str, np.ndarray]


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as the converter of Llama orders them: pairs of neighbours rotate."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def demo_keys() -> dict[str, Typed]:
    """The keys of the demo as a file of the architecture llama."""
    sizes = {
        "block_count": 3, "context_length": 256, "embedding_length": 128,
        "feed_forward_length": 336, "attention.head_count": 4, "attention.head_count_kv": 4,
        "attention.key_length": 32, "attention.value_length": 32, "vocab_size": 512,
        "rope.dimension_count": 32,
    }  # fmt: skip
    numbers = {"rope.freq_base": 10000.0, "attention.layer_norm_rms_epsilon": 1e-5}
    return {
        "general.architecture": Typed("str", "llama"),
        "general.type": Typed("str", "model"),
        "tokenizer.ggml.model": Typed("str", "no_vocab"),
        **{f"llama.{key}": Typed("u32", number) for key, number in sizes.items()},
        **{f"llama.{key}": Typed("f32", number) for key, number in numbers.items()},
    }


def demo_arrays(folder: Path) -> Arrays:
    """The tensors of the demo in single precision, under GGUF's names.

    Args:
        folder: where the demo checkpoint is, or is to be written.
    """
    source = folder if folder.is_dir() else write_demo(folder)
    found = {}
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for name, array in load_file(source / "model.safetensors").items():
        match = re.fullmatch(r"model\.layers\.(\d+)\.(.*)\.weight", name)
        part = parts[match[2]] if match else ""
        stored = f"blk.{match[1]}.{part}.weight" if match else _OUTER[name]
        values = array.astype(np.float32)
        found[stored] = permuted(values, 4) if part in ("attn_q", "attn_k") else values
    return found


def random_file(
    architecture: str,
    *,
    heads: int = 4,
    kv_heads: int = 2,
    biases: bool = False,
    k_norm: bool = False,
    width: int = 256,
    seed: int = 0,
) -> tuple[dict[str, Typed], Arrays]:
    """Keys and tensors of a small random model with sharp attention, three layers deep."""
    rng = np.random.default_rng(seed)
    head, inner, words = width // heads, 256, 512
    sizes = {
        "block_count": 3, "context_length": 256, "embedding_length": width,
        "feed_forward_length": inner, "attention.head_count": heads,
        "attention.head_count_kv": kv_heads, "vocab_size": words, "rope.dimension_count": head,
    }  # fmt: skip
    keys = demo_keys()
    keys = {k: v for k, v in keys.items() if not k.startswith("llama.")} | {
        "general.architecture": Typed("str", architecture),
        **{f"{architecture}.{key}": Typed("u32", number) for key, number in sizes.items()},
        f"{architecture}.rope.freq_base": Typed("f32", 10000.0),
        f"{architecture}.attention.layer_norm_rms_epsilon": Typed("f32", 1e-5),
    }

    def normal(*shape: int, scale: float = 0.05) -> np.ndarray:
        return rng.normal(0, scale, shape).astype(np.float32)

    arrays = {"token_embd.weight": normal(words, width, scale=1.0),
              "output_norm.weight": np.ones(width, np.float32),
              "output.weight": normal(words, width, scale=0.2)}  # fmt: skip
    for i in range(3):
        block = {
            "attn_norm.weight": np.ones(width, np.float32),
            "ffn_norm.weight": np.ones(width, np.float32),
            "attn_q.weight": normal(width, width, scale=0.15),
            "attn_k.weight": normal(kv_heads * head, width, scale=0.15),
            "attn_v.weight": normal(kv_heads * head, width),
            "attn_output.weight": normal(width, width),
            "ffn_gate.weight": normal(inner, width), "ffn_up.weight": normal(inner, width),
            "ffn_down.weight": normal(width, inner),
        }  # fmt: skip
        if biases:
            block |= {"attn_q.bias": normal(width, scale=1.0),
                      "attn_k.bias": normal(kv_heads * head, scale=1.0),
                      "attn_v.bias": normal(kv_heads * head)}  # fmt: skip
        if k_norm:
            block |= {f"attn_{x}_norm.weight": 1.5 + normal(head, scale=0.3) for x in "qk"}
        arrays |= {f"blk.{i}.{name}": array for name, array in block.items()}
    return keys, arrays


def write_gguf(
    path: Path,
    keys: Mapping[str, Typed],
    arrays: Arrays,
    types: Mapping[str, str] | None = None,
    blocks: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a file with gguf-py.

    Args:
        path: where.
        keys: full name → value with its type.
        arrays: name → numbers, in single precision.
        types: name of a tensor → the ggml type to store it as, where that is not F32.
        blocks: name of a quantised tensor → its bytes, where they are not those of its numbers.
    """
    writer = gguf.GGUFWriter(path, str(keys["general.architecture"].value))
    for name, value in keys.items():
        if name != "general.architecture":
            getattr(writer, _ADDERS[value.type])(name, value.value)
    for name, array in arrays.items():
        kind = gguf.GGMLQuantizationType[(types or {}).get(name, "F32")]
        data = array if kind.name == "F32" else gguf.quantize(array, kind)
        if name in (blocks or {}):
            data = np.frombuffer((blocks or {})[name], np.uint8).reshape(data.shape)
        writer.add_tensor(name, data, raw_dtype=None if kind.name in ("F32", "F16") else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def with_temperature(
    arrays: Arrays, plan: TemperaturePlan, types: Mapping[str, str]
) -> tuple[Arrays, dict[str, bytes]]:
    """The tensors with a plan carried out, those that are quantised as bytes of their blocks."""
    made = {**arrays, **{k: np.array(v, np.float32) for k, v in plan.tensors.items()}}
    patched = {}
    for name, change in plan.scaled.items():
        kind, array = types.get(name, "F32"), arrays[name]
        if kind == "F32":
            made[name] = array.copy()
            for start, stop in change.rows or ((0, len(array)),):
                made[name][start:stop] *= change.factor
            continue
        data = gguf.quantize(array, gguf.GGMLQuantizationType[kind]).tobytes()
        width = row_bytes(kind, array.shape[1], name)
        pieces = bytearray(data)
        for start, stop in change.rows or ((0, len(array)),):
            place = slice(start * width, stop * width)
            pieces[place] = block_scaler(kind, change.factor, name)(data[place])
        patched[name] = bytes(pieces)
    return made, patched


def read_gguf(path: Path) -> Gguf:
    """What gguf-py reads from a file, with the numbers of the tensors of frequency factors."""
    reader = gguf.GGUFReader(path)
    keys = {
        name: Typed(_NAMES[field.types[0].name], field.contents())
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    tensors = {}
    for tensor in reader.tensors:
        is_factors = tensor.name.startswith("rope_") and tensor.tensor_type.name == "F32"
        values = tuple(tensor.data.tolist()) if is_factors else None
        shape = tuple(int(n) for n in tensor.shape)
        tensors[tensor.name] = Tensor(tensor.tensor_type.name, shape, values)
    return Gguf(keys, tensors)
