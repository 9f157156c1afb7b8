"""Predictions for transformers 5 and 4.x against what the libraries compute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
RECORD = json.loads((FOLDER / "transformers4.json").read_text(encoding="utf-8"))
RELEASES = {
    "4.50.3": "transformers-4.50",
    "4.55.4": "transformers-4.55",
    "4.57.6": "transformers-4.57",
}


def test_every_prediction_for_transformers_5_is_what_it_computes(cases, oracle, problems):
    wrong = {}
    judged = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers tells about keys it does not know
        for name, config, length in cases.all_cases():
            found = problems("transformers-5", config, length, oracle.compute(config, length))
            judged += 1
            if found:
                wrong[name] = found
    assert not wrong
    assert judged >= 1000


@pytest.mark.parametrize("release", RELEASES)
def test_every_prediction_for_transformers_4_is_what_was_recorded(cases, problems, release):
    indices = RECORD["releases"][release]
    wrong = {}
    for (name, config, length), index in zip(cases.all_cases(), indices, strict=True):
        found = problems(RELEASES[release], config, length, RECORD["results"][index])
        if found:
            wrong[name] = found
    assert not wrong


def test_the_four_generations_really_differ(cases):
    """The record would be worthless if every release had computed the same."""
    names = [name for name, _, _ in cases.all_cases()]
    place = names.index("llama yarn-maximum-kept both")
    found = {r: RECORD["results"][RECORD["releases"][r][place]] for r in RELEASES}
    scales = {r: found[r]["scopes"]["model"]["attention_scale"] for r in RELEASES}
    assert scales["4.55.4"] == 1.0  # YaRN switched off
    assert scales["4.57.6"] > 1.2
    extended = names.index("llama yarn both")
    by_release = [RECORD["results"][RECORD["releases"][r][extended]]["scopes"] for r in RELEASES]
    assert by_release[0] != by_release[1] == by_release[2]  # 4.50 places the ramp elsewhere


@pytest.mark.full
def test_transformers_4_57_live(cases, problems):
    python = os.environ.get("YARNCLI_TF4_PYTHON")
    if not python:
        pytest.skip(
            "YARNCLI_TF4_PYTHON names no Python with transformers 4.57; make test-full does"
        )
    assert Path(python).exists(), f"YARNCLI_TF4_PYTHON: there is no {python}"
    listed = [{"config": config, "length": length} for _, config, length in cases.all_cases()]
    run = subprocess.run(
        [python, str(FOLDER / "oracle.py")],
        input=json.dumps({"cases": listed}),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    document = json.loads(run.stdout)
    assert document["transformers"].startswith("4.57"), document["transformers"]
    wrong = {}
    for (name, config, length), result in zip(cases.all_cases(), document["results"], strict=True):
        found = problems("transformers-4.57", config, length, result)
        if found:
            wrong[name] = found
    assert not wrong


def test_no_engine_rule_imports_a_heavy_library():
    code = (
        "import sys; import yarncli.engines.registry; "
        "print([m for m in ('torch', 'transformers', 'numpy', 'rich') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
