"""The tables of docs/training.md say what its result files say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from support.checkpoints import ROOT

RESULTS = ROOT / "docs" / "training"
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import training_results

    return training_results


def test_the_tables_are_what_the_results_say(script: ModuleType) -> None:
    assert {path.stem for path in RESULTS.glob("*.jsonl")} == script.ROWS.keys()
    assert script.render(PAGE) == PAGE, "run scripts/training_results.py"


def test_the_results_are_complete(script: ModuleType) -> None:
    for name, prompts in script.PROMPTS.items():
        head, *lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        settings = json.loads(head)["settings"]
        assert {key: settings[key] for key in prompts} == prompts
        assert settings["lengths"] == script.LENGTHS
        count = len(script.LENGTHS) * prompts["depths"] * prompts["trials"]
        assert len(lines) == count


def test_another_result_would_be_seen(script: ModuleType, tmp_path: Path) -> None:
    for name in script.ROWS:
        results = shutil.copytree(RESULTS, tmp_path / name)
        head, *lines = (results / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        changed = [json.loads(line) for line in lines]
        for entry in changed:
            entry["correct"] = not entry["correct"]
        text = "\n".join([head, *map(json.dumps, changed), ""])
        (results / f"{name}.jsonl").write_text(text, encoding="utf-8")
        assert script.render(PAGE, results) != PAGE


def test_a_row_that_is_missing_is_an_error(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="0 rows"):
        script.render("")
