"""What `make release-check` holds against each other, and the workflows that nothing here runs."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYTHON = os.environ.get("YARNCLI_RELEASE_PYTHON")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("changes", "citation", "tag", "wrong"),
    [
        ("## [Unreleased]\n\n- x\n", "version: 1.2.0\n", "", []),
        ("## [Unreleased]\n", "version: 1.2.0\n", "", ["has no section '## [1.2.0] - YYYY"]),
        ("## [Unreleased]\n\n- x\n", "version: 1.2.0\n", "v1.2.0",
         ["still has lines under [Unreleased]", "has no section"]),
        ("## [1.2.0] - 2026-12-01\n", "version: 1.2.0\ndate-released: 2026-12-01\n", "v1.2.0", []),
        ("## [1.2.0] - 2026-12-01\n", "version: 1.2.0\ndate-released: 2026-12-01\n", "v1.2.1",
         ["The tag is v1.2.1, and yarncli/__init__.py says 1.2.0."]),
        ("## [1.2.0] - 2026-12-01\n", "version: 1.1.0\n", "v1.2.0",
         ["does not have the date of CHANGELOG.md, 2026-12-01", "does not have the version 1.2.0"]),
        ("## [Unreleased]\n\n## [1.2.0] - 2026-12-01\n\n- x\n",
         "version: 1.2.0\ndate-released: 2026-12-01\n", "v1.2.0", []),
    ],
)  # fmt: skip
def test_version_tag_changelog_and_citation_agree(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: str,
    citation: str,
    tag: str,
    wrong: list[str],
) -> None:
    (tmp_path / "yarncli").mkdir()
    (tmp_path / "yarncli" / "__init__.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{changes}")
    (tmp_path / "CITATION.cff").write_text(citation)
    check = script("release_check")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    found = list(check.wrong_texts(tag))
    assert len(found) == len(wrong)
    assert all(expected in text for expected, text in zip(wrong, found, strict=True)), found


@pytest.mark.full
@pytest.mark.timeout(600)
def test_this_tree_can_be_released(tmp_path: Path) -> None:
    if not PYTHON:
        pytest.skip("YARNCLI_RELEASE_PYTHON names no Python; `make test-full` sets it")
    command = [PYTHON, ROOT / "scripts" / "release_check.py", "--out", tmp_path / "dist"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_read_only_and_pin_what_they_use(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        allowed = {"id-token": "write"} if name == "publish" else {"contents": "read"}
        assert job["permissions"] == allowed, name
        used = [step["uses"] for step in job.get("steps", ()) if "uses" in step]
        assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used), name


def test_workflows_call_targets_and_scripts_that_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    targets = re.findall(r"\bmake ([a-z-]+)", told)
    assert {"lint", "test-full", "coverage", "site", "release-check"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    scripts = re.findall(r"python (scripts/\w+\.py)", told)
    assert scripts
    assert all((ROOT / name).is_file() for name in scripts)


def test_the_tests_that_wheels_are_tried_with_are_there() -> None:
    tests = script("wheel_tests")
    for name in (*tests.NEED_SOURCES, *tests.WINDOWS, *tests.LOWEST):
        assert (ROOT / name).exists(), name
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "wheel_tests.py"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr.startswith("Install the wheel first")


def test_the_lowest_versions_are_those_of_pyproject() -> None:
    found = script("lowest_versions").lowest(extras=True)
    assert found["numpy"] == "1.26"
    assert found["safetensors"] == "0.8", "the higher of two bounds"
    assert script("lowest_versions").lowest(extras=False)["safetensors"] == "0.6.1"
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f'"{name}>={version}' in text for name, version in found.items())


@pytest.mark.parametrize("form", ["bug", "model"])
def test_the_forms_ask_for_what_inspect_says(form: str) -> None:
    path = ROOT / ".github" / "ISSUE_TEMPLATE" / f"{form}.yml"
    body = yaml.safe_load(path.read_text(encoding="utf-8"))["body"]
    asked = [entry for entry in body if "inspect --json" in entry["attributes"].get("label", "")]
    assert [entry["validations"]["required"] for entry in asked] == [True]
