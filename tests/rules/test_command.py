"""`yarncli check` as people run it: output, exit codes, and what it does not import."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.program import invoke
from yarncli.rules.catalogue import RULES

ROOT = Path(__file__).resolve().parents[2]
WARNING = {"model_type": "llama", "max_position_embeddings": 4096, "seq_length": 1024}
ERROR = {
    "model_type": "llama",
    "max_position_embeddings": 4096,
    "rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 4},
}
GOOD = {"model_type": "llama", "max_position_embeddings": 4096}

Write = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`yarncli check` in an empty directory, in this process."""
    monkeypatch.chdir(tmp_path)
    return partial(invoke, "check")


@pytest.mark.parametrize(
    ("config", "arguments", "code"),
    [
        (GOOD, [], 0),
        (WARNING, [], 0),
        (WARNING, ["--strict"], 1),
        (WARNING, ["--strict", "--ignore", "stale-length"], 0),
        (ERROR, [], 1),
        (ERROR, ["--ignore", "factor-integer"], 0),
        (ERROR, ["--fix"], 1),
        (WARNING, ["--fix"], 1),
        (GOOD, ["--fix"], 0),
        (GOOD, ["--engine", "vllm"], 0),
        (GOOD, ["--engine", "no-such-engine"], 2),
        (GOOD, ["--ignore", "no-such-rule"], 2),
        (GOOD, ["--format", "xml"], 2),
        (GOOD, ["https://example.org/model"], 2),
    ],
)
def test_exit_codes(
    run: Callable[..., Any], write: Write, config: dict[str, Any], arguments: list[str], code: int
) -> None:
    write(config)
    assert run("config.json", *arguments).exit_code == code


def test_without_a_path_it_says_what_it_needs(run: Callable[..., Any]) -> None:
    result = run()
    assert result.exit_code == 2
    assert "at least one config file" in result.stderr


def test_a_line_of_text_has_place_severity_rule_and_message(
    run: Callable[..., Any], write: Write
) -> None:
    write(ERROR)
    result = run("config.json")
    (line,) = [x for x in result.stdout.splitlines() if "error" in x]
    assert re.fullmatch(r"config\.json:\d+: error\[factor-integer\] .*\(--fix corrects it\)", line)
    assert result.stderr == "error: 1 error, 0 warnings. --fix can correct 1 of these findings.\n"


def test_good_configs_are_passed_in_silence(run: Callable[..., Any], write: Write) -> None:
    write(GOOD)
    result = run("config.json", ".")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_json_is_one_document(run: Callable[..., Any], write: Write) -> None:
    write({**ERROR, "seq_length": 1})
    result = run("config.json", "--json")
    document = json.loads(result.stdout)
    assert document.keys() == {
        "schema_version",
        "findings",
        "changes",
        "errors",
        "warnings",
        "notes",
    }
    assert (document["errors"], document["warnings"], document["notes"]) == (1, 1, 1)
    assert {f["rule"] for f in document["findings"]} <= RULES.keys()
    fixed = json.loads(run("config.json", "--json", "--fix").stdout)
    assert {tuple(c["path"]) for c in fixed["changes"]} == {
        ("rope_scaling", "factor"), ("seq_length",),
    }  # fmt: skip
    assert fixed["errors"] == fixed["warnings"] == 0


def test_json_of_a_fix_that_adds_and_removes_keys_is_one_document(
    run: Callable[..., Any], write: Write
) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
    config = {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32}
    write({**config, "max_position_embeddings": 32768, "rope_parameters": yarn})
    result = run("config.json", "--fix", "--json")
    changes = json.loads(result.stdout)["changes"]
    added = next(change for change in changes if change["path"] == ["rope_scaling"])
    assert "before" not in added
    assert added["after"]["factor"] == 4.0
    assert result.exit_code == 1


def test_github_annotations_are_escaped(run: Callable[..., Any], tmp_path: Path) -> None:
    odd = tmp_path / "a,b:c%.json"
    odd.write_text(json.dumps({**ERROR, "rope_scaling": {"factor": 4, "x\n::error::y": 1}}))
    result = run(odd.name, "--format", "github")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    place = "file=a%2Cb%3Ac%25.json,line=1,title="
    assert all(x.startswith((f"::error {place}", f"::warning {place}")) for x in lines)
    assert len(lines) == 2


