"""What speaks against publishing is found before a request is sent."""

from __future__ import annotations

import json
import re

import pytest

TOKEN_TEXT = "hf_" + "Ab3" * 12


def local_files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def refused(hub, cli, model, *arguments):
    result = cli("push", model, "me/long", *arguments, code=1)
    assert "Nothing was sent" in result.stderr
    assert hub.log == []
    return result.stderr


def test_all_findings_come_at_once(hub, cli, model):
    config = json.loads((model / "config.json").read_text())
    config["rope_scaling"]["factor"] = 4.0
    (model / "config.json").write_text(json.dumps(config))
    (model / "extra.bin").write_bytes(b"x")
    (model / "notes.md").write_text(f"token {TOKEN_TEXT}\n")
    told = refused(hub, cli, model)
    for rule in ("spelling-conflict", "pickle", "secret"):
        assert f"[{rule}]" in told
    assert "allow it with --allow pickle. [pickle]" in told  # what to do comes along
    assert f"error: {model / 'config.json'}: " in told
    assert TOKEN_TEXT not in told


def test_findings_as_json(hub, cli, model):
    (model / "extra.bin").write_bytes(b"x")
    result = cli("push", model, "me/long", "--json", code=1)
    assert "pickle" in [found["rule"] for found in json.loads(result.stdout)["findings"]]


@pytest.mark.parametrize(
    "text",
    [
        TOKEN_TEXT,
        "AKIA" + "A1" * 8,
        "-----BEGIN RSA PRIVATE KEY-----",
        "ghp_" + "a1" * 18,
        "xoxb-" + "1" * 24,
        "AIza" + "b" * 35,
    ],
    ids=["hub", "aws", "private key", "github", "slack", "google"],
)
def test_a_secret_in_a_text_is_found_but_not_shown(hub, cli, model, text):
    (model / "train.py").write_text(f"# ok\nkey = '{text}'\n")
    told = refused(hub, cli, model)
    assert "train.py holds what looks like" in told
    assert "(line 2)" in told
    assert text not in told


def test_a_pickle_may_be_insisted_on(hub, cli, model):
    (model / "extra.pt").write_bytes(b"x")
    assert "[pickle]" in refused(hub, cli, model)
    assert "[weights-twice]" in cli("push", model, "me/long", "--allow", "pickle").stderr


def test_a_pickle_may_be_left_out(hub, cli, model):
    (model / "extra.pt").write_bytes(b"x")
    cli("push", model, "me/long", "--exclude", "*.pt")
    assert "extra.pt" not in hub.repos["me/long"].commits[hub.repos["me/long"].refs["main"]]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_is_no_file(hub, cli, model, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 9\n"
    (model / name).write_text(pointer)
    assert "error" in refused(hub, cli, model)


def test_a_truncated_shard(hub, cli, model):
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-2])
    assert "[shard-damaged]" in refused(hub, cli, model)


def test_missing_weights(hub, cli, model):
    (model / "model.safetensors").unlink()
    assert "[shard-missing]" in refused(hub, cli, model)


