"""ONNX Runtime GenAI's builders and CTranslate2, run where `make test-full` installs them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.wiring.table import is_error
from scripts.wiring.table import read as read_table
from support.exporters import config
from yarncli.engines.judgement import judge

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("YARNCLI_ENGINES_PYTHON")

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        not PYTHON,
        reason="YARNCLI_ENGINES_PYTHON names no Python with engines; make test-full does",
    ),
]


def run(what: str) -> Any:
    """What `support.exporters` prints there."""
    assert PYTHON is not None
    found = subprocess.run(
        [PYTHON, "-m", "support.exporters", what],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"},
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return json.loads(found.stdout.splitlines()[-1])


def said(line: Any) -> Any:
    """A line without the words of its exception, which hold sets in any order."""
    is_failure = isinstance(line, str) and is_error(line)
    return line.partition(":")[0] if is_failure else line


@pytest.mark.parametrize(("engine", "types"), [("onnxruntime-genai", 26), ("ctranslate2", 11)])
def test_the_engine_gives_now_what_its_table_says(engine, types):
    """`test_wiring.py` holds the rules against the same table."""
    _, recorded = read_table(engine)
    given = run(engine)
    assert len(given) >= types
    for kind, outcomes in given.items():
        expected = {name: said(line) for name, line in recorded[kind]["outcomes"].items()}
        assert {name: said(outcomes[name]) for name in expected} == expected, kind


def test_ctranslate2_computes_what_the_rules_say():
    """Its logits are those of transformers with the scaling where it is exact, without it where it
    is ignored, and there are none where it is refused."""
    for name, differences in run("runtime").items():
        kind, scaling = name.split()
        (found,) = judge(config(kind, scaling), engines=["ctranslate2"]).verdicts
        if not differences:
            assert found.status == "refuses", name
            continue
        scaled, plain = differences
        status = "exact" if scaled < 1e-3 else "ignores"
        assert min(scaled, plain) < 1e-3, name
        assert found.status == status, name
