"""What is no causal language model with RoPE is called what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.program import invoke
from yarncli.cli.app import app
from yarncli.config.families.refused_types import KINDS, no_rope_types
from yarncli.inspection.description import inspect


def _inspect(path: Path) -> str:
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert result.exit_code == 3
    assert result.stdout == ""  # no numbers
    return result.stderr


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["model_index.json", "unet/config.json"], "a diffusion pipeline"),
        (["tokenizer.json", "tokenizer_config.json"], "a tokenizer alone"),
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter"),
        (["README.md", "data/train-00000-of-00001.parquet"], "a dataset"),
        (["model-Q4_K_M.gguf"], "a GGUF model"),
        (["consolidated.safetensors", "params.json"], "publisher's own format"),
        (["model-00001-of-00002.safetensors"], "weights alone"),
        (["text_encoder/config.json"], "text_encoder/config.json"),
        ([], "empty"),
    ],
)
def test_a_directory_without_a_config_is_named(tmp_path: Path, names: list[str], what: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert what in _inspect(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "what"),
    [
        ("bert", "text encoder"),
        ("xlm-roberta", "text encoder"),
        ("t5", "encoder-decoder"),
        ("whisper", "encoder-decoder"),
        ("clip", "vision"),
        ("dinov2", "vision"),
        ("wav2vec2", "audio"),
        ("mamba2", "without attention"),
        ("jamba", "no positions"),
        ("nemotron_h", "no positions"),
        ("bloom", "ALiBi"),
        ("mpt", "ALiBi"),
        ("opt", "one vector for each position"),
        ("gpt2", "one vector for each position"),
        ("gpt_bigcode", "one vector for each position"),
        ("gptj", "fixed table"),
    ],
)
def test_a_model_without_rope_says_what_it_has_instead(
    tmp_path: Path, model_type: str, what: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert what in _inspect(tmp_path)


def test_every_kind_has_its_sentence() -> None:
    assert set(no_rope_types().values()) == KINDS.keys()


def test_an_embedding_model_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "embeddings" in _inspect(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    assert inspect(tmp_path).made_for == "embeddings or reranking (sentence-transformers)"


def test_a_file_of_weights_is_no_config(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x80")
    assert "an ONNX model" in _inspect(path)
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF\x03\x80")
    told = invoke("check-passkey", path, "--lengths", 256, code=3).stderr
    assert "a GGUF file, which this" in told


def test_a_head_is_tied_where_the_class_says_so(tmp_path: Path) -> None:
    """transformers 5.23: the classes of Gemma 2 and Command-R tie, that of Llama does not."""
    path = tmp_path / "config.json"
    for kind, tied in (("gemma2", True), ("cohere", True), ("llama", False)):
        path.write_text(json.dumps({"model_type": kind}))
        assert inspect(path).tied is tied
    path.write_text('{"model_type": "gemma2", "tie_word_embeddings": false}')
    assert inspect(path).tied is False
