"""How much memory a training step takes, measured.

python -m support.training_peak MODEL LENGTH full|lora     prints bytes: what the process grew by
"""

from __future__ import annotations

import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from support.resident import resident
from yarncli.training.memory import RANK, trained_modules


def loaded(path: Path) -> Any:
    """The model in the dtype that recipes train in."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def prepared(model: Any, *, lora: bool) -> Any:
    """The model as the recipes train it: with checkpointing, and perhaps adapters."""
    if lora:
        names = [name for name, _ in model.named_modules() if not name.endswith("lm_head")]
        targets, whole = trained_modules(names)
        config = LoraConfig(
            r=RANK, target_modules=targets, modules_to_save=whole, ensure_weight_tying=True
        )
        model = get_peft_model(model, config)
        model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def train(model: Any, length: int) -> None:
    """Two steps of one row each; the second finds an optimizer that has its numbers."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)  # the default of Trainer
    for _ in range(2):
        ids = torch.randint(3, 500, (1, length))
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def tensors_peak(path: Path, length: int, *, lora: bool) -> int:
    """The most bytes that all tensors had together: for models smaller than Python itself."""
    model = prepared(loaded(path), lora=lora)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        train(model, length)
    events = found.profiler.kineto_results.events()
    sizes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return int(size + max(accumulate(nbytes for _, nbytes in sizes)))


def process_peak(path: Path, length: int, *, lora: bool) -> int:
    """By how much this process grew at most, once all code was loaded (Linux)."""
    small = LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        vocab_size=512,
    )  # fmt: skip
    train(prepared(LlamaForCausalLM(small), lora=lora), 8)
    before = resident("VmRSS")
    train(prepared(loaded(path), lora=lora), length)
    return resident("VmHWM") - before


if __name__ == "__main__":
    torch.set_num_threads(1)
    model_path, row, tuning = sys.argv[1:]
    print(process_peak(Path(model_path), int(row), lora=tuning == "lora"))
