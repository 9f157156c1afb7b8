"""The pages about publishing do what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks(page, language):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [code for kind, code in BLOCKS.findall(text) if kind == language]


def test_from_checkpoint_to_hub_in_four_commands(hub, program, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    commands = [shlex.split(code) for code in blocks("from-checkpoint-to-hub.md", "sh")]
    names = [words[1] for words in commands]
    assert names == ["demo", "convert", "check-passkey", "card", "push", "check"]
    for words in commands:
        done = program(*(word.replace("YOU", "me") for word in words[1:]), cwd=tmp_path)
        if words[1] == "push":
            repo = hub.repos["me/demo-2k"]
            assert done.stdout == f"{hub.url}/me/demo-2k/commit/{repo.refs['main']}\n"
    files = repo.commits[repo.refs["main"]]
    shard = hub.blob(files["model.safetensors"]).read_bytes()
    assert shard == (tmp_path / "model-yarn8" / "model.safetensors").read_bytes()
    assert {"passkey.png", "yarncli.json", "tokenizer.json"} <= files.keys()
    card = hub.blob(files["README.md"]).read_text()
    assert "yarncli convert" in card
    assert "| 2,048 |" in card


def test_the_snippets_name_hooks_and_options_that_exist(cli):
    yaml = pytest.importorskip("yaml")
    pre_commit, *others = map(yaml.safe_load, blocks("hooks.md", "yaml"))
    workflows = [found for found in others if isinstance(found, dict)]
    (scanning,) = (found for found in others if isinstance(found, list))  # steps of a job
    offered = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    (repo,) = pre_commit["repos"]
    assert {hook["id"] for hook in repo["hooks"]} == {hook["id"] for hook in offered}
    known = cli("check", "--help").stdout
    runs = [step["run"] for w in workflows for step in w["jobs"]["rope"]["steps"] if "run" in step]
    runs += [step["run"] for step in scanning if "run" in step]
    lines = [line for line in runs if line.startswith("yarncli")]
    assert len(lines) == 3
    given = {word for line in lines for word in line.split() if word.startswith("--")}
    given |= {word for hook in repo["hooks"] for word in hook.get("args", ())} - {"vllm"}
    assert all(re.search(rf"{option}\b", known) for option in given)
