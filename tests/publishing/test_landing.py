"""A push is held against what it lands on: what stays there, and what would stand beside it."""

from __future__ import annotations

import json
import shutil

import pytest
from publishing.test_push import local_files, on_hub, writes

from yarncli.publishing.options import ALLOWABLE

CONFIG, RECORD, WEIGHTS = "config.json", "yarncli.json", "model.safetensors"


@pytest.fixture
def baked(cli, model, tmp_path):
    """The converted demo with its attention factor in the weights."""
    cli("bake", model, tmp_path / "baked")
    return tmp_path / "baked"


def edited(directory, **changes):
    path = directory / CONFIG
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}, indent=2))


def refused(hub, cli, rule, *arguments):
    """The push ends with 1, names both sides and the rule, and writes nothing; --yes is no answer.

    With --allow it goes through.
    """
    hub.log.clear()
    for extra in ([], ["--yes"], ["--dry-run"]):
        told = cli("push", *arguments, *extra, code=1).stderr
        assert f"[{rule}]" in told
        assert str(arguments[1]) in told
        assert writes(hub) == []
    others = [name for name in ALLOWABLE if name != rule]
    cli("push", *arguments, *(f"--allow={name}" for name in others), "--dry-run", code=1)
    found = json.loads(cli("push", *arguments, "--json", code=1).stdout)
    assert [one["rule"] for one in found["findings"]] == [rule]
    assert f"[{rule}]" in cli("push", *arguments, "--allow", rule).stderr
    return told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 96}, "hidden_size 128 here and 96 there"),
        ({"num_hidden_layers": 7}, "num_hidden_layers"),
        ({"vocab_size": 99}, "vocab_size"),
        ({"model_type": "mistral"}, "model_type llama here and mistral there"),
        ({"num_key_value_heads": 1, "head_dim": 64}, "num_key_value_heads"),
    ],
)
@pytest.mark.parametrize("only", [True, False])
def test_another_model_is_not_overwritten(hub, cli, model, demo, tmp_path, changes, said, only):
    theirs = shutil.copytree(demo, tmp_path / "theirs")
    edited(theirs, **changes)
    hub.add_repo("me/long", theirs, private=True)
    arguments = [model, "me/long", *(["--config-only"] if only else [])]
    assert said in refused(hub, cli, "other-model", *arguments)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"model_index.json": b"{}", "unet/model.safetensors": b"x"}, "diffusers"),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}, "PEFT"),
        ({"model-Q4_K_M.gguf": b"GGUF"}, "llama.cpp"),
        ({"onnx/model.onnx": b"x"}, "ONNX"),
        ({"README.md": b"---\nlibrary_name: nemo\n---\n"}, "nemo"),
    ],
)
def test_a_repository_of_another_library(hub, cli, model, files, said):
    hub.add_repo("me/long", files, private=True)
    assert said in refused(hub, cli, "other-library", model, "me/long")


@pytest.mark.parametrize(
    "files",
    [
        {".gitattributes": b""},
        {"README.md": b"---\nlicense: mit\n---\n# Soon\n"},
        {"README.md": b"---\nlibrary_name: transformers\n---\n"},
        {"README.md": b"---\nlibrary_name: [1\n---\n", "notes.txt": b"x"},
    ],
)
def test_a_repository_of_no_library_is_as_good_as_new(hub, cli, model, files):
    hub.add_repo("me/long", files, private=True)
    cli("push", model, "me/long", "--force-card")
    assert WEIGHTS in on_hub(hub, "me/long")


def test_a_baked_config_over_weights_that_are_not(hub, cli, baked, model):
    cli("push", model, "me/long")
    told = refused(hub, cli, "other-weights", baked, "me/long", "--config-only")
    assert "weights without a baked attention factor" in told


def test_a_config_over_weights_that_are_baked(hub, cli, baked, model):
    cli("push", baked, "me/long")
    told = refused(hub, cli, "other-weights", model, "me/long", "--config-only")
    assert "weights with a baked attention factor (1.2" in told


