"""Predictions for transformers 5 and 4.x against what the libraries compute."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from support import engine_cases as cases
from support import engine_oracle as oracle
from yarncli.engines.loaders import read_model
from yarncli.engines.registry import ENGINES
from yarncli.engines.types import NoReading

FOLDER = Path(__file__).parent
RECORD = json.loads((FOLDER / "transformers4.json").read_text(encoding="utf-8"))
RELEASES = {
    "4.50.3": "transformers-4.50",
    "4.55.4": "transformers-4.55",
    "4.57.6": "transformers-4.57",
}


def problems(engine_id: str, config: Any, length: int, result: Any) -> list[str]:
    """How the prediction for a config differs from a recorded or computed result."""
    try:
        reading = ENGINES[engine_id].read(read_model(config, length=length))
    except NoReading as error:
        return [] if "error" in result else [f"predicted a failure: {error}"]
    if "error" in result:
        return [f"did not predict the failure {result['error']}"]
    if set(reading.scopes) != set(result["scopes"]):
        return [f"scopes {set(reading.scopes)}, not {set(result['scopes'])}"]
    found = []
    for name, used in reading.scopes.items():
        theirs = result["scopes"][name]
        ours = used.parameters.inv_freq(length)
        if len(ours) != theirs.get("pairs", len(theirs["inv_freq"])):
            found.append(f"{name}: {len(ours)} pairs")
            continue
        kept = theirs["inv_freq"]
        pairs = kept.items() if isinstance(kept, dict) else enumerate(kept)
        wrong = [int(i) for i, f in pairs if not math.isclose(ours[int(i)], f, rel_tol=3e-6)]
        if wrong:
            found.append(f"{name}: frequencies {wrong}")
        if not math.isclose(used.attention_factor, theirs["attention_factor"], rel_tol=1e-6):
            found.append(f"{name}: scale {used.attention_factor}, not {theirs['attention_factor']}")
    softmax = next(iter(reading.scopes.values())).softmax_scale_ratio
    if not math.isclose(softmax, result["softmax"], rel_tol=1e-6):
        found.append(f"softmax {softmax}, not {result['softmax']}")
    return found


def test_every_prediction_for_transformers_5_is_what_it_computes():
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
def test_every_prediction_for_transformers_4_is_what_was_recorded(release):
    indices = RECORD["releases"][release]
    wrong = {}
    for (name, config, length), index in zip(cases.all_cases(), indices, strict=True):
        found = problems(RELEASES[release], config, length, RECORD["results"][index])
        if found:
            wrong[name] = found
    assert not wrong


def test_the_four_generations_really_differ():
    """The record would be worthless if every release had computed the same."""
    names = [name for name, _, _ in cases.all_cases()]
    place = names.index("llama yarn-maximum-kept both")
    found = {r: RECORD["results"][RECORD["releases"][r][place]] for r in RELEASES}
    scales = {r: found[r]["scopes"]["model"]["attention_factor"] for r in RELEASES}
    assert scales["4.55.4"] == 1.0  # YaRN switched off
    assert scales["4.57.6"] > 1.2
    extended = names.index("llama yarn both")
    by_release = [RECORD["results"][RECORD["releases"][r][extended]]["scopes"] for r in RELEASES]
    assert by_release[0] != by_release[1] == by_release[2]  # 4.50 places the ramp elsewhere


@pytest.mark.full
def test_transformers_4_57_live():
    python = os.environ.get("YARNCLI_TF4_PYTHON")
    if not python:
        pytest.skip(
            "YARNCLI_TF4_PYTHON names no Python with transformers 4.57; make test-full does"
        )
    assert Path(python).exists(), f"YARNCLI_TF4_PYTHON: there is no {python}"
    listed = [{"config": config, "length": length} for _, config, length in cases.all_cases()]
    run = subprocess.run(
        [python, oracle.__file__],
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
