"""The numbers of docs/resources.md are those of yarncli and of the formulas that it names."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from yarncli.checkpoint.memory import kv_cache_bytes, kv_cache_parts
from yarncli.config.reading import read_rope
from yarncli.evaluation.local import memory

PAGE = (Path(__file__).resolve().parents[2] / "docs/resources.md").read_text(encoding="utf-8")
CONFIGS = [json.loads(text) for text in re.findall(r"^\$ echo '(\{.*\})' >", PAGE, re.MULTILINE)]
LENGTH = 131072
# Of all matrices and norms that configs of these sizes give.
PARAMETERS = (8_190_735_360, 70_553_706_496)


def row(name: str) -> list[float]:
    """The numbers of a row of a table."""
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
    return [float(number) for number in re.findall(r"(\d+\.?\d*) (?:GB|PFLOP|s\b|hours)", line)]


def operations(number: int, length: int) -> tuple[float, float]:
    """Of the matrix products and of attention, by the formulas of the page."""
    c = CONFIGS[number]
    heads, layers = c["num_attention_heads"], c["num_hidden_layers"]
    in_layers = PARAMETERS[number] - 2 * c["vocab_size"] * c["hidden_size"]
    return 2.0 * in_layers * length, 2.0 * layers * heads * 128 * length**2


@pytest.mark.parametrize("number", [0, 1])
def test_memory_to_serve(number):
    config = CONFIGS[number]
    parts = kv_cache_parts(config, read_rope(config))
    sizes = {"bfloat16": 2, "FP8": 1, "llama.cpp `q8_0`": 34 / 32, "llama.cpp `q4_0`": 18 / 32}
    for name, size in sizes.items():
        expected = kv_cache_bytes(parts, LENGTH, size) / 1e9
        assert row(f"KV cache, {name}")[number] == pytest.approx(expected, abs=0.05)
    assert row("weights, bfloat16")[number] == pytest.approx(PARAMETERS[number] * 2 / 1e9, abs=0.05)
    assert row("weights, 4 bit")[number] == pytest.approx(
        PARAMETERS[number] * 0.5625 / 1e9, abs=0.05
    )


@pytest.mark.parametrize("number", [0, 1])
def test_operations_and_times(number):
    products, attention = operations(number, LENGTH)
    whole = products + attention
    assert row("matrix products")[number] == pytest.approx(products / 1e15, abs=0.05)
    assert row("attention")[number] == pytest.approx(attention / 1e15, abs=0.05)
    assert row("all")[number] == pytest.approx(whole / 1e15, abs=0.05)
    assert row("at 400 TFLOP/s")[number] == pytest.approx(whole / 4e14, abs=0.5)
    assert row("at 100 TFLOP/s")[number] == pytest.approx(whole / 1e14, abs=0.5)
    assert row("at 1 TFLOP/s (a CPU)")[number] == pytest.approx(whole / 3.6e15, abs=0.05)
    cached = (PARAMETERS[number] * 2 + (19_327_352_832, 42_949_672_960)[number]) / 3e12
    assert f"{1000 * cached:.0f} ms for the {('8B', '70B')[number]} model" in PAGE


@pytest.mark.parametrize(
    ("name", "number", "device", "dtype"),
    [
        ("8B, bfloat16, GPU", 0, "cuda", torch.bfloat16),
        ("8B, float32, CPU", 0, "cpu", torch.float32),
        ("70B, bfloat16, GPUs together", 1, "cuda", torch.bfloat16),
        ("70B, float32, CPU", 1, "cpu", torch.float32),
    ],
)
def test_memory_in_this_process(name, number, device, dtype, monkeypatch):
    monkeypatch.setattr(memory, "splits_attention", lambda *_: True)  # as on an Ampere GPU
    needed = memory.estimate(
        CONFIGS[number], PARAMETERS[number], LENGTH, dtype, torch.device(device)
    )
    expected = [needed.weights, needed.kv_cache, needed.working, needed.total]
    assert row(name) == pytest.approx([value / 1e9 for value in expected], abs=0.05)


def test_torch_counts_the_same_operations():
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16,
             "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 32}  # fmt: skip
    config = LlamaConfig(**sizes, attn_implementation="eager")
    model, length = LlamaForCausalLM(config).eval(), 512
    matrices = sum(p.numel() for p in model.model.layers.parameters() if p.ndim > 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.long), logits_to_keep=1)
    full_square = 2 * (2 * 2 * 4 * 16 * length**2)
    assert counter.get_total_flops() == pytest.approx(2 * matrices * length + full_square, rel=1e-4)
