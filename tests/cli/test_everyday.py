"""What a newcomer stumbled over: undo, fix, bake, a missing tokenizer, and what is next."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.checkpoints import DEMO
from support.program import invoke
from yarncli.conversion.undo import undo


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


def backups(model: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in model.glob("*.orig*")}


def test_undo_leaves_no_backup_of_what_is_there_again_and_names_the_others(model):
    before = (model / "config.json").read_bytes()
    left = []
    for _ in range(3):
        invoke("convert", model, "--in-place", "--factor", 4, code=0)
        converted = (model / "config.json").read_bytes()
        told = invoke("convert", model, "--undo", code=0).stderr
        assert (model / "config.json").read_bytes() == before
        left.append(backups(model))
        assert all(name in told for name in left[-1])
    assert left[0] == left[1] == left[2], "backups of the same states do not multiply"
    assert list(left[0].values()).count(converted) == 1
    assert before not in left[0].values()


def test_undo_keeps_every_state_that_is_nowhere_else(model):
    invoke("convert", model, "--in-place", "--factor", 4, code=0)
    (model / "config.json.orig.7").write_bytes(b"mine")
    (model / "config.json.original").write_bytes((DEMO / "config.json").read_bytes())
    (model / "config.json.orig.8").symlink_to("config.json")
    found = undo(str(model)).backups
    assert (model / "config.json.orig.7").read_bytes() == b"mine"
    assert (model / "config.json.original").exists()
    assert (model / "config.json.orig.8").is_symlink()
    assert {"config.json.orig.7", "config.json.orig.8"} <= set(found)


def test_a_fix_that_worked_is_a_note_and_one_that_did_not_an_error(model):
    config = json.loads((model / "config.json").read_text())
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    (model / "config.json").write_text(json.dumps({**config, "rope_scaling": scaling}))
    told = invoke("check", model, "--fix", code=1).stderr
    assert "error" not in told
    assert "changed. Review what changed, and commit it again.\n" in told
    invoke("check", model, "--fix", code=0)
    assert "error:" in invoke("check", model, "--fix", "--engine", "ollama", code=1).stderr


def test_bake_tells_how_many_engines_are_right_before_and_after(model, tmp_path):
    invoke("convert", model, tmp_path / "long", "--factor", 4, code=0)

    def exact(source: Path) -> int:
        found = json.loads(invoke("engines", source, "--json", code=0).stdout)["engines"]
        return sum(each["status"] == "exact" for each in found)

    told = invoke("bake", tmp_path / "long", tmp_path / "baked", code=0).stderr
    before, after = exact(tmp_path / "long"), exact(tmp_path / "baked")
    assert before != after
    assert f"{before} before the bake, {after} after, of" in told
    assert "the same everywhere" not in invoke("bake", "--help").stdout


@pytest.mark.parametrize("kind", ["files", "words"])
def test_a_missing_tokenizer_is_named(model, kind):
    pytest.importorskip("transformers")
    (model / "tokenizer.json").unlink()
    if kind == "words":  # transformers makes one that knows no word
        (model / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    told = invoke("check-passkey", model, "--lengths", 200, code=3).stderr
    assert f"{model} has no usable tokenizer. Put tokenizer.json" in told
    assert "filler" not in told


@pytest.mark.parametrize("in_place", [False, True])
def test_what_is_written_is_served_by_the_lines_that_follow(model, tmp_path, in_place):
    place = model if in_place else tmp_path / "long"
    where = ["--in-place"] if in_place else [place]
    for command in (["convert", "--factor", 4], ["bake"]):
        source = model if in_place or command[0] == "convert" else tmp_path / "long"
        target = where if command[0] == "convert" or in_place else [tmp_path / "baked"]
        result = invoke(command[0], source, *target, *command[1:], code=0)
        name = target[0] if not in_place else model
        assert f"vllm: vllm serve {name} --max-model-len 1024" in result.stdout
        assert f"python convert_hf_to_gguf.py {name} --outfile" in result.stderr
        assert f"--from {name}" in result.stderr
