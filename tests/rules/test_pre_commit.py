"""The hooks in a real model repository, through `pre-commit try-repo`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 5000\n" % (b"0" * 64)
GOOD = {"model_type": "llama", "max_position_embeddings": 4096, "rope_theta": 10000.0}
BROKEN = {**GOOD, "rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 4}}


def git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.email=a@example.org", "-c", "user.name=A"]
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def hook_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package as a git repository of its own."""
    place = tmp_path_factory.mktemp("hooks")
    shutil.copytree(ROOT / "yarncli", place / "yarncli", ignore=lambda _, n: {"__pycache__"} & {*n})
    for name in ("pyproject.toml", ".pre-commit-hooks.yaml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    git(place, "init", "-q", ".")
    git(place, "add", "-A")
    git(place, "commit", "-qm", "hooks")
    return place


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pre-commit")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", ".")
    (tmp_path / "package.json").write_text("{}")
    return tmp_path


def try_repo(
    model: Path, hooks: Path, home: Path, hook: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    git(model, "add", "-A")
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", "try-repo", str(hooks), hook, "--all-files",
         "--color=never", *arguments],
        cwd=model,
        env={**os.environ, "PRE_COMMIT_HOME": str(home)},
        capture_output=True,
        text=True,
    )  # fmt: skip


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_broken_config_fails_and_is_mended(
    model: Path, hook_repository: Path, home: Path
) -> None:
    (model / "config.json").write_text(json.dumps(BROKEN, indent=2) + "\n")
    done = try_repo(model, hook_repository, home, "yarncli-check")
    assert done.returncode == 1
    assert "config.json:8: error[factor-integer]" in done.stdout
    # try-repo takes no hook arguments, so the fix runs as `pre-commit run` would run it.
    fix = {"repo": str(hook_repository), "rev": "HEAD",
           "hooks": [{"id": "yarncli-check", "args": ["--fix"]}]}  # fmt: skip
    (model / ".pre-commit-config.yaml").write_text(json.dumps({"repos": [fix]}))
    git(model, "add", "-A")
    command = [sys.executable, "-m", "pre_commit", "run", "--all-files", "--color=never"]
    environment = {**os.environ, "PRE_COMMIT_HOME": str(home)}
    first = subprocess.run(command, cwd=model, env=environment, capture_output=True, text=True)
    assert first.returncode == 1
    assert "files were modified by this hook" in first.stdout
    assert '"factor": 4.0' in (model / "config.json").read_text()
    git(model, "add", "-A")
    second = subprocess.run(command, cwd=model, env=environment, capture_output=True, text=True)
    assert second.returncode == 0


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_good_model_passes_and_pointers_are_noticed(
    model: Path, hook_repository: Path, home: Path
) -> None:
    (model / "config.json").write_text(json.dumps(GOOD))
    for name in ("model.safetensors", "model.gguf"):
        (model / name).write_bytes(POINTER)
    done = try_repo(model, hook_repository, home, "yarncli-check-model", "--verbose")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model.safetensors: note[lfs-pointer]" in done.stdout
    assert "model.gguf: note[lfs-pointer]" in done.stdout
