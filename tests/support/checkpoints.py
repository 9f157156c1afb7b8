"""Small checkpoints, the packaged demo, and what a directory holds."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import yarncli

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(str(yarncli.__file__)).parent  # the sources, or the wheel that is tested
# As they are packaged: not to be changed. `demo` of conftest.py is a copy.
DEMO = PACKAGE / "demo" / "base"
TUNED = PACKAGE / "demo" / "tuned"


def write_checkpoint(root: Path, *, shards: int = 2) -> Path:
    """Make the directory `root` with a config, an index and shards; returns it."""
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
    write_index(root, weight_map, size)
    return root


def write_index(root: Path, weight_map: dict[str, str], total_size: int) -> None:
    """Write `model.safetensors.index.json`; `total_size` is in bytes."""
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    (root / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def snapshot(directory: Path) -> dict[str, bytes]:
    """Everything below a directory → its content, where it points, or what else it is."""
    found = {}
    for path in sorted(directory.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            held = b"-> " + os.fsencode(path.readlink())
        else:
            held = path.read_bytes() if stat.S_ISREG(mode) else stat.filemode(mode).encode()
        found[path.relative_to(directory).as_posix()] = held
    return found


def size_of(directory: Path) -> int:
    """The bytes of all files that lie in the directory itself."""
    return sum(path.stat().st_size for path in directory.iterdir())
