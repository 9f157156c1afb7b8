"""Tiny models of the architectures of llama.cpp, grown by llama.cpp itself.

    PYTHONPATH=tests:. python -m support.gguf_grown FOLDER      names on stdin, a line each

A file is loaded, the library says which key or tensor it lacks or which shape a tensor must have,
and that is added, until it loads. Only what no error tells is written here: sizes that fit
together, and tensors that a file may leave out but a graph cannot. `tests/gguf/grown.json` holds
what has grown; `scripts/wiring/llama_cpp_runs.py` writes it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from support import llamacpp
from support.gguf_files import Arrays, write_gguf
from yarncli.gguf.architectures import find_architecture
from yarncli.gguf.facts import Typed

GROWN = Path(__file__).parents[1] / "gguf" / "grown.json"
WIDTH, HEADS, KV_HEADS, HEAD = 64, 4, 2, 16

_COMMON: dict[str, Any] = {
    "vocab_size": 64, "context_length": 256, "embedding_length": WIDTH, "block_count": 3,
    "feed_forward_length": 64, "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
    "rope.dimension_count": HEAD, "rope.freq_base": 123.0,
    "attention.layer_norm_epsilon": 1e-5, "attention.layer_norm_rms_epsilon": 1e-5,
    "logit_scale": 1.0, "use_parallel_residual": False,
}  # fmt: skip
_EXPERTS: dict[str, Any] = {
    "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32,
    "expert_shared_count": 1, "expert_shared_feed_forward_length": 32, "expert_weights_scale": 1.0,
    "leading_dense_block_count": 1, "expert_gating_func": 2, "interleave_moe_layer_step": 1,
}  # fmt: skip
_LATENT: dict[str, Any] = {
    **_EXPERTS, "attention.q_lora_rank": 32, "attention.kv_lora_rank": 32,
    "attention.key_length": 48, "attention.value_length": 32, "attention.key_length_mla": 32,
    "attention.value_length_mla": 16, "attention.head_count_kv": 1,
}  # fmt: skip
_INDEXER: dict[str, Any] = {
    "attention.indexer.head_count": 2, "attention.indexer.key_length": 64,
    "attention.indexer.top_k": 128, "attention.indexer.block_size": 8,
    "attention.indexer.local_blocks": 1,
}  # fmt: skip
_STATE: dict[str, Any] = {
    "ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.time_step_rank": 8,
    "ssm.group_count": 1, "kda.head_dim": 16, "kda.gate_lower_bound": -5.0,
    "shortconv.l_cache": 3,
}  # fmt: skip
_DELTA: dict[str, Any] = {
    **_STATE, "ssm.inner_size": 64, "ssm.time_step_rank": 4, "ssm.group_count": 2,
    "full_attention_interval": 2, "attention.key_length": HEAD, "attention.value_length": HEAD,
}  # fmt: skip
# The first block has no attention.
_MIXED = _STATE | {"attention.head_count_kv": [0, KV_HEADS, KV_HEADS]}
_MIXED_LATENT = _LATENT | _STATE | {"attention.head_count_kv": [0, 1, 1]}
_EVEN = {"attention.head_count_kv": HEADS}
_TYPES = {"tokenizer.ggml.token_type_count": 2}
_TWO_LENGTHS = {
    f"attention.{which}_length{kind}": HEAD for which in ("key", "value") for kind in ("", "_swa")
}

_WITH_EXPERTS = """
    afmoe arctic bailingmoe bailingmoe2 cohere2moe dbrx deepseek ernie4_5-moe exaone-moe glm4moe
    gpt-oss granite_swa granitemoe grok grovemoe hunyuan-moe hy_v3 laguna llada-moe llama4 maple
    mellum mimo2 minimax-m2 phimoe qwen2moe qwen3moe qwen3vlmoe rnd1 smallthinker spark2_5 step35
