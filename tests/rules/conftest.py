"""A way to write JSON files as transformers formats them, and to check a config."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yarncli.rules.check import CheckReport
from yarncli.rules.check import check as check_all


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write `config.json` and more JSON files to a directory; gives the directory."""

    def write(config: dict[str, Any], **others: dict[str, Any]) -> Path:
        for name, value in {"config": config, **others}.items():
            text = json.dumps(value, indent=2, sort_keys=True) + "\n"
            (tmp_path / f"{name}.json").write_text(text)
        return tmp_path

    return write


@pytest.fixture
def check(write: Callable[..., Path]) -> Callable[[dict[str, Any]], CheckReport]:
    """Check one config on its own."""
    return lambda config: check_all(str(write(config) / "config.json"))
