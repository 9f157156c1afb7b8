"""The demo checkpoint, fresh for every conversion test."""

from pathlib import Path

import pytest

from yarncli.demo import write_demo


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A fresh copy of the demo checkpoint."""
    return write_demo(tmp_path / "demo")
