"""What programs make of GGUF files: transformers' own reading beside the verdict on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support.gguf_files import demo_keys, write_gguf
from support.program import invoke
from yarncli.engines.judgement import judge_checkpoint
from yarncli.errors import UsageError
from yarncli.gguf.facts import Typed, typed

YARN = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "context_length": 2048,
    "rope.scaling.original_context_length": 256,
}  # fmt: skip


def write(path: Path, architecture: str = "llama", **keys: object) -> Path:
    found = {k.replace("llama.", f"{architecture}."): v for k, v in demo_keys().items()}
    found["general.architecture"] = Typed("str", architecture)
    found |= {f"{architecture}.{k}": typed(k, v) for k, v in keys.items()}
    arrays = {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)}
    return write_gguf(path, found, arrays)


def statuses(path: Path) -> dict[str, tuple[str, int | None]]:
    found = judge_checkpoint(path)
    return {v.reader.id: (v.status, v.served_length) for v in found.verdicts}


def test_a_yarn_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", **YARN)
    assert statuses(path) == {
        "llama.cpp": ("exact", 2048), "ollama": ("unknown", 2048), "lm-studio": ("unknown", 2048),
        "koboldcpp": ("unknown", None), "transformers-gguf": ("ignores", None),
    }  # fmt: skip
    told = invoke("engines", path, code=0).stdout
    assert f"llama-server -m {path} -c 2048" in told
    assert "PARAMETER num_ctx 2048" in told
    found = json.loads(invoke("engines", path, "--engine", "ollama", "--json", code=0).stdout)
    assert [e["engine"] for e in found["engines"]] == ["ollama"]
    assert found["modelfile"].endswith("num_ctx 2048\n")


@pytest.mark.parametrize("keys", [{}, YARN, {**YARN, "rope.scaling.type": "linear"}])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_transformers_reads_theta_alone(architecture: str, keys: dict, tmp_path: Path) -> None:
    from transformers import AutoConfig

    path = write(tmp_path / "m.gguf", architecture, **{**keys, "rope.freq_base": 5e5})
    loaded = AutoConfig.from_pretrained(tmp_path, gguf_file=path.name)
    assert loaded.rope_parameters == {"rope_theta": 5e5, "rope_type": "default"}
    assert statuses(path)["transformers-gguf"][0] == ("ignores" if keys else "exact")


def test_what_was_not_examined_is_unknown(tmp_path: Path) -> None:
    for name, path in {
        "another class": write(tmp_path / "a.gguf", "gpt-oss", **YARN),
        "part of a head": write(tmp_path / "b.gguf", **{"rope.dimension_count": 16}),
        "heads of their own": write(tmp_path / "c.gguf", **{"attention.key_length": 64}),
    }.items():
        assert statuses(path)["transformers-gguf"][0] == "unknown", name


@pytest.mark.parametrize(("architecture", "basis"), [("llama", "run"), ("eagle3", "read")])
def test_whether_llama_cpp_was_run_is_said(architecture: str, basis: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", architecture, **YARN)
    found = json.loads(invoke("engines", path, "--json", code=0).stdout)["engines"]
    assert {e["engine"]: e["basis"] for e in found} == {
        "llama.cpp": basis, "ollama": None, "lm-studio": None, "koboldcpp": None,
        "transformers-gguf": "run",
    }  # fmt: skip
    said = (
        "llama.cpp's code for this architecture was read, not run"
        in invoke("engines", path, code=0).stderr
    )
    assert said == (basis == "read")


def test_llama_cpp_refuses_aborts_and_passes_over(tmp_path: Path) -> None:
    for status, keys in {
        "refuses": {"rope.scaling.type": Typed("u32", 1)},
        "crashes": {"rope.scaling.type": Typed("str", "dynamic")},
        "differs": {"rope.scaling.yarn_attn_factor": Typed("f32", 1.5)},
    }.items():
        found = {**demo_keys(), **{f"llama.{k}": v for k, v in keys.items()}}
        arrays = {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)}
        path = write_gguf(tmp_path / f"{status}.gguf", found, arrays)
        assert statuses(path)["llama.cpp"][0] == status
        told = invoke("engines", path, code=0).stdout
        assert ("llama-server -m" in told) == (status == "differs")


def test_what_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf")
    with pytest.raises(UsageError, match="'vllm' is not a program"):
        judge_checkpoint(path, engines=["vllm"])
    told = " ".join(invoke("engines", path, "--length", 2048, code=2).output.split())
    assert "yarncli convert SOURCE OUT --length N" in told
