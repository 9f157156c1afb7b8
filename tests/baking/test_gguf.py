"""`bake` on GGUF files: the golden logits of a temperature, whatever carries it."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from support.gguf_files import Arrays, demo_arrays, demo_keys, random_file, read_gguf, write_gguf
from support.gguf_oracle import demo_logits
from support.gguf_settings import PLACES, TOKENS, TOLERANCE, distance
from support.program import invoke
from yarncli.baking.bake import bake
from yarncli.errors import CheckpointError, UsageError
from yarncli.gguf.runtime import Computed, run

NAME = "yarn 8, temperature 1.3 (attn_factor 1.3/m)"


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    return demo_arrays(Path(tmp_path_factory.mktemp("demo"), "demo"))


@pytest.fixture(scope="module")
def yarn(tmp_path_factory: pytest.TempPathFactory, arrays: Arrays) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    path = write_gguf(folder / "demo.gguf", demo_keys(), arrays)
    invoke("convert", path, folder / "yarn.gguf", "--factor", 8, code=0)
    return folder / "yarn.gguf"


def tensors(path: Path) -> Arrays:
    reader = gguf.GGUFReader(path)
    return {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}


def test_a_key_gives_the_golden_logits(yarn: Path, tmp_path: Path, arrays: Arrays) -> None:
    out = tmp_path / "out.gguf"
    told = invoke("bake", yarn, out, "--attention-factor", 1.3, "--verify", code=0).stdout
    assert told.startswith("carrier key: attention factor 1.20794 → 1.3\n")
    found = run(read_gguf(out))
    assert isinstance(found, Computed)
    logits = demo_logits(found.inv_freq, found.attention_factor, TOKENS, PLACES)
    assert distance(logits, NAME) < TOLERANCE
    made = tensors(out)
    assert all(np.array_equal(made[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("carrier", ["scale", "weights"])
def test_keys_carry_the_square_of_the_ratio(
    carrier: str, yarn: Path, tmp_path: Path, arrays: Arrays
) -> None:
    out, square = tmp_path / "out.gguf", (1.3 / (0.1 * np.log(8) + 1)) ** 2
    made = bake(yarn, out, attention_factor=1.3, carrier=carrier, verify=True)
    assert made.plan.carrier == carrier
    found = tensors(out)
    for name, array in arrays.items():
        by = square if carrier == "weights" and name.endswith("attn_k.weight") else 1
        np.testing.assert_allclose(found[name], array * by, rtol=1e-6)
    scales = [array for name, array in found.items() if name.endswith("attn_k.scale")]
    assert [s.tolist() for s in scales] == ([[pytest.approx(square)]] * 3) * (carrier == "scale")


def test_quantised_weights_and_their_biases(tmp_path: Path) -> None:
    """By the scales of blocks (`test_blocks.py` has every type); Qwen2's keys have biases."""
    keys, arrays = random_file("qwen2", biases=True)
    types = {f"blk.{n}.attn_k.weight": "Q8_0" for n in range(3)}
    path = write_gguf(tmp_path / "m.gguf", keys, arrays, types)
    before = tensors(path)
    bake(path, tmp_path / "out.gguf", attention_factor=1.2, carrier="weights")
    for name, array in tensors(tmp_path / "out.gguf").items():
        by = 1.44 if ".attn_k." in name else 1
        np.testing.assert_allclose(array, before[name] * by, rtol=1e-3)


def test_norms_of_keys(tmp_path: Path) -> None:
    keys, arrays = random_file("qwen3", k_norm=True)
    path = write_gguf(tmp_path / "m.gguf", keys, arrays)
    bake(path, tmp_path / "out.gguf", attention_factor=1.1, carrier="norm")
    for name, array in tensors(tmp_path / "out.gguf").items():
        by = 1.21 if "attn_k_norm" in name else 1
        np.testing.assert_allclose(array, arrays[name] * by, rtol=1e-6)
    told = invoke("bake", path, tmp_path / "no.gguf", "--attention-factor", 1.1,
                  "--carrier", "weights", code=3).output  # fmt: skip
    assert "the norm of the keys undoes it" in " ".join(told.split())


def test_in_place_and_back(yarn: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(yarn.read_bytes())
    invoke("bake", path, "--in-place", "--attention-factor", 1.3, code=0)
    invoke("convert", path, "--undo", code=0)
    assert sha256(path.read_bytes()).digest() == sha256(yarn.read_bytes()).digest()
    invoke("bake", path, "--in-place", "--attention-factor", 1.3, "--carrier", "scale", code=0)
    invoke("convert", path, "--undo", code=0)
    assert sha256(path.read_bytes()).digest() == sha256(yarn.read_bytes()).digest()


def test_weights_are_never_taken_back_by_half_nor_scaled_twice(yarn: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(yarn.read_bytes())
    words = ("--attention-factor", 1.3, "--carrier", "weights")
    invoke("bake", path, "--in-place", *words, code=0)
    once = path.read_bytes()
    told = " ".join(invoke("convert", path, "--undo", code=3).output.split())
    assert "Start again from the file before that step" in told
    for command in (("bake", path, "--in-place", *words),
                    ("convert", path, "--in-place", "--rescale", "--factor", 2)):  # fmt: skip
        assert "already baked" in " ".join(invoke(*command, code=3).output.split())
    assert path.read_bytes() == once


def test_a_dry_run_and_json(yarn: Path, tmp_path: Path) -> None:
    words = ("--attention-factor", 1.3, "--carrier", "weights", "--dry-run", "--json")
    found = json.loads(invoke("bake", yarn, tmp_path / "o.gguf", *words, code=0).stdout)
    assert not (tmp_path / "o.gguf").exists()
    assert found["attention_factor"] == {"before": pytest.approx(1.2079442), "after": 1.3}
    assert sorted(found["scaled"]) == [f"blk.{n}.attn_k.weight" for n in range(3)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give --attention-factor"),
        ({"attention_factor": 1.1, "form": "residual"}, "--form is for checkpoints"),
        ({"attention_factor": 1.1, "engines": ["vllm"]}, "--engine is for checkpoints"),
        ({"attention_factor": -1.0}, "must be a positive number"),
    ],
)
def test_what_is_refused(options: dict[str, Any], said: str, yarn: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        bake(yarn, tmp_path / "o.gguf", **options)


def test_what_it_has_already(yarn: Path, tmp_path: Path) -> None:
    bake(yarn, tmp_path / "a.gguf", attention_factor=1.3)
    with pytest.raises(CheckpointError, match=r"already has the attention factor 1\.3"):
        bake(tmp_path / "a.gguf", tmp_path / "b.gguf", attention_factor=1.3)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="--carrier is for GGUF"):
        bake(tmp_path, tmp_path / "out", carrier="key")
