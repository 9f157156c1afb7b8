"""Fixtures of the conversion tests: the factory of tiny architectures, and the demo checkpoint."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from yarncli.demo import write_demo


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


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A fresh copy of the demo checkpoint."""
    return write_demo(tmp_path / "demo")
