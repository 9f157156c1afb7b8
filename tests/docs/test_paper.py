"""docs/paper.md says what its result files say, and `make paper` makes them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "paper"
FILES = sorted(RESULTS.glob("*.jsonl"))
PAGE = RESULTS.with_suffix(".md")


@pytest.fixture
def page_module(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import paper_page

    return paper_page


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import paper_parts

    return paper_parts.PARTS


def test_the_page_is_what_the_results_say(page_module):
    assert page_module.render(RESULTS) == PAGE.read_text(encoding="utf-8"), "run `make paper`"


def test_the_results_are_those_of_all_parts(parts):
    assert {path.stem for path in FILES} == {part.name for part in parts}
    for part in parts:
        settings = json.loads((RESULTS / f"{part.name}.jsonl").read_text().partition("\n")[0])
        for name in ("lengths", "sliding", "tokens", "depths", "trials", "length", "texts"):
            if name in part.options:
                assert settings["settings"][name] == part.options[name], (part.name, name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_another_result_would_be_seen(path, page_module, tmp_path):
    results = shutil.copytree(RESULTS, tmp_path / "paper")
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    changed = [json.loads(line) for line in lines]
    for entry in changed:
        if "correct" in entry:
            entry["correct"] = not entry["correct"]
        for name in ("nll", "after"):
            if name in entry:
                entry[name] = [1.02 * value for value in entry[name]]
    text = "\n".join([head, *map(json.dumps, changed), ""])
    (results / path.name).write_text(text, encoding="utf-8")
    assert page_module.render(results) != PAGE.read_text(encoding="utf-8")


def test_its_figures_are_there(page_module):
    shown = re.findall(r"!\[.*?\]\((.*?)\)", PAGE.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(f"paper/{name}" for name in page_module.FIGURES)
    assert all((PAGE.parent / name).is_file() for name in shown)


@pytest.mark.full
def test_a_reduced_run_measures_all_and_goes_on_where_it_was(tmp_path, parts):
    command = [sys.executable, str(ROOT / "scripts/paper.py"), "--quick", "--work", str(tmp_path)]
    results, page = tmp_path / "paper", tmp_path / "paper.md"
    written = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
            part.name for part in parts
        ]
        files = {path.name: path.read_bytes() for path in results.glob("*.jsonl")}
        written.append((files, page.read_bytes()))
        # As if the first run had been interrupted: half of a file, and one that is missing.
        cut = results / "sliding-demo.jsonl"
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
        (results / "short-demo.jsonl").unlink()
    assert written[0] == written[1]
    assert len(list(results.glob("*.png"))) == 5
    assert "1/√t" in page.read_text(encoding="utf-8")
