"""A tiny sound checkpoint, and a runner that insists on one sentence, no traceback, no change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from support.checkpoints import snapshot, write_index
from support.configs import TINY_LLAMA
from support.program import invoke


@pytest.fixture(scope="session")
def config() -> dict[str, Any]:
    return TINY_LLAMA


@pytest.fixture(scope="session")
def shard() -> bytes:
    """A file of two tensors of 64 bytes each, as the safetensors package writes it."""
    return save({name: np.ones((4, 4), np.float32) for name in ("a.weight", "b.weight")})


@pytest.fixture
def model(tmp_path: Path, shard: bytes) -> Path:
    """A sound checkpoint of one shard with an index."""
    place = tmp_path / "model"
    fill(place, json.dumps(TINY_LLAMA, indent=2).encode(), shard)
    return place


def fill(place: Path, config: bytes, shard: bytes) -> None:
    place.mkdir()
    (place / "config.json").write_bytes(config)
    name = "model-00001-of-00001.safetensors"
    (place / name).write_bytes(shard)
    write_index(place, {"a.weight": name, "b.weight": name}, 128)


def state(place: Path) -> object:
    """What a source holds, and the mode of every file; nothing where it is no directory."""
    return place.is_dir() and (snapshot(place), {p: p.lstat().st_mode for p in place.rglob("*")})


@pytest.fixture
def run_all(tmp_path: Path) -> Callable[[str], dict[str, int]]:
    """Run inspect, check and convert on a source; gives their exit codes.

    Whatever they say about the source, none shows a traceback or leaves anything behind.
    """

    def run_all(source: str) -> dict[str, int]:
        out = tmp_path / "out"
        before = state(Path(source))
        codes = {}
        for command in (
            ["inspect", source],
            ["check", source],
            ["convert", source, str(out), "--factor", "4"],
        ):
            result = invoke(*command)
            assert result.exception is None or isinstance(result.exception, SystemExit), command
            assert "Traceback" not in result.output
            assert not result.exit_code or result.stderr.count("error:") == 1, result.stderr
            assert all(len(line) < 2000 for line in result.output.splitlines())
            assert result.exit_code == 0 or not out.exists(), command
            codes[command[0]] = result.exit_code
            if out.exists():
                for path in sorted(out.rglob("*"), reverse=True):
                    path.unlink() if path.is_file() else path.rmdir()
                out.rmdir()
        assert state(Path(source)) == before
        leftovers = {p.name for p in tmp_path.iterdir()} - {"model", "out"}
        assert not {name for name in leftovers if name.startswith(".")}
        return codes

    return run_all
