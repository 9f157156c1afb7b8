"""Fixtures of the rope tests: tiny architectures, loaded by path."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def architectures() -> ModuleType:
    """The factory of tiny checkpoints, `tests/architectures.py`."""
    path = Path(__file__).parents[1] / "architectures.py"
    spec = importlib.util.spec_from_file_location("architectures", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
