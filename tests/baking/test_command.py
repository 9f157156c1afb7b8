"""`yarncli bake` as people call it."""

import json
from functools import partial

import pytest

from support.checkpoints import snapshot
from support.kills import leave_killed
from support.program import invoke
from yarncli.baking.bake import bake
from yarncli.checkpoint.directory import pending

run = partial(invoke, "bake")


def test_a_dry_run_lists_everything_and_writes_nothing(handmade, tmp_path, attention_factor):
    source = handmade()
    result = run(source, tmp_path / "out", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert not (tmp_path / "out").exists()
    assert found["written"] is False
    edit = found["edits"][0]
    assert edit["tensor"] == "model.layers.0.self_attn.k_proj.weight"
    assert (edit["rows"], edit["total_rows"], edit["power"]) == ([[0, 16]], 16, 2)
    assert edit["factor"] == pytest.approx(attention_factor**2)
    assert edit["bytes"] == 16 * 16 * 4
    assert edit["rounding"] == 2.0**-24
    assert found["bytes"] == 2 * edit["bytes"]


def test_the_summary_names_kinds_engines_and_what_to_know(handmade, tmp_path):
    result = run(handmade(), tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "k_proj.weight (F32)" in result.stdout
    assert "16 of 16" in result.stdout
    assert "Keys become up to 1.296 times larger" in result.stderr
    assert "llama.cpp differs: attention scale 1.139 instead of 1" in result.stderr
    assert "vllm differs" not in result.stderr


@pytest.mark.parametrize(("engine", "code"), [("llama.cpp", 3), ("vllm", 0), ("nonsense", 2)])
def test_an_engine_that_would_differ_is_refused(handmade, tmp_path, engine, code):
    result = run(handmade(), tmp_path / "out", "--engine", engine)
    assert result.exit_code == code, result.stderr
    assert (tmp_path / "out").exists() == (code == 0)


def test_engines_and_check_know_the_result(handmade, tmp_path):
    assert run(handmade(), tmp_path / "out").exit_code == 0
    shown = invoke("engines", tmp_path / "out", "--json")
    status = {view["engine"]: view["status"] for view in json.loads(shown.stdout)["engines"]}
    assert (status["transformers-5"], status["sglang"], status["llama.cpp"]) == (
        "exact",
        "exact",
        "differs",
    )
    assert invoke("check", tmp_path / "out").exit_code == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    for name in ("attention_factor", "mscale", "mscale_all_dim"):
        del config["rope_scaling"][name]
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    found = invoke("check", tmp_path / "out")
    assert found.exit_code == 1
    assert "baked-twice" in found.stdout


def test_in_place_and_recover(handmade):
    source = handmade()
    weights = [path.read_bytes() for path in sorted(source.glob("*.safetensors"))]
    result = run(source, "--in-place")
    assert result.exit_code == 0, result.stderr
    assert [path.read_bytes() for path in sorted(source.glob("*.safetensors"))] != weights
    assert "no change was pending" in run("--recover", source).stdout


def test_the_next_in_place_recovers_first(handmade):
    source = handmade()

    leave_killed(lambda place: bake(place, in_place=True), source, "pwrite", 3, half=True)
    assert pending(source)
    assert run(source, source.parent / "out").exit_code == 3
    assert run(source, "--in-place", "--dry-run").exit_code == 3
    assert pending(source)
    assert run(source, "--in-place").exit_code == 0
    assert json.loads((source / "config.json").read_text())["yarncli_baked"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("OUT", "--in-place"),
        ("--in-place", "--verify-logits", "text"),
        ("OUT", "--dry-run", "--verify-logits", "text"),
        ("OUT", "--side", "v"),
    ],
)
def test_contradictory_options(handmade, tmp_path, arguments):
    given = [tmp_path / "out" if a == "OUT" else a for a in arguments]
    assert run(handmade(), *given).exit_code == 2


def test_verify_bakes_a_twin_as_well(handmade, tmp_path):
    result = run(handmade(), tmp_path / "out", "--verify", "--json")
    assert result.exit_code == 0, result.stderr
    twin = json.loads(result.stdout)["checks"]["twin"]
    assert twin["baked"] < 1e-4 < twin["unbaked"]


def test_a_wrong_layout_is_found_out(checkpoint_of, tmp_path):
    source = checkpoint_of("qwen3")
    result = run(source, tmp_path / "out", "--layout", "qk-norm-offset")
    assert result.exit_code == 1
    assert "'qk-norm-offset' is wrong for qwen3" in result.stderr
    assert not (tmp_path / "out").exists()
    assert run(source, tmp_path / "out", "--layout", "qk-norm").exit_code == 0


def test_logits_of_both_checkpoints_are_compared(demo, tmp_path):
    extended = tmp_path / "x4"
    invoke("convert", demo, extended, "--factor", 4, code=0)
    result = run(extended, tmp_path / "out", "--verify-logits", "The key is 51247. " * 30, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["checks"]["logits"]
    assert found["positions"] > 50
    assert found["same_choice"] > 0.98
    assert found["difference"] < 5e-3  # the demo's weights are half precision


def test_an_adapter_is_written_beside(handmade, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    name = "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"
    save_file({name: torch.ones(16, 4)}, adapter / "adapter_model.safetensors")
    result = run(handmade(), tmp_path / "out", "--adapter", adapter, tmp_path / "adapter-out")
    assert result.exit_code == 0, result.stderr
    made = load_file(tmp_path / "adapter-out" / "adapter_model.safetensors")[name]
    assert torch.allclose(made, torch.full((16, 4), 1.138629436**2))
    assert (tmp_path / "out" / "yarncli.json").exists()


def test_an_existing_out_is_refused_before_anything_is_written(handmade, tmp_path):
    from safetensors.numpy import save_file

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({}, adapter / "adapter_model.safetensors")
    (tmp_path / "taken").mkdir()
    source = handmade()
    for out, adapter_out in (("taken", "free"), ("free", "taken")):
        result = run(source, tmp_path / out, "--adapter", adapter, tmp_path / adapter_out)
        assert (result.exit_code, "taken already exists" in result.stderr) == (2, True)
        assert not (tmp_path / "free").exists()


def test_baked_and_unbaked_retrieve_the_same_passkeys(demo, tmp_path):
    extended, out = tmp_path / "x8", tmp_path / "out"
    invoke("convert", demo, extended, "--factor", 8, code=0)
    assert run(extended, out).exit_code == 0
    verdicts = []
    for model in (extended, out):
        saved = tmp_path / "cells.jsonl"
        options = ["--lengths", "512,1k", "--depths", "10", "--trials", "1", "--out", saved]
        invoke("check-passkey", model, *options, code=0)
        cells = [json.loads(line) for line in saved.read_text().splitlines()[1:]]
        verdicts.append([(cell["key"], cell["correct"]) for cell in cells])
        saved.unlink()
    assert verdicts[0] == verdicts[1]
    assert {correct for _, correct in verdicts[0]} == {True, False}


def test_a_hub_model_is_fetched_and_its_cache_never_changed(handmade, minihub, tmp_path):
    source = handmade()
    minihub.add_repo("org/name", source)
    out = tmp_path / "out"
    assert run("hf://org/name", out, "--dry-run").exit_code == 0
    assert not list(minihub.cache.rglob("*.safetensors"))
    result = run("hf://org/name", out)
    assert result.exit_code == 0, result.stderr
    assert "Fetching" in result.stderr
    assert json.loads((out / "yarncli.json").read_text())["steps"][0]["source"].startswith("org/")
    assert not any(path.is_symlink() for path in out.iterdir())
    cached = next(path.parent for path in minihub.cache.rglob("config.json"))
    before = snapshot(minihub.cache)
    refused = run(cached, "--in-place")
    assert (refused.exit_code, "cache" in refused.stderr) == (3, True), refused.stderr
    assert snapshot(minihub.cache) == before
    assert run("hf://org/name", "--in-place").exit_code == 2
