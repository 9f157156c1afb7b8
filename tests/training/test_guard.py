"""The guard compares the model that a trainer holds with the plan, and stamps what it saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from support.program import invoke
from support.training import edit
from yarncli import CheckFailed, CheckpointError, UsageError, convert, finish, guard


def load(path: Path, **changes: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **changes)


def test_it_sees_the_plan_and_records_it(conv: Path, trained: Path, tmp_path: Path) -> None:
    model = load(conv)
    seen = guard(model, conv, train_length=1024)
    assert (seen.modules, seen.length, seen.stamp) == (("model.rotary_emb",), 2048, None)
    seen = guard(torch.nn.Sequential(model), conv, trained, train_length=1024, steps=60)
    stamp = json.loads((trained / "yarncli-training.json").read_text())
    assert stamp["settings"]["model"]["factor"] == 8.0
    found = finish(trained, conv, tmp_path / "done")
    assert (found.run.steps, found.run.train_length, found.run.guarded) == (60, 1024, True)
    assert not (tmp_path / "done" / "yarncli-training.json").exists()
    assert "guard" not in " ".join(found.notes)
    checkpoint = trained / "checkpoint-60"
    for name in ("config.json", "model.safetensors"):
        (checkpoint / name).write_bytes((trained / name).read_bytes())
    assert finish(checkpoint, conv, tmp_path / "earlier").run.guarded


YARN = {
    "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 256,
    "rope_theta": 10000.0,
}  # fmt: skip


@pytest.mark.parametrize("change", [
    {"factor": 4.0}, {"rope_theta": 500000.0}, {"attention_factor": 1.0}, {"beta_slow": 2.0},
    {"rope_type": "default"},
])  # fmt: skip
def test_a_model_that_rotates_otherwise_is_refused(
    change: dict[str, Any], conv: Path, tmp_path: Path
) -> None:
    model = load(conv)
    other = LlamaConfig.from_pretrained(conv)
    other.rope_parameters = {**YARN, **change}
    model.model.rotary_emb = LlamaForCausalLM(other).model.rotary_emb
    with pytest.raises(CheckFailed, match="rotary_emb: "):
        guard(model, conv, tmp_path)
    assert not (tmp_path / "yarncli-training.json").exists()


def test_frequencies_in_16_bits_are_refused(conv: Path) -> None:
    with pytest.raises(CheckFailed, match="16-bit"):
        guard(load(conv).bfloat16(), conv)


def test_what_it_does_not_know_is_not_passed(conv: Path) -> None:
    with pytest.raises(CheckFailed, match="found no rotary module"):
        guard(torch.nn.Linear(2, 2), conv)
    with pytest.raises(UsageError, match=r"more than the window of 2,048"):
        guard(load(conv), conv, train_length=4096)


@pytest.mark.parametrize("method", ["linear", "dynamic", "ntk", "llama3"])
def test_other_methods(method: str, tmp_path: Path) -> None:
    from support.checkpoints import DEMO

    convert(DEMO, tmp_path / "out", method=method, factor=4)
    guard(load(tmp_path / "out"), tmp_path / "out")


def test_a_model_with_two_settings(tmp_path: Path) -> None:
    config = Gemma3TextConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=6, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, vocab_size=64, max_position_embeddings=128,
        sliding_window=32,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "out", method="linear", factor=4)
    guard(load(tmp_path / "out"), tmp_path / "out")
    with pytest.raises(CheckFailed):
        guard(load(tmp_path / "model"), tmp_path / "out")


def test_a_stamp_that_was_touched_is_refused(conv: Path, trained: Path, tmp_path: Path) -> None:
    guard(load(conv), conv, trained, train_length=1024, steps=60)
    path = trained / "yarncli-training.json"
    stamp = json.loads(path.read_text())
    stamp["settings"]["model"]["factor"] = 4.0
    path.write_text(json.dumps(stamp))
    with pytest.raises(CheckpointError, match="The guard saw rope_type yarn, factor 4"):
        finish(trained, conv, tmp_path / "done")
    for changes in ({"settings": []}, {"schema_version": 9}, {"length": "x"}):
        edit(path, **changes)
        invoke("finish", trained, tmp_path / "done", "--from", conv, code=3)