def test_a_baked_config_over_the_same_baked_weights(hub, cli, baked):
    """The record is missing on the Hub, but the bytes prove it."""
    files = {n: d for n, d in local_files(baked).items() if n != RECORD}
    hub.add_repo("me/long", files, private=True)
    cli("push", baked, "me/long", "--config-only")
    assert on_hub(hub, "me/long")[RECORD] == local_files(baked)[RECORD]


def test_baked_weights_go_over_others_with_their_config(hub, cli, baked, model):
    cli("push", model, "me/long")
    cli("push", baked, "me/long")
    assert on_hub(hub, "me/long")[WEIGHTS] == local_files(baked)[WEIGHTS]


def test_a_record_that_would_contradict(hub, cli, model, demo, tmp_path):
    cli("push", model, "me/long")
    other = tmp_path / "other"
    cli("convert", demo, other, "--factor", "4")
    (other / RECORD).unlink()
    told = refused(hub, cli, "record-contradicts", other, "me/long")
    assert "2,048 tokens with yarn" in told


def test_a_record_that_would_contradict_may_be_deleted(hub, cli, model, demo, tmp_path):
    cli("push", model, "me/long")
    other = tmp_path / "other"
    cli("convert", demo, other, "--factor", "4")
    (other / RECORD).unlink()
    cli("push", other, "me/long", "--delete", RECORD)
    assert RECORD not in on_hub(hub, "me/long")


def test_the_record_travels_with_the_config(hub, cli, model, demo, tmp_path):
    cli("push", model, "me/long")
    other = tmp_path / "other"
    cli("convert", demo, other, "--factor", "4")
    cli("push", other, "me/long", "--config-only")
    sent = on_hub(hub, "me/long")
    assert sent[RECORD] == (other / RECORD).read_bytes()
    assert sent[CONFIG] == (other / CONFIG).read_bytes()


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json", RECORD])
def test_config_files_travel_together(hub, cli, model, demo, name):
    hub.add_repo("me/long", demo, private=True)
    (model / name).write_bytes((model / name).read_bytes() + b"\n")
    told = refused(hub, cli, "configs-apart", model, "me/long", "--exclude", name)
    assert f"without {name}" in told


def test_weights_of_the_old_layout(hub, cli, model, sharded, demo):
    """transformers would take the single file, which is the old one."""
    hub.add_repo("me/long", demo, private=True)
    told = refused(hub, cli, "old-weights", sharded, "me/long")
    assert f"--delete {WEIGHTS}" in told


def test_weights_of_the_old_layout_go_in_the_same_commit(hub, cli, model, sharded, demo):
    repo = hub.add_repo("me/long", demo, private=True)
    before = len(repo.commits)
    planned = json.loads(
        cli("push", sharded, "me/long", "--delete", WEIGHTS, "--dry-run", "--json").stdout
    )
    assert planned["deleted"] == [WEIGHTS]
    cli("push", sharded, "me/long", "--delete", WEIGHTS)
    assert len(repo.commits) == before + 1
    found = on_hub(hub, "me/long")
    assert WEIGHTS not in found
    assert "model.safetensors.index.json" in found
    hub.log.clear()
    told = cli("push", sharded, "me/long", "--delete", WEIGHTS).stderr
    assert "matches no file" in told
    assert writes(hub) == []


def test_what_is_sent_is_not_deleted(hub, cli, model):
    hub.add_repo("me/long", {"old.txt": b"x", ".gitattributes": b"*.bin lfs\n"}, private=True)
    cli("push", model, "me/long", "--delete", "*")
    found = on_hub(hub, "me/long")
    assert "old.txt" not in found
    assert {".gitattributes", CONFIG, WEIGHTS} <= set(found)


@pytest.mark.parametrize("name", ["nothing", "secret", "ignored", ""])
def test_only_such_rules_can_be_allowed(hub, cli, model, name):
    told = cli("push", model, "me/long", "--allow", name, code=2).stderr
    assert f"There is no rule for --allow {name!r}. Known: other-library" in told
