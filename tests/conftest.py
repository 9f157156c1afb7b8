"""Fixtures of every room: small checkpoints, a local Hub, runs that are killed at every call."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

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


@pytest.fixture(scope="session")
def architectures() -> ModuleType:
    """The factory of tiny checkpoints, `tests/architectures.py`."""
    return _load("architectures")


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


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """`make_checkpoint(name, shards=2)`: a directory with config, index and shards."""

    def make(name: str = "model", *, shards: int = 2, directory: Path | None = None) -> Path:
        root = directory or tmp_path / name
        root.mkdir(parents=True)
        (root / "config.json").write_text('{"model_type": "llama"}\n')
        (root / "tokenizer.json").write_text("{}")
        weight_map, size = {}, 0
        for number in range(1, shards + 1):
            file = f"model-{number:05}-of-{shards:05}.safetensors"
            tensors = {
                f"layers.{number}.k": np.arange(600, dtype=np.float32).reshape(20, 30) + number,
                f"layers.{number}.norm": np.ones(5, dtype=np.float16),
            }
            save_file(tensors, root / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(tensors, file)
            size += sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (root / "model.safetensors.index.json").write_text(json.dumps(index))
        return root

    return make


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], dict[str, str]]:
    """`snapshot(directory)`: every file below it → SHA-256, or → where a link points."""

    def take(directory: Path) -> dict[str, str]:
        found = {}
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory).as_posix()
            if path.is_symlink():
                found[name] = f"-> {path.readlink()}"
            elif path.is_file():
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    return take
