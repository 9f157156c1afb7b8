"""Fixtures for every room: a local Hub, and the driver that kills a run at every system call."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_HERE = Path(__file__).parent


def _load(name: str) -> ModuleType:
    """A module beside this file; --import-mode=importlib offers no import by name."""
    full_name = f"yarncli_tests_{name}"
    if full_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(full_name, _HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full_name] = module
        spec.loader.exec_module(module)
    return sys.modules[full_name]


@pytest.fixture(scope="session")
def kill_at_every_call() -> Any:
    """The function of that name in killdriver.py."""
    return _load("killdriver").kill_at_every_call


@pytest.fixture
def minihub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A local Hub that the huggingface_hub client of this process and of children talks to.

    Its cache is `minihub.cache`; no token is set (`minihub.log_in` sets one).
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with _load("minihub").MiniHub(tmp_path / "hub") as hub:
        hub.cache = tmp_path / "hub-cache"
        home = tmp_path / "hf-home"
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_CACHE": str(hub.cache),
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        # The client reads its environment when it is imported, which may be long ago.
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        hub.log_in = lambda token: monkeypatch.setenv("HF_TOKEN", token)
        hub.go_offline = lambda: (
            monkeypatch.setenv("HF_HUB_OFFLINE", "1"),
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True),
        )
        close_session()
        yield hub
        close_session()
