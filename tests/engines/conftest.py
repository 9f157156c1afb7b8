"""The cases, the oracle, and how a prediction is held against what a release computed."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from yarncli.engines.loaders import LoaderError, read_model
from yarncli.engines.registry import ENGINES
from yarncli.engines.verdict import EngineCrash

FOLDER = Path(__file__).parent


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"engines_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cases() -> Any:
    return _load("cases")


@pytest.fixture(scope="session")
def oracle() -> Any:
    return _load("oracle")


@pytest.fixture(scope="session")
def problems() -> Any:
    """A function: how the prediction for a config differs from a recorded or computed result."""
    return _problems


def _problems(engine_id: str, config: Any, length: int, result: Any) -> list[str]:
    try:
        reading = ENGINES[engine_id].read(read_model(config, length=length))
    except (LoaderError, EngineCrash) as error:
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
        if not math.isclose(used.attention_scale, theirs["attention_scale"], rel_tol=1e-6):
            found.append(f"{name}: scale {used.attention_scale}, not {theirs['attention_scale']}")
    softmax = next(iter(reading.scopes.values())).softmax_scale_ratio
    if not math.isclose(softmax, result["softmax"], rel_tol=1e-6):
        found.append(f"softmax {softmax}, not {result['softmax']}")
    return found
