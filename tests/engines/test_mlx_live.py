"""mlx-lm itself, on a CPU, beside what its rules say: every model type of its table.

`make test-full` makes the environment; the model files run there in one process.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scripts.wiring.table import read as read_table
from support.wiring import configs
from yarncli.config.families.table import FAMILIES
from yarncli.engines.loaders import read_model
from yarncli.engines.registry import ENGINES
from yarncli.engines.types import Model, NoReading, NotKnown, NotSupported, Reading
from yarncli.errors import CheckpointError

PYTHON = os.environ.get("YARNCLI_MLX_PYTHON")
FOLDER = Path(__file__).parent
RECORDED = json.loads((FOLDER / "recorded" / "configs.json").read_text(encoding="utf-8"))
PROBES = {
    "rope_scaling null", "default both", "default v5", "no theta", "linear both", "dynamic both",
    "yarn legacy", "yarn v5", "yarn both", "llama3 both", "longrope both", "yarn baked",
    "yarn mscale", "yarn no original", "yarn betas null", "yarn top original",
}  # fmt: skip
SHORT = 100

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PYTHON, reason="YARNCLI_MLX_PYTHON names no Python with mlx-lm"),
]


def questions() -> list[tuple[str, dict[str, Any]]]:
    """Name and config: the recorded ones, and some probes of every model type of the table."""
    found = [(each["name"], each["config"]) for each in RECORDED]
    for kind, entry in read_table("mlx-lm")[1].items():
        if kind in FAMILIES and "outcomes" in entry:
            found += [(f"{kind}, {n}", c) for n, _, c in configs(kind, entry) if n in PROBES]
    return found


def ask(asked: list[Model]) -> list[dict[str, Any]]:
    """What mlx-lm gives for each config, at its own window and for a short text."""
    given = [{"config": m.config, "lengths": [m.length, SHORT]} for m in asked]
    script = FOLDER.parent / "support" / "mlx_models.py"
    run = subprocess.run(
        [str(PYTHON), str(script)], input=json.dumps(given), capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """The config without a scaling, in both spellings: what fails here fails whatever is asked."""
    found = {k: plain(v) if k == "text_config" else v for k, v in config.items()}
    if "text_config" not in config:
        default = {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 0.5}
        family = FAMILIES.get(str(config.get("model_type")))
        names = [rule.name for rule in family.scopes] if family else []
        block = dict.fromkeys(names, default) or default
        found |= {"rope_theta": 5e5, "rope_scaling": None, "rope_parameters": block}
    return found


def prediction(model: Model) -> Reading | NoReading:
    try:
        return ENGINES["mlx-lm"].read(model)
    except NoReading as error:
        return error


def problem(model: Model, ours: Reading, theirs: dict[str, Any]) -> str:
    """How numbers of ours differ from those of mlx-lm; empty where they do not."""
    if "error" in theirs:
        return f"did not predict {theirs['error']}"
    for name, used in ours.scopes.items():
        layers = model.rope.scopes[name].layers
        for part in theirs["modules"]:
            of_one = len(ours.scopes) == 1 and part["layer"] is None
            if not of_one and part["layer"] not in layers:
                continue
            for length, freqs, scale in zip(
                (model.length, SHORT), part["inv_freq"], part["scale"], strict=True
            ):
                mine = used.parameters.inv_freq(length)
                if not close(mine, freqs):
                    return f"{part['path']}: frequencies at {length} tokens"
                if not math.isclose(used.attention_factor, scale, rel_tol=1e-5):
                    return f"{part['path']}: scale {used.attention_factor}, not {scale}"
            if not math.isclose(used.softmax_scale_ratio, part["softmax"], rel_tol=1e-5):
                return f"{part['path']}: softmax {used.softmax_scale_ratio}, not {part['softmax']}"
    return ""


def close(ours: list[float], theirs: list[float]) -> bool:
    return len(ours) == len(theirs) and all(
        math.isclose(a, b, rel_tol=3e-5, abs_tol=1e-9) for a, b in zip(ours, theirs, strict=True)
    )


def test_the_rules_say_what_mlx_lm_computes():
    asked, controls, distinct = [], [], {}
    for name, config in questions():
        try:
            model = read_model(config)
            control = read_model(plain(config))
        except CheckpointError:
            continue  # the command stops there, so nothing is claimed
        asked.append((model, name))
        distinct.setdefault(json.dumps(control.config), control)
        controls.append(json.dumps(control.config))
    answers = ask([model for model, _ in asked] + list(distinct.values()))
    plain_ones = dict(zip(distinct, answers[len(asked) :], strict=True))
    wrong, counted = [], Counter()
    for (model, name), theirs, key in zip(asked, answers, controls, strict=False):
        control = plain_ones[key]
        ours = prediction(model)
        if isinstance(ours, NotSupported):
            assert "error" in theirs, name
            counted["unsupported"] += 1
        elif "error" in control or not control["modules"]:
            counted["not built"] += 1  # a size that this small config lacks
        elif isinstance(ours, NotKnown):
            counted["unknown"] += 1
        elif isinstance(ours, NoReading):
            counted["failures"] += 1
            if "error" not in theirs:
                counted["false alarms"] += 1
                wrong.append(f"{name}: predicted a failure: {ours}")
        else:
            counted["numbers"] += 1
            found = problem(model, ours, theirs)
            if ours.faults:
                # Right numbers in the wrong layers: a fault that is none would be a false alarm.
                found = "" if found else f"no fault: {ours.faults}"
            wrong += [f"{name}: {found}"] if found else []
    judged = counted["failures"] + counted["numbers"]
    assert not wrong, "\n".join([*wrong[:60], f"{len(wrong)} wrong", str(counted)])
    assert judged >= 900, counted
    assert counted["unknown"] <= 0.1 * judged, counted
    assert counted["not built"] <= 0.1 * judged, counted
