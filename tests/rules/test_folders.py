"""`check FOLDER`: every checkpoint below a folder that is none itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.checkpoints import DEMO
from support.program import invoke
from yarncli import check

BROKEN = json.dumps({"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": -1}})


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A sound checkpoint, and broken ones at several depths and in hidden places."""
    folder = tmp_path / "models"
    shutil.copytree(DEMO, folder / "good")
    for place in ("bad", "org/deep", ".cache/hidden", "good/inner"):
        (folder / place).mkdir(parents=True)
        (folder / place / "config.json").write_text(BROKEN)
    (folder / "lora").mkdir()
    (folder / "lora" / "adapter_config.json").write_text("{}")
    (folder / "notes.txt").write_text("no model")
    return folder


def test_every_checkpoint_below_a_folder_is_checked(models):
    files = {Path(finding.file).relative_to(models) for finding in check(models).findings}
    assert {file.parent.as_posix() for file in files} == {"bad", "org/deep", "lora"}


def test_the_program_names_each_file_and_fails(models):
    result = invoke("check", models, code=1)
    assert f"{models}/bad/config.json" in result.stdout
    assert f"{models}/org/deep/config.json" in result.stdout


def test_gguf_files_are_found_but_for_later_parts(tmp_path):
    for name in ("a.gguf", "b-00001-of-00002.gguf", "b-00002-of-00002.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    files = {Path(finding.file).name for finding in check(tmp_path).findings}
    assert files == {"a.gguf", "b-00001-of-00002.gguf"}


def test_a_folder_without_a_model_is_still_an_error(tmp_path):
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    assert "it has no config.json" in invoke("check", tmp_path / "empty", code=1).stdout


def test_a_shard_stands_for_its_own_directory_alone(models):
    shard = models / "stray.safetensors"
    shard.write_bytes(b"x")
    assert {finding.file for finding in check(str(shard)).findings} == {str(models)}
