"""`check` of a LoRA adapter: what it is, and whether it fits the base model that it names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from support.program import invoke
from yarncli.checkpoint.source import open_checkpoint
from yarncli.rules.check import check

RANK = 4
PREFIX = "base_model.model.model.layers"


def adapter(root: Path, base: Path | str | None, **changes: Any) -> Path:
    """A LoRA of the query projections, as PEFT saves it, with the sizes of the base's weights."""
    root.mkdir()
    tensors = {}
    for header in open_checkpoint(base).headers().values() if isinstance(base, Path) else ():
        for name, info in header.tensors.items():
            if name.endswith("q_proj.weight"):
                owner = f"base_model.model.{name.removesuffix('.weight')}"
                tensors[f"{owner}.lora_A.weight"] = np.ones((RANK, info.shape[1]), np.float32)
                tensors[f"{owner}.lora_B.weight"] = np.ones((info.shape[0], RANK), np.float32)
    tensors |= changes.pop("tensors", {})
    if tensors:
        save_file(tensors, root / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "base_model_name_or_path": base and str(base)}
    (root / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    return root


def found(path: Path) -> list[tuple[str, str]]:
    return [(f.rule.id, f.severity) for f in check(path).findings]


def test_an_adapter_is_named_and_fits_its_base(demo: Path, tmp_path: Path) -> None:
    root = adapter(tmp_path / "lora", demo)
    for path in (root, root / "adapter_config.json"):
        result = invoke("check", path)
        assert result.exit_code == 0
        assert "is an adapter (LORA of rank 4)" in result.stdout
        assert f"checked against its base model {demo}" in result.stdout
    assert found(root) == [("adapter", "note")]
    assert invoke("check", root, "--fix").exit_code == 0


@pytest.mark.parametrize(("base", "words"), [
    (None, "names no base model"),
    ("meta-llama/Llama-3.1-8B", "is not a directory here"),
])  # fmt: skip
def test_a_base_that_is_not_here_is_said(base: str | None, words: str, tmp_path: Path) -> None:
    one = {f"{PREFIX}.0.self_attn.q_proj.lora_A.weight": np.ones((4, 8), np.float32)}
    root = adapter(tmp_path / "lora", base, tensors=one)
    report = check(root)
    assert [f.rule.id for f in report.findings] == ["adapter"]
    assert words in report.findings[0].message


@pytest.mark.parametrize(("name", "shape", "severity"), [
    ("0.self_attn.k_proj.lora_A", (RANK, 64), "error"),  # the base has 128 columns
    ("0.self_attn.k_proj.lora_B", (256, RANK), "error"),
    ("9.self_attn.q_proj.lora_A", (RANK, 128), "warning"),  # the base has 3 layers
    ("0.self_attn.qkv_proj.lora_A", (RANK, 128), "warning"),
])  # fmt: skip
def test_what_does_not_fit(
    name: str, shape: tuple[int, int], severity: str, demo: Path, tmp_path: Path
) -> None:
    tensors = {f"{PREFIX}.{name}.weight": np.ones(shape, np.float32)}
    root = adapter(tmp_path / "lora", demo, tensors=tensors)
    assert found(root) == [("adapter", "note"), ("adapter-mismatch", severity)]


def test_an_adapter_of_another_model_is_an_error(demo: Path, tmp_path: Path) -> None:
    other = {"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": np.ones((4, 8), "f4")}
    root = adapter(tmp_path / "lora", None, tensors=other, base_model_name_or_path=str(demo))
    assert found(root) == [("adapter", "note"), ("adapter-mismatch", "error")]


def test_transposed_matrices_are_compared_transposed(demo: Path, tmp_path: Path) -> None:
    wide = {f"{PREFIX}.0.mlp.up_proj.lora_A.weight": np.ones((RANK, 128), np.float32)}
    plain = adapter(tmp_path / "plain", demo, tensors=wide)
    assert found(plain) == [("adapter", "note")]
    turned = adapter(tmp_path / "turned", demo, tensors=wide, fan_in_fan_out=True)
    assert found(turned) == [("adapter", "note"), ("adapter-mismatch", "error")]


def test_a_baked_base_wants_an_adapter_that_was_scaled_with_it(demo: Path, tmp_path: Path) -> None:
    extended, baked, out = tmp_path / "extended", tmp_path / "baked", tmp_path / "lora-baked"
    assert invoke("convert", demo, extended, "--factor", 4).exit_code == 0
    root = adapter(tmp_path / "lora", extended)
    assert invoke("bake", extended, baked, "--adapter", root, out).exit_code == 0
    for directory, base in ((root, baked), (out, extended)):
        config = json.loads((directory / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(base)
        (directory / "adapter_config.json").write_text(json.dumps(config))
        assert found(directory) == [("adapter", "note"), ("adapter-mismatch", "error")]
    (baked / "yarncli.json").unlink()  # the marker in config.json is enough
    assert found(root)[1:] == [("adapter-mismatch", "error")]
    config["base_model_name_or_path"] = str(baked)
    (out / "adapter_config.json").write_text(json.dumps(config))
    assert found(out) == [("adapter", "note")]


def test_files_that_are_missing_or_damaged(demo: Path, tmp_path: Path) -> None:
    root = adapter(tmp_path / "lora", demo)
    weights = root / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert ("shard-damaged", "error") in found(root)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5000\n")
    assert ("lfs-pointer", "note") in found(root)
    weights.unlink()
    assert ("shard-missing", "error") in found(root)
    (root / "adapter_config.json").write_text("{")
    assert found(root) == [("unreadable", "error")]
    shutil.rmtree(root)


def test_another_kind_of_adapter_is_only_named(demo: Path, tmp_path: Path) -> None:
    root = adapter(tmp_path / "ia3", demo, peft_type="IA3", r=None)
    assert found(root) == [("adapter", "note")]
    assert "(IA3)" in check(root).findings[0].message


def test_an_adapter_beside_a_config_is_no_half_model(demo: Path, tmp_path: Path) -> None:
    """Trainers copy the base's config.json beside the adapter."""
    root = adapter(tmp_path / "lora", demo)
    shutil.copy(demo / "config.json", root)
    assert found(root) == [("adapter", "note")]
    assert "holds an adapter" in check(root).findings[0].message
    assert invoke("convert", root, tmp_path / "out", "--factor", 4).exit_code == 0
