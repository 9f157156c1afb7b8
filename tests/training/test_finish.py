"""`finish`: the proof, what comes back, what stays out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from support.checkpoints import DEMO, snapshot
from support.program import invoke
from support.training import LEFT, edit
from yarncli import CheckpointError, UsageError, WeightsError, convert, finish, judge
from yarncli.checkpoint.source import open_checkpoint
from yarncli.history import read_history
from yarncli.publishing.card import card
from yarncli.rules.check import check
from yarncli.training.casting import converted

YARN4 = {
    "rope_type": "yarn", "type": "yarn", "factor": 4.0, "rope_theta": 10000.0,
    "original_max_position_embeddings": 256,
}  # fmt: skip


def test_it_is_whole_again(conv: Path, trained: Path, tmp_path: Path) -> None:
    before = snapshot(trained)
    found = finish(trained, conv, tmp_path / "done")
    assert snapshot(trained) == before
    done = snapshot(tmp_path / "done")
    assert done["model.safetensors"] == before["model.safetensors"]
    assert not [name for name in done if name in LEFT or "/" in name]
    config, wanted = (
        json.loads(Path(d, "config.json").read_text()) for d in (tmp_path / "done", conv)
    )
    for key in ("rope_scaling", "rope_parameters", "rope_theta", "max_position_embeddings"):
        assert config[key] == wanted[key], key
    assert config["use_cache"] is True
    assert config["torch_dtype"] == "float32"
    assert "dtype" not in config
    tokenizer = json.loads(done["tokenizer_config.json"])
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["model_max_length"] == 2048
    exact = [{v.engine.id: v.status for v in judge(d).verdicts} for d in (conv, tmp_path / "done")]
    assert exact[0] == exact[1]
    assert check(tmp_path / "done").findings == ()
    history = read_history(open_checkpoint(tmp_path / "done"))
    assert [step.command for step in history.steps] == ["convert", "finish"]
    assert history.trained == found.run
    assert (found.run.steps, found.run.guarded) == (60, False)
    assert {file.name for file in found.leftovers} == LEFT.keys()


def test_the_frequencies_are_those_of_the_conversion(
    conv: Path, trained: Path, tmp_path: Path
) -> None:
    finish(trained, conv, tmp_path / "done")
    models = [
        AutoModelForCausalLM.from_pretrained(d, dtype=torch.float32)
        for d in (conv, trained, tmp_path / "done")
    ]
    rotary = [model.model.rotary_emb for model in models]
    for each in rotary[1:]:
        assert torch.equal(each.inv_freq, rotary[0].inv_freq)
        assert each.attention_scaling == pytest.approx(1.2079, abs=1e-4)
    states = [model.state_dict() for model in models[1:]]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert AutoConfig.from_pretrained(tmp_path / "done").max_position_embeddings == 2048
    AutoTokenizer.from_pretrained(tmp_path / "done")


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "factor changed": ({"rope_parameters": YARN4}, "factor 4.0 instead of 8.0"),
    "factor in both spellings": (
        {"rope_parameters": YARN4, "rope_scaling": YARN4, "rope_theta": 10000.0},
        "factor 4.0 instead of 8.0",
    ),
    "θ lost": (
        {"rope_parameters": {**YARN4, "factor": 8.0, "rope_theta": 500000.0}},
        "rope_theta 500000.0 instead of 10000.0",
    ),
    "scaling lost": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        "rope_type default instead of yarn",
    ),
    "maximum raised only": (
        {"max_position_embeddings": 4096}, "max_position_embeddings 4,096 instead of 2,048",
    ),
    "temperature changed": (
        {"rope_parameters": {**YARN4, "factor": 8.0, "attention_factor": 1.0}},
        "attention_factor 1.0 instead of absent",
    ),
    "ramp changed": (
        {"rope_parameters": {**YARN4, "factor": 8.0, "beta_fast": 16.0}},
        "beta_fast 16.0 instead of absent",
    ),
    "original length changed": (
        {"rope_parameters": {**YARN4, "factor": 8.0, "original_max_position_embeddings": 128}},
        "original_max_position_embeddings 128 instead of 256",
    ),
    "other sizes": ({"num_key_value_heads": 2}, "num_key_value_heads 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_is_refused(name: str, conv: Path, trained: Path, tmp_path: Path) -> None:
    changes, words = CHANGES[name]
    edit(trained / "config.json", **changes)
    before = snapshot(trained)
    for arguments in ([tmp_path / "done"], ["--in-place"], ["--dry-run"]):
        result = invoke("finish", trained, *arguments, "--from", conv, code=3)
        assert words in result.stderr
    assert snapshot(trained) == before
    assert not (tmp_path / "done").exists()


def test_contradicting_spellings_are_refused(conv: Path, trained: Path, tmp_path: Path) -> None:
    edit(trained / "config.json", rope_scaling=YARN4, rope_theta=10000.0)
    result = invoke("finish", trained, tmp_path / "done", "--from", conv, code=3)
    assert "factor" in result.stderr


def test_lengths_that_were_lost_come_back(conv: Path, trained: Path, tmp_path: Path) -> None:
    """TRL saved the original maximum, LLaMA-Factory a float and a cut-off for the tokenizer."""
    edit(trained / "tokenizer_config.json", model_max_length=512)
    edit(trained / "config.json", max_position_embeddings=2048.0)
    finish(trained, conv, tmp_path / "float")
    text = (tmp_path / "float" / "config.json").read_text()
    assert '"max_position_embeddings": 2048,' in text
    edit(trained / "config.json", max_position_embeddings=256)
    found = finish(trained, conv, tmp_path / "low")
    assert (
        json.loads((tmp_path / "low" / "config.json").read_text())["max_position_embeddings"]
        == 2048
    )
    assert "lowered max_position_embeddings to 256" in " ".join(found.notes)
    tokenizer = json.loads((tmp_path / "low" / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == 2048


def test_what_was_dropped_is_taken_from_the_conversion(
    conv: Path, trained: Path, tmp_path: Path
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (trained / name).unlink()
    (conv / "LICENSE").write_text("Apache\n")
    (conv / "passkey.jsonl").write_text("{}\n")
    found = finish(trained, conv, tmp_path / "done")
    assert {"tokenizer.json", "generation_config.json", "LICENSE"} <= {*found.taken}
    for name in found.taken:
        assert (tmp_path / "done" / name).read_bytes() == (conv / name).read_bytes()
    assert not (tmp_path / "done" / "passkey.jsonl").exists()


def test_a_tokenizer_that_cuts_is_put_back_and_a_new_token_stays(
    conv: Path, trained: Path, tmp_path: Path
) -> None:
    cut = {"direction": "Right", "max_length": 512, "strategy": "LongestFirst", "stride": 0}
    edit(trained / "tokenizer.json", truncation=cut)
    assert "tokenizer.json" in finish(trained, conv, tmp_path / "one").taken
    original = (conv / "tokenizer.json").read_bytes()
    assert (tmp_path / "one" / "tokenizer.json").read_bytes() == original
    tokens = json.loads(original)["added_tokens"]
    edit(trained / "tokenizer.json", added_tokens=[*tokens, {**tokens[-1], "id": 512}])
    finish(trained, conv, tmp_path / "two")
    kept = (trained / "tokenizer.json").read_bytes()
    assert (tmp_path / "two" / "tokenizer.json").read_bytes() == kept


@pytest.mark.parametrize("clean", [False, True])
def test_in_place(clean: bool, conv: Path, trained: Path) -> None:
    before = snapshot(trained)
    arguments = ["--clean"] if clean else []
    result = invoke("finish", trained, "--from", conv, "--in-place", *arguments, code=0)
    after = snapshot(trained)
    assert ("removed" if clean else "still there") in result.stdout
    assert after["model.safetensors"] == before["model.safetensors"]
    assert after["config.json.orig"] == before["config.json"]
    assert [name in after for name in LEFT] == [not clean] * len(LEFT)
    assert ("runs" in after) is not clean
    again = invoke("finish", trained, "--from", conv, "--in-place", code=3)
    assert "already finished" in again.stderr


def test_clean_follows_no_link(conv: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "optimizer.pt").write_text("mine")
    (trained / "wandb").symlink_to(tmp_path / "mine")
    (trained / "scheduler.pt").symlink_to(tmp_path / "mine" / "optimizer.pt")
    finish(trained, conv, in_place=True, clean=True)
    assert (tmp_path / "mine" / "optimizer.pt").read_text() == "mine"
    assert not (trained / "wandb").is_symlink()


def test_a_cast_is_that_of_torch(conv: Path, trained: Path, tmp_path: Path) -> None:
    found = finish(trained, conv, tmp_path / "done", dtype="auto")
    mine, theirs = (load_file(d / "model.safetensors") for d in (tmp_path / "done", trained))
    assert mine.keys() == theirs.keys()
    for name, weight in theirs.items():
        wanted = torch.from_numpy(weight).to(torch.float16).numpy()
        assert mine[name].tobytes() == wanted.tobytes()
    config = json.loads((tmp_path / "done" / "config.json").read_text())
    assert config["torch_dtype"] == "float16"
    assert found.run.dtype == "F16"
    assert check(tmp_path / "done", strict=True).passed
    assert "--dtype auto" in " ".join(finish(trained, conv, dry_run=True).notes)


NAMES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@pytest.mark.parametrize("old", NAMES)
@pytest.mark.parametrize("new", NAMES)
def test_casts_of_numbers(old: str, new: str) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, dtype=np.uint64).astype(np.uint32)
    values = torch.from_numpy(bits.view(np.float32).copy())
    values = values[values.isfinite() & (values.abs() < 6e4)]
    special = torch.tensor([0.0, -0.0, 1.0, float("inf"), -float("inf"), float("nan"), 1e-40])
    given = torch.cat([values, special]).to(NAMES[old])
    made = converted(given.contiguous().view(torch.uint8).numpy().tobytes(), old, new)
    got = torch.frombuffer(bytearray(made), dtype=NAMES[new])
    torch.testing.assert_close(got, given.to(NAMES[new]), rtol=0, atol=0, equal_nan=True)


def test_a_number_that_does_not_fit_is_refused(conv: Path, trained: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    tensors = load_file(trained / "model.safetensors")
    tensors["model.norm.weight"][0] = 7e4
    save_file(tensors, trained / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"model\.norm\.weight holds a number"):
        finish(trained, conv, tmp_path / "done", dtype="auto")
    assert not (tmp_path / "done").exists()
    finish(trained, conv, tmp_path / "done")


def test_pickled_weights_stay_out(conv: Path, trained: Path, tmp_path: Path) -> None:
    (trained / "pytorch_model.bin").write_bytes(b"\x80\x04")
    finish(trained, conv, tmp_path / "done")
    assert not (tmp_path / "done" / "pytorch_model.bin").exists()
    (trained / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="no safetensors weights"):
        finish(trained, conv, tmp_path / "other")


def test_options_that_contradict(conv: Path, trained: Path, tmp_path: Path) -> None:
    done = tmp_path / "done"
    for arguments, words in (
        ([trained], "--from CONVERTED"),
        ([trained, "--from", conv], "OUT, or --in-place"),
        ([trained, done, "--from", conv, "--in-place"], "OUT, or --in-place"),
        ([trained, done, "--from", conv, "--clean"], "--in-place"),
        ([trained, done, "--from", trained], "same directory"),
        ([trained, "--from", conv, "--in-place", "--dtype", "auto"], "OUT"),
        ([trained, trained / "inner", "--from", conv], "inside"),
        ([trained, conv, "--from", conv, "--overwrite"], "OUT and --from are the same"),
    ):
        assert words in invoke("finish", *arguments, code=2).stderr, words
    with pytest.raises(UsageError):
        finish(trained, conv, done, dtype="float8")
    assert not done.exists()


def test_the_conversion_must_be_what_it_records(conv: Path, trained: Path, tmp_path: Path) -> None:
    edit(conv / "config.json", rope_parameters=YARN4, rope_scaling=YARN4)
    with pytest.raises(CheckpointError, match=r"is not what its yarncli\.json records"):
        finish(trained, conv, tmp_path / "done")
    (conv / "yarncli.json").unlink()
    with pytest.raises(CheckpointError, match=r"factor 8\.0 instead of 4\.0"):
        finish(trained, conv, tmp_path / "done")


def test_a_conversion_of_another_tool(conv: Path, trained: Path, tmp_path: Path) -> None:
    (conv / "yarncli.json").unlink()
    found = finish(trained, conv, tmp_path / "done")
    assert "begins with the training" in found.notes[0]
    assert read_history(open_checkpoint(tmp_path / "done")).trained == found.run


def test_a_finished_model_goes_on(conv: Path, trained: Path, tmp_path: Path) -> None:
    """The second stage of the paper: the window grows again after the training."""
    finish(trained, conv, tmp_path / "done")
    convert(tmp_path / "done", tmp_path / "next", rescale=True, length=4096)
    history = read_history(open_checkpoint(tmp_path / "next"))
    assert [step.command for step in history.steps] == ["convert", "finish", "convert"]
    assert history.trained is None
    text = card(tmp_path / "done", name="me/model").text
    assert "fine-tuned for 60 steps" in text
    assert "weights are unchanged" not in text
    assert "yarncli finish TRAINED" in text


def test_a_trained_folder_is_recognised(conv: Path, trained: Path) -> None:
    def rules(path: Path) -> set[str]:
        return {finding.rule.id for finding in check(path).findings}

    assert "conversion-lost" in rules(trained)
    assert "yarncli finish" in invoke("check", trained).stdout
    assert "conversion-lost" not in rules(conv) | rules(DEMO)
    for name in LEFT:
        (trained / name).unlink()
    assert "conversion-lost" in rules(trained)