def test_a_missing_shard(hub, cli, sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    told = refused(hub, cli, sharded)
    assert "model-00002-of-00002.safetensors" in told
    assert "[shard-missing]" in told


def test_an_index_that_forgets_a_tensor(hub, cli, sharded):
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"].popitem()
    path.write_text(json.dumps(index))
    assert "[tensor-unlisted]" in refused(hub, cli, sharded)


def test_links_within_the_folder_are_followed(hub, cli, model):
    (model / "model.safetensors").rename(model / "weights.safetensors")
    (model / "model.safetensors").symlink_to("weights.safetensors")
    cli("push", model, "me/long", "--exclude", "weights*")
    stored = hub.repos["me/long"].commits[hub.repos["me/long"].refs["main"]]
    sent = hub.blob(stored["model.safetensors"]).read_bytes()
    assert sent == (model / "weights.safetensors").read_bytes()


def test_a_link_out_of_the_folder(hub, cli, model, tmp_path):
    (tmp_path / "private.txt").write_text("mine")
    (model / "notes.txt").symlink_to(tmp_path / "private.txt")
    assert "[outside-link]" in refused(hub, cli, model)


def test_a_baked_config_that_applies_the_temperature_again(hub, cli, model):
    config = json.loads((model / "config.json").read_text())
    config["yarncli_baked"] = {"form": "neutral", "side": "k", "attention_factor": {"model": 1.2}}
    (model / "config.json").write_text(json.dumps(config))
    assert "[baked-twice]" in refused(hub, cli, model)


def test_training_state_backups_and_secrets_stay(hub, cli, model):
    stays = [
        "config.json.orig", "config.json.orig.2", "optimizer.pt", "rng_state_0.pth", "hf_token",
        "scheduler.pt", "training_args.bin", ".env", "id_rsa", "token.txt", "trainer_state.json",
        "checkpoint-500/model.safetensors", "runs/events.out.tfevents.1", "shard.tmp", ".DS_Store",
    ]  # fmt: skip
    goes = ["special_tokens_map.json", "added_tokens.json", "tokenizer.model", "LICENSE"]
    for name in stays + goes:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"{}")
    plan = json.loads(cli("push", model, "me/long", "--dry-run", "--json").stdout)
    assert set(plan["left_out"]) == set(stays)
    assert set(goes) <= {file["name"] for file in plan["files"]}


def test_a_missing_tokenizer_is_a_warning(hub, cli, model):
    (model / "tokenizer.json").unlink()
    assert "[tokenizer-missing]" in cli("push", model, "me/long").stderr


def test_the_licence_must_be_known_where_it_is_public(hub, cli, model):
    (model / "README.md").unlink()
    assert "[licence-unknown]" in refused(hub, cli, model, "--public")
    assert "warning" in cli("push", model, "me/private").stderr
    cli("push", model, "me/open", "--public", "--license", "mit")
    (model / "LICENSE").write_text("Do what you like.")
    cli("push", model, "me/open2", "--public")


def test_an_interrupted_change_comes_first(hub, cli, model):
    (model / "config.json").rename(model / "config.json.yarncli-pending")
    (model / "yarncli-journal.bin").write_bytes(b"")
    assert "--recover" in cli("push", model, "me/long", code=3).stderr
    assert hub.log == []


BAKED = {"form": "neutral", "side": "k", "layout": "plain", "attention_factor": {"model": 1.2}}


def test_the_base_of_from_must_fit(hub, cli, demo, tmp_path):
    hub.add_repo("org/base", demo)
    hub.add_repo("org/another", demo)
    out = tmp_path / "out"
    cli("convert", "hf://org/base", out, "--factor", "8", "--config-only")
    result = cli("push", out, "me/long", "--from", "org/another", code=1)
    assert re.search(r"was made from org/base@\w{40}, not from org/another@", result.stderr)
    hub.commit("org/base", {**local_files(demo), "notes.md": b"later"})
    result = cli("push", out, "me/long", "--from", "org/base@main", code=1)
    assert "[base-other]" in result.stderr
    history = json.loads((out / "yarncli.json").read_text())
    history["steps"].append({**history["steps"][0], "command": "bake", "baked": BAKED})
    (out / "yarncli.json").write_text(json.dumps(history))
    result = cli("push", out, "me/long", "--from", "org/base", code=1)
    assert "[base-baked]" in result.stderr


def test_a_base_of_from_that_is_not_recorded_is_a_warning(hub, cli, demo, tmp_path):
    hub.add_repo("org/base", demo)
    cli("convert", demo, tmp_path / "out", "--factor", "8", "--config-only")
    result = cli("push", tmp_path / "out", "me/long", "--from", "org/base")
    assert "Nothing records that" in result.stderr


def test_a_gated_base_is_named_where_the_copy_is_public(hub, cli, demo, tmp_path):
    hub.add_repo("org/base", demo, gated=True)
    hub.users["hf_" + "t" * 34].may_read.add("org/base")
    cli("convert", "hf://org/base", tmp_path / "out", "--factor", "8")
    result = cli("push", tmp_path / "out", "me/long", "--public")
    assert "org/base is gated, but the target is public" in result.stderr