def test_sarif_is_what_code_scanning_reads(run: Callable[..., Any], tmp_path: Path) -> None:
    odd = tmp_path / "odd name%é.json"
    odd.write_text(json.dumps({**ERROR, "rope_scaling": {"factor": 4, "x": 1}}))
    result = run(odd.name, "--format", "sarif")
    assert result.exit_code == 1
    log = json.loads(result.stdout)
    # Required properties of a log, a run and a result: SARIF 2.1.0, §3.13, §3.14, §3.27.
    assert log["version"] == "2.1.0"
    (found,) = log["runs"]
    driver = found["tool"]["driver"]
    assert driver["name"] == "yarncli"
    shown = json.loads(run(odd.name, "--json").stdout)["findings"]
    assert [r["message"]["text"] for r in found["results"]] == [f["message"] for f in shown]
    for each, finding in zip(found["results"], shown, strict=True):
        assert each["level"] == finding["severity"]
        assert driver["rules"][each["ruleIndex"]]["id"] == each["ruleId"] == finding["rule"]
        (place,) = each["locations"]
        file = place["physicalLocation"]["artifactLocation"]["uri"]
        assert file == "odd%20name%25%C3%A9.json"  # RFC 3986
        assert place["physicalLocation"]["region"] == {"startLine": finding["line"]}


def test_sarif_of_a_sound_config_has_no_results(run: Callable[..., Any], write: Write) -> None:
    write(GOOD)
    result = run("config.json", "--format", "sarif")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["runs"][0]["results"] == []


def test_every_rule_is_explained(run: Callable[..., Any]) -> None:
    for rule in RULES.values():
        result = run("--explain", rule.id)
        assert result.exit_code == 0
        assert rule.title in result.stdout
        assert rule.breaks in result.stdout
        assert rule.mend in result.stdout
    assert run("--explain", "nonsense").exit_code == 2


def test_fix_says_what_it_changed(run: Callable[..., Any], write: Write) -> None:
    write(ERROR)
    result = run("config.json", "--fix")
    assert "note: changed config.json: rope_scaling.factor 4 → 4.0" in result.stderr
    assert "note: 1 file changed. Review what changed, and commit it again." in result.stderr


def test_each_path_is_checked_once(run: Callable[..., Any], write: Write) -> None:
    write(WARNING)
    result = run("config.json", "config.json", "./tokenizer_config.json", ".", "--whole")
    assert result.stdout.count("stale-length") == 1


def test_a_bad_file_does_not_stop_the_next(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "odd.json").write_text(json.dumps(ERROR))
    result = run("missing.json", "bad.json", "odd.json")
    assert result.exit_code == 1
    for expected in ("missing.json: error[unreadable]", "bad.json:1: error[unreadable]",
                     "odd.json:1: error[factor-integer]"):  # fmt: skip
        assert expected in result.stdout


def test_a_local_config_needs_no_heavy_library(write: Write) -> None:
    path = write(ERROR) / "config.json"
    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        "from yarncli.cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "check", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    loaded = {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}
    assert "yarncli" in loaded
    assert not loaded & {"rich", "numpy", "huggingface_hub", "torch", "transformers", "safetensors"}


def hooks() -> dict[str, dict[str, Any]]:
    return {h["id"]: h for h in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}


@pytest.mark.parametrize(
    ("name", "config_hook", "model_hook"),
    [
        ("config.json", True, True),
        ("models/a/config.json", True, True),
        ("adapter_config.json", False, False),
        ("tokenizer_config.json", False, True),
        ("package.json", False, False),
        ("model.safetensors", False, True),
        ("a/model-00001-of-00002.safetensors", False, True),
        ("model.safetensors.index.json", False, True),
        ("myconfig.json", False, False),
    ],
)
def test_the_hooks_take_the_right_files(name: str, config_hook: bool, model_hook: bool) -> None:
    offered = hooks()
    assert bool(re.search(offered["yarncli-check"]["files"], name)) is config_hook
    assert bool(re.search(offered["yarncli-check-model"]["files"], name)) is model_hook


def test_the_hooks_run_commands_that_exist(run: Callable[..., Any], write: Write) -> None:
    write(GOOD)
    for hook in hooks().values():
        program, command, *arguments = hook["entry"].split()
        assert (program, command) == ("yarncli", "check")
        assert run(*arguments, "config.json").exit_code == 0


def test_the_pages_of_the_docs_are_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "rule_pages.py"))
    folder = ROOT / "docs" / "rules"
    written = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert written == script["pages"]()


def test_the_docs_name_every_hook_and_option() -> None:
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    options = set(re.findall(r"--[a-z-]+", (ROOT / "yarncli/cli/check.py").read_text()))
    for word in {*hooks(), *options}:
        assert word in page, word
