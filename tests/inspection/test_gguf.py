"""`inspect` on GGUF files: what it shows is what transformers and llama.cpp compute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support.gguf_files import demo_keys, write_gguf
from support.gguf_models import write_gguf as write_split
from support.gguf_settings import SETTINGS
from support.program import invoke
from yarncli.errors import UsageError
from yarncli.gguf.facts import Typed, typed
from yarncli.inspection.description import inspect

KEYS = {
    "llama.context_length": 2048,
    "llama.rope.scaling.type": "yarn",
    "llama.rope.scaling.factor": 8.0,
    "llama.rope.scaling.original_context_length": 256,
    "llama.rope.scaling.yarn_attn_factor": 1.0,
}


def write(path: Path, **keys: Typed) -> Path:
    found = {**demo_keys(), **{k: typed(k.removeprefix("llama."), v) for k, v in KEYS.items()}}
    arrays = {"blk.0.attn_k.weight": np.ones((128, 128), np.float32),
              "output_norm.weight": np.ones(128, np.float32)}  # fmt: skip
    return write_gguf(path, {**found, **keys}, arrays, {"blk.0.attn_k.weight": "Q8_0"})


def test_what_is_shown(tmp_path: Path) -> None:
    blob = write(tmp_path / "m.gguf").rename(tmp_path / "sha256-0123")
    lines = invoke("inspect", blob, code=0).stdout.splitlines()
    assert lines[1:6] == [
        "format        GGUF version 3, 1 file",
        "architecture  llama",
        "parameters    16,512, 17.9 kB",
        "  Q8_0        17.4 kB in 1 tensors",
        "  F32         512 B in 1 tensors",
    ]
    assert "attention factor   1.20794" in lines
    assert "served at most     2,048 tokens" in lines
    assert lines[-1].startswith("  llama.rope.scaling.yarn_attn_factor: the runtime does not read")


def test_numbers_are_those_of_the_setting(tmp_path: Path) -> None:
    path, golden = write(tmp_path / "m.gguf"), SETTINGS["yarn 8"]
    found = json.loads(invoke("inspect", path, "--json", "--table", code=0).stdout)
    assert found["rope"]["inv_freq"] == pytest.approx(golden.inv_freq(), rel=1e-6)
    assert found["rope"]["attention_factor"] == pytest.approx(1.2079442)
    assert found["rope"]["rope_type"] == "yarn"
    assert found["rope"]["original_context_length"] == 256
    assert found["types"]["Q8_0"] == {"tensors": 1, "parameters": 16384, "bytes": 17408}
    assert found["keys"].items() >= KEYS.items()
    assert [key["name"] for key in found["dead_keys"]] == ["llama.rope.scaling.yarn_attn_factor"]
    rows = found["dimensions"]
    assert [row["inv_freq_after"] for row in rows] == found["rope"]["inv_freq"]
    assert [rows[n]["regime"] for n in (0, 3, 15)] == ["kept", "ramp", "interpolated"]


def test_a_preview_writes_nothing(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", demo_keys(),
                      {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)})  # fmt: skip
    before = path.read_bytes()
    told = invoke("inspect", path, "--factor", 8, "--table", code=0).stdout
    assert "served at most     256 tokens → 2,048 tokens" in told
    after = inspect(path, factor=8.0).to_json(table=True)
    wanted = SETTINGS["yarn 8"].inv_freq()
    assert [row["inv_freq_after"] for row in after["dimensions"]] == pytest.approx(wanted, rel=1e-6)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_that_llama_cpp_does_not_load(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", **{"llama.rope.scaling.type": Typed("str", "dynamic")})
    told = invoke("inspect", path, "--table", code=0).stdout
    assert "None: llama.rope.scaling.type is 'dynamic'." in told
    found = json.loads(invoke("inspect", path, "--json", code=0).stdout)
    assert found["rope"] is None
    assert "dynamic" in found["not_computed"]


def test_all_files_of_a_split_model_count(tmp_path: Path) -> None:
    first = write_split(tmp_path / "m.gguf", split=3)
    found = inspect(first)
    assert sum(stored.tensors for stored in found.types.values()) == 7
    assert "3 files" in invoke("inspect", first, code=0).stdout


def test_what_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf")
    assert (
        "--plot cannot draw" in invoke("inspect", path, "--plot", tmp_path / "a.svg", code=2).output
    )
    with pytest.raises(UsageError, match="is for checkpoints"):
        inspect(path, assume_like="llama")
    (tmp_path / "cut.gguf").write_bytes(path.read_bytes()[:100])
    assert "damaged" in invoke("inspect", tmp_path / "cut.gguf", code=3).output