"""
_OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(_WITH_EXPERTS.split(), _EXPERTS),
    **dict.fromkeys(("bert", "jina-bert-v3", "nomic-bert"), _TYPES),
    **dict.fromkeys(("deepseek2", "hy_v4", "mistral4"), _LATENT),
    **dict.fromkeys(("deepseek32", "glm-dsa"), _LATENT | _INDEXER),
    **dict.fromkeys(("dots1", "olmoe"), _EXPERTS | _EVEN),
    **dict.fromkeys(("falcon-h1", "mamba", "mamba2"), _STATE),
    **dict.fromkeys(("granitehybrid", "jamba"), _MIXED),
    **dict.fromkeys(("bailingmoe3", "kimi-k3", "kimi-linear"), _MIXED_LATENT),
    **dict.fromkeys(
        ("minicpm3", "plm"),
        _LATENT | _EVEN | {"attention.key_length": 32, "attention.value_length": 16},
    ),
    "apertus": {f"xielu.{name}": 1.0 for name in ("alpha_n", "alpha_p", "beta", "eps")},
    "baichuan": {"block_count": 32},
    "chameleon": {"vocab_size": 8300},  # its words for images have fixed numbers
    "deepseek2-ocr": _EXPERTS | _EVEN | {"rope.freq_base": 10000.0},
    "deepseek4": _EXPERTS | _INDEXER | {
        "attention.q_lora_rank": 32, "attention.key_length": 64, "attention.value_length": 64,
        "attention.head_count_kv": 1, "attention.output_group_count": 2,
        "attention.output_lora_rank": 16, "attention.compress_rope_freq_base": 55.0,
        "attention.compress_ratios": [0, 4, 128], "attention.sliding_window_pattern": None,
        "expert_gating_func": 4, "expert_weights_norm": True, "hash_layer_count": 0,
        "hyper_connection.count": 4, "hyper_connection.sinkhorn_iterations": 2,
    },
    "dots3note": _LATENT | _INDEXER | {
        "attention.kv_lora_rank_swa": 32, "attention.key_length_mla_swa": 32,
        "attention.value_length_mla_swa": 16, "attention.key_length_swa": 48,
        "attention.value_length_swa": 32, "attention.indexer.types": [0, 1, 0],
    },
    "exaone4": {"block_count": 64},
    "gemma3n": {"block_count": 22},  # the last two share the keys of others
    "gemma4": _TWO_LENGTHS | {"embedding_length_per_layer_input": 8},
    "graniteswitch": {
        "adapters.count": 3, "adapters.lora_rank": 4, "adapters.token_ids_activate": [1, 2, 3],
        "adapters.token_ids_substitute": [4, 5, 6],
    },
    "hrm_text": {
        "block_count": 4, "hrm.layers_per_stack": 2, "hrm.h_cycles": 1, "hrm.l_cycles": 1,
    },
    "lfm2": _MIXED | {"attention.sliding_window_pattern": None},
    "lfm2moe": _MIXED | _EXPERTS,
    "minimax-01": _EXPERTS | {"full_attention_interval": 2},
    "minimax-m3": _EXPERTS | _INDEXER,
    "nomic-bert-moe": _EXPERTS | _TYPES,
    "plamo2": _MIXED | {"ssm.group_count": 0},
    "qwen35": _DELTA,
    "qwen35moe": _DELTA | _EXPERTS,
    "qwen3next": _DELTA | _EXPERTS,
    "qwen4exp": _DELTA | _EXPERTS | _INDEXER | {
        "hyper_connection.count": 2, "hyper_connection.low_rank": 8,
        "attention.compress_ratios": [0, 4, 0],
    },
}  # fmt: skip
# Tensors that a file may leave out, and without which the graph cannot be built.
_ALSO = {
    **dict.fromkeys(("phi3", "pockettts"), ("attn_qkv.weight",)),
    **dict.fromkeys(("falcon-h1", "granitehybrid"), ("ssm_conv1d.bias",)),
    **dict.fromkeys(("qwen35", "qwen35moe", "qwen3next"), ("attn_qkv.weight", "attn_gate.weight")),
    "glm-dsa": tuple(f"indexer.{name}" for name in (
        "k_norm.weight", "k_norm.bias", "proj.weight", "attn_k.weight", "attn_q_b.weight")),
}  # fmt: skip
# Tensors that load, and with which the graph cannot be built.
_NOT = {"qwen4exp": ("blk.1.attn_qkv.weight",)}
# Shapes that a graph takes from the file.
_SHAPES = {("laguna", "attn_gate.weight"): [WIDTH, HEADS]}

_MARK = "grown "
_MOST_LOADS = 400
_NOT_THERE = re.compile(r"(?:missing tensor '|check_tensor_dims: tensor ')([^']+)'")
_SHAPE = re.compile(r"tensor '([^']+)' has wrong shape; expected ([ \d,]+), got")
_TYPE = re.compile(r"key (\S+) has wrong type \S+ but expected type (\w+)")
_KEY = re.compile(r"(array )?key not found in model: (\S+)")
_BLOCK = re.compile(r"blk\.\d+\.")

Shapes = dict[str, list[int]]
Keys = dict[str, Any]


def keys_of(name: str) -> Keys:
    """The keys that a model starts with, without the prefix of the architecture."""
    row, own = find_architecture(name), _OWN.get(name, {})
    assert row is not None
    found = dict(_COMMON)
    if row.windowed:
        found |= {"attention.sliding_window": 32, "block_count": max(3, row.pattern + 1)}
    if row.windowed and not row.pattern:
        found["attention.sliding_window_pattern"] = [1, 0, 1]
    if row.sections:
        found["rope.dimension_sections"] = [3, 3, 2, 0]
    return {key: value for key, value in (found | own).items() if value is not None}


def typed(value: Any) -> Typed:
    """A value with its GGUF type."""
    if isinstance(value, bool):
        return Typed("bool", value)
    return Typed({int: "u32", float: "f32", str: "str", list: "arr"}[type(value)], value)


def full_names(name: str, keys: Keys) -> dict[str, Typed]:
    """The keys as a file of an architecture has them."""
    found = {"general.architecture": name, "general.type": "model",
             "tokenizer.ggml.model": "no_vocab"}  # fmt: skip
    for key, value in keys.items():
        found[key if key.startswith(("tokenizer.", "xielu.")) else f"{name}.{key}"] = value
    return {key: typed(value) for key, value in found.items()}


def model_of(name: str, grown: Any) -> tuple[dict[str, Typed], Arrays]:
    """Keys and random numbers of a model.

    Args:
        name: its architecture.
        grown: its entry in `GROWN`.
    """
    random, arrays = np.random.default_rng(0), {}
    stored = [(part, *each) for part, all_ in grown["tensors"].items() for each in all_]
    for part, shape, blocks in stored:
        for each in [f"blk.{n}.{part}" for n in blocks] or [part]:
            values = random.normal(float("norm" in part), 0.1, shape[::-1]).astype(np.float32)
            arrays[each] = np.ones_like(values) if part.startswith("rope_") else values
    return full_names(name, keys_of(name) | grown["asked"]), arrays


def grow(names: Iterable[str]) -> dict[str, Any]:
    """Architecture → what to store of it, or what the library said in the end."""
    waiting, found, folder = list(names), {}, llamacpp.library()
    while waiting:
        child = subprocess.run(
            [sys.executable, "-m", "support.gguf_grown", str(folder)], input="\n".join(waiting),
            cwd=llamacpp.ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )  # fmt: skip
        for line in child.stdout.splitlines():
            if line.startswith(_MARK):
                found[waiting.pop(0)] = json.loads(line.removeprefix(_MARK))
        if waiting:
            assert child.returncode < 0, child.stderr
            found[waiting.pop(0)] = child.stderr.strip()
    return found


def _stored(name: str, keys: Keys, shapes: Shapes) -> dict[str, Any]:
    """What to store: the keys that were asked for, and each part with its shapes and blocks."""
    start, parts = keys_of(name), dict[str, list[tuple[list[int], list[int]]]]()
    for tensor, shape in shapes.items():
        part = _BLOCK.sub("", tensor)
        shaped = parts.setdefault(part, [])
        if shape not in [each for each, _ in shaped]:
            shaped.append((shape, []))
        if part != tensor:
            next(blocks for each, blocks in shaped if each == shape).append(
                int(tensor.split(".")[1])
            )
    return {"asked": {k: v for k, v in keys.items() if k not in start}, "tensors": parts}


class _Stuck(Exception):
    """What the library says shows nothing to add."""


class _Growth:
    """One model while it grows."""

    def __init__(self, name: str) -> None:
        self.name, self.keys = name, keys_of(name)
        self.shapes: Shapes = {"token_embd.weight": [WIDTH, self.keys["vocab_size"]]}
        self.unsure: set[str] = set()
        for part in _ALSO.get(name, ()):
            self._add(f"blk.0.{part}")

    def _add(self, tensor: str) -> None:
        """Add a tensor, in all blocks; its shape is not known yet."""
        part = _BLOCK.sub("", tensor)
        count = self.keys["block_count"]
        names = [f"blk.{n}.{part}" for n in range(count)] if part != tensor else [tensor]
        for each in names:
            if each not in self.shapes and each not in _NOT.get(self.name, ()):
                self.shapes[each] = _SHAPES.get((self.name, part), [1])
                self.unsure.add(each)

    def learn(self, said: llamacpp.Said) -> None:
        """Add or correct what the library named.

        Raises:
            _Stuck: it named nothing.
        """
        text = llamacpp.complaints(said)
        if match := _SHAPE.search(text):
            self._shape(match[1], [int(size) for size in match[2].split(",")])
        elif match := _TYPE.search(text):
            self._type(match[1].removeprefix(f"{self.name}."), match[2])
        elif match := _KEY.search(text):
            key = match[2].removeprefix(f"{self.name}.")
            if key in self.keys:
                raise _Stuck(text)
            one = {**_EXPERTS, **_INDEXER, **_STATE}.get(key, 1)
            self.keys[key] = [one] * self.keys["block_count"] if match[1] else one
        elif (match := _NOT_THERE.search(text)) and match[1] not in self.shapes:
            self._add(match[1])
        elif "wrong number of tensors" in text:
            asked = {words.split()[-1] for _, words in said if "loading tensor" in words}
            extra = set(self.shapes) - asked
            if not extra:
                raise _Stuck(text)
            self.shapes = {n: shape for n, shape in self.shapes.items() if n not in extra}
        else:
            raise _Stuck(text)

    def _shape(self, tensor: str, shape: list[int]) -> None:
        part = _BLOCK.sub("", tensor)
        alike = {each for each in self.unsure if _BLOCK.sub("", each) == part}
        for each in {tensor, *alike}:
            self.shapes[each] = shape
        self.unsure -= {tensor, *alike}

    def _type(self, key: str, kind: str) -> None:
        value = self.keys[key]
        if kind == "arr":
            self.keys[key] = [value] * self.keys["block_count"]
        else:
            self.keys[key] = {"f32": float, "bool": bool, "u32": int, "str": str}[kind](value)


def _grown(lib: Any, name: str, folder: str, said: llamacpp.Said) -> Any:
    growth, params = _Growth(name), lib.llama_model_default_params()
    params.use_extra_bufts = False
    for n in range(_MOST_LOADS):
        arrays = {each: np.zeros(s[::-1], np.float32) for each, s in growth.shapes.items()}
        path = write_gguf(Path(folder, f"{n}.gguf"), full_names(name, growth.keys), arrays)
        said.clear()
        model = lib.llama_model_load_from_file(str(path).encode(), params)
        path.unlink()
        if model:
            lib.llama_model_free(model)
            return _stored(name, growth.keys, growth.shapes)
        try:
            growth.learn(said)
        except _Stuck as stuck:
            return str(stuck)
    return f"it did not load after {_MOST_LOADS} additions"


def main(words: Sequence[str] = tuple(sys.argv[1:])) -> None:
    """Grow the models that are named on stdin."""
    said: llamacpp.Said = []
    lib = llamacpp.load(Path(words[0]), said)
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin.read().splitlines():
            print(_MARK + json.dumps(_grown(lib, line, folder, said)), flush=True)


if __name__ == "__main__":
    main()
