"""Small checkpoints whose shards are written by the safetensors package."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file


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
