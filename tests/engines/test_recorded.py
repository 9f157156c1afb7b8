"""The rules give the numbers that the engine itself gave for 376 configs.

`recorded/configs.json` has the configs, a third of them what `yarncli convert` writes;
`recorded/<engine>.json` what the engine's own loaders, model files and rotary classes made of them.
`scripts/wiring/record.py` writes both, and explains the format.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from yarncli.engines.loaders import read_model
from yarncli.engines.registry import ENGINES
from yarncli.engines.types import NoReading, NotKnown, NotSupported
from yarncli.errors import CheckpointError

RECORDED = Path(__file__).parent / "recorded"
CASES = json.loads((RECORDED / "configs.json").read_text(encoding="utf-8"))
SHORT_TEXT = 100


def recorded(engine):
    """The engine's result for every case."""
    found = json.loads((RECORDED / f"{engine}.json").read_text(encoding="utf-8"))
    return [found["results"][index] for index in found["cases"]]


def differences(result, config, engine):
    """What the rules say otherwise than the engine; `None` where they do not know.

    A result that names another engine's code has no numbers: the served length is compared.
    """
    try:
        reading = ENGINES[engine].read(read_model(config))
    except (NotKnown, NotSupported):
        return None
    except (NoReading, CheckpointError) as error:
        return [] if "error" in result else [f"refused: {error}"]
    if "error" in result:
        return [f"computed, but the engine fails: {result['error']}"]
    found = []
    if reading.served_length != result["served"]:
        found.append(f"serves {reading.served_length}, the engine {result['served']}")
    for name, numbers in result.get("scopes", {}).items():
        used = reading.scopes.get(name) or next(iter(reading.scopes.values()))
        softmax = used.softmax_scale_ratio
        if not math.isclose(softmax, result["softmax"], rel_tol=1e-5):
            found.append(f"{name}: softmax ×{softmax}, the engine ×{result['softmax']}")
        found += _numbers(used, numbers, result["served"])
        if "short" in numbers:
            found += _numbers(used, numbers["short"], SHORT_TEXT)
    return found


def _numbers(used, numbers, length):
    inv_freq = used.parameters.inv_freq(length)
    if len(inv_freq) != numbers["pairs"]:
        return [f"{len(inv_freq)} pairs, the engine {numbers['pairs']}"]
    found = []
    for index, value in numbers["inv_freq"].items():
        # The engine computes in single precision.
        if not math.isclose(inv_freq[int(index)], value, rel_tol=1e-5, abs_tol=1e-9):
            found.append(f"pair {index}: {inv_freq[int(index)]}, the engine {value}")
    if not math.isclose(used.attention_factor, numbers["scale"], rel_tol=1e-5):
        found.append(f"scale {used.attention_factor}, the engine {numbers['scale']}")
    return found


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_rules_give_what_was_recorded(engine):
    results = recorded(engine)
    found = {
        case["name"]: differences(result, case["config"], engine)
        for case, result in zip(CASES, results, strict=True)
    }
    judged = {name: wrong for name, wrong in found.items() if wrong is not None}
    assert {name: wrong for name, wrong in judged.items() if wrong} == {}
    assert len(judged) >= 0.9 * len(CASES)
    assert len(CASES) >= 376
