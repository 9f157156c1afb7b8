"""An adapter carries the plan that it was trained with, and meets no base with another one."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.checkpoints import snapshot
from support.program import invoke
from support.training import edit, leave
from yarncli import (
    CheckpointError,
    bake,
    convert,
    evaluate_passkey,
    evaluate_perplexity,
    finish,
    fit,
    recipe,
    regress,
)
from yarncli.checkpoint.source import open_checkpoint
from yarncli.demo import write_demo
from yarncli.history.adapters import adapter_history, require_plan
from yarncli.rules.check import check
from yarncli.training.guarding import guard


@pytest.fixture
def lora(conv: Path, tmp_path: Path) -> Path:
    """A LoRA adapter of the demo's keys, as PEFT saves it, with a trainer's files beside it."""
    root = tmp_path / "lora"
    root.mkdir()
    config = {
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["k_proj"],
        "base_model_name_or_path": str(conv), "task_type": "CAUSAL_LM",
    }  # fmt: skip
    (root / "adapter_config.json").write_text(json.dumps(config))
    random, tensors = np.random.default_rng(0), {}
    for layer in range(3):
        name = f"base_model.model.model.layers.{layer}.self_attn.k_proj"
        tensors[f"{name}.lora_A.weight"] = random.standard_normal((4, 128)).astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = random.standard_normal((128, 4)).astype(np.float32)
    save_file(tensors, root / "adapter_model.safetensors", metadata={"format": "pt"})
    return leave(root)


def book(tmp_path: Path) -> Path:
    """A text of a few hundred tokens."""
    path = tmp_path / "book.txt"
    path.write_text("The grass is green. The sky is blue. " * 40)
    return path


def other(conv: Path, tmp_path: Path) -> Path:
    """The same model, extended by another factor."""
    convert(conv, tmp_path / "other", replace_scaling=True, original_length=256, factor=4)
    return tmp_path / "other"


def test_the_plan_is_stamped_beside_it(conv: Path, lora: Path, tmp_path: Path) -> None:
    before = snapshot(lora)
    result = invoke("finish", lora, tmp_path / "done", "--from", conv, "--adapter", code=0)
    assert "trained as converted" in result.stdout
    assert f"next: yarncli check-passkey {conv} --adapter {tmp_path / 'done'}\n" in result.stdout
    assert "The guard did not run" in result.stderr
    assert snapshot(lora) == before
    done = snapshot(tmp_path / "done")
    assert done.keys() == {"adapter_config.json", "adapter_model.safetensors", "yarncli.json"}
    history = adapter_history(tmp_path / "done")
    assert history.plan is not None
    assert history.plan.factor == 8
    assert history.trained is not None
    assert history.trained.adapter
    again = invoke("finish", tmp_path / "done", "--in-place", "--from", conv, "--adapter", code=3)
    assert "already finished or baked" in again.stderr


def test_in_place_and_clean(conv: Path, lora: Path) -> None:
    finish(lora, conv, adapter=True, in_place=True, clean=True)
    names = {"adapter_config.json", "adapter_model.safetensors", "yarncli.json"}
    assert snapshot(lora).keys() == names


def test_what_is_no_adapter(conv: Path, lora: Path, trained: Path, tmp_path: Path) -> None:
    done = tmp_path / "done"
    assert "--adapter" in invoke("finish", lora, done, "--from", conv, code=2).stderr
    told = invoke("finish", trained, done, "--from", conv, "--adapter", code=3).stderr
    assert "is not a LoRA adapter" in told
    told = invoke("finish", tmp_path / "x", done, "--from", conv, "--adapter", code=3).stderr
    assert f"There is no directory {tmp_path / 'x'}." in told
    (lora / "adapter_model.safetensors").unlink()
    told = invoke("check-passkey", conv, "--adapter", lora, code=3).stderr
    assert "it has no adapter_model.safetensors" in told


def test_an_adapter_of_another_model_is_refused(conv: Path, lora: Path, tmp_path: Path) -> None:
    """Although its base is not here, so that only the shapes can tell."""
    edit(lora / "adapter_config.json", base_model_name_or_path="org/elsewhere")
    tensors = load_file(lora / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight"
    save_file({**tensors, name: tensors[name][:, :64].copy()}, lora / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"trained on another model: .* they do not fit"):
        finish(lora, conv, tmp_path / "done", adapter=True)
    moved = {f"{key.replace('k_proj', 'kv_proj')}": value for key, value in tensors.items()}
    save_file(moved, lora / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"belong to modules that .* does not store"):
        finish(lora, conv, tmp_path / "done", adapter=True)


def test_push_takes_no_adapter(lora: Path) -> None:
    told = invoke("push", lora, "me/lora", "--dry-run", code=2).stderr
    assert f"hf upload ORG/NAME {lora}" in told
    invoke("check", lora, code=0)  # the other command that the message names


def test_a_base_with_another_setting_is_refused(conv: Path, lora: Path, tmp_path: Path) -> None:
    base = other(conv, tmp_path)
    with pytest.raises(CheckpointError, match=r"factor 8\.0 instead of 4\.0"):
        finish(lora, base, tmp_path / "done", adapter=True)
    edit(lora / "adapter_config.json", base_model_name_or_path="org/elsewhere")
    found = finish(lora, base, adapter=True, dry_run=True)
    assert "only the shapes of the adapter were compared" in found.notes[0]


def test_everything_that_uses_it_looks_at_the_stamp(conv: Path, lora: Path, tmp_path: Path) -> None:
    finish(lora, conv, tmp_path / "done", adapter=True)
    done, base = tmp_path / "done", other(conv, tmp_path)
    assert require_plan(done, open_checkpoint(conv)) == ""
    words = "trained for another RoPE setting"
    with pytest.raises(CheckpointError, match=words):
        bake(base, tmp_path / "baked", adapter=(done, tmp_path / "lora-baked"))
    with pytest.raises(CheckpointError, match=words):
        evaluate_passkey(base, lengths=(256,), depths=1, trials=1, adapter=str(done))
    with pytest.raises(CheckpointError, match=words):
        evaluate_perplexity(base, text=[book(tmp_path)], lengths=[128], adapter=str(done))
    plain = write_demo(tmp_path / "plain")
    with pytest.raises(CheckpointError, match=words):
        regress(plain, base, adapter=str(done))
    with pytest.raises(CheckpointError, match=words):
        regress(plain, override="method=yarn,factor=4", adapter=str(done))
    with pytest.raises(CheckpointError, match=words):
        fit(plain, factor=4, adapter=str(done))
    edit(done / "adapter_config.json", base_model_name_or_path=str(base))
    (finding,) = [f for f in check(done).findings if f.rule.id == "adapter-mismatch"]
    assert (finding.severity, words in finding.message) == ("error", True)
    bake(conv, tmp_path / "baked", adapter=(done, tmp_path / "lora-baked"))
    steps = [step.command for step in adapter_history(tmp_path / "lora-baked").steps]
    assert steps == ["convert", "finish", "bake"]
    edit(tmp_path / "lora-baked" / "adapter_config.json", base_model_name_or_path="baked")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
def test_it_is_merged_with_the_file_of_the_recipe(
    conv: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe(conv, tmp_path / "recipe", train_length=512, tuning="lora")

    def merge(base: Path, adapter: Path) -> Path:
        arguments = ["merge.py", str(base), str(adapter), str(tmp_path / "merged")]
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(str(tmp_path / "recipe" / "merge.py"))
        return tmp_path / "merged"

    with pytest.raises(SystemExit, match="Nothing records which RoPE setting"):
        merge(conv, lora)
    finish(lora, conv, tmp_path / "done", adapter=True)
    with pytest.raises(SystemExit, match="trained for another RoPE setting"):
        merge(other(conv, tmp_path), tmp_path / "done")
    assert not (tmp_path / "merged").exists()
    merged = merge(conv, tmp_path / "done")
    before, after = (load_file(d / "model.safetensors") for d in (conv, merged))
    parts = load_file(lora / "adapter_model.safetensors")
    for name, weight in before.items():
        wanted = weight.astype(np.float32)
        inner = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{inner}.lora_A.weight" in parts:
            product = parts[f"{inner}.lora_B.weight"] @ parts[f"{inner}.lora_A.weight"]
            wanted = wanted + 8 / 4 * product  # lora_alpha / r
        np.testing.assert_allclose(after[name], wanted, rtol=1e-5, atol=1e-5)
    found = finish(merged, conv, tmp_path / "whole")
    assert (found.run.steps, found.run.guarded) == (60, True)


def test_where_there_is_none_they_warn(conv: Path, lora: Path, tmp_path: Path) -> None:
    done = tmp_path / "baked"
    result = invoke("bake", conv, done, "--adapter", lora, tmp_path / "lora-baked", code=0)
    assert "Nothing records which RoPE setting" in result.stderr
    report = evaluate_passkey(conv, lengths=(256,), depths=1, trials=1, adapter=str(lora))
    assert "Nothing records which RoPE setting" in " ".join(report.caveats)
    text = [book(tmp_path)]
    report = evaluate_perplexity(conv, text=text, lengths=[64], tokens=128, adapter=str(lora))
    assert "Nothing records which RoPE setting" in " ".join(report.caveats)
    plain = write_demo(tmp_path / "plain")
    report = regress(plain, conv, text=text, length=64, texts=1, adapter=str(lora))
    assert "Nothing records which RoPE setting" in " ".join(report.caveats)
    (finding,) = [f for f in check(lora).findings if f.rule.id == "adapter-mismatch"]
    assert finding.severity == "warning"


def test_the_guard_of_another_conversion_is_refused(conv: Path, lora: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = other(conv, tmp_path)
    guard(AutoModelForCausalLM.from_pretrained(base), base, lora, train_length=512, steps=7)
    with pytest.raises(CheckpointError, match=r"The guard saw rope_type yarn, factor 4"):
        finish(lora, conv, tmp_path / "done", adapter=True)
    edit(lora / "adapter_config.json", base_model_name_or_path=str(base))
    found = finish(lora, base, tmp_path / "done", adapter=True)
    assert (found.run.steps, found.run.train_length, found.run.guarded) == (7, 512, True)
    assert found.notes == ()
