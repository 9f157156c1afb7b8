"""llama.cpp's library for the tests that run it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import llamacpp
from support.gguf_files import Arrays, demo_arrays


@pytest.fixture(scope="session")
def runtime() -> None:
    """Skip where the library cannot be had, with a reason; in CI that is a failure."""
    if llamacpp.library() is None:
        message = (
            "llama.cpp was not run: npm is missing or cannot fetch its library, "
            "or this is not Linux on x86-64"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def demo_tensors(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """The tensors of the demo under GGUF's names."""
    return demo_arrays(Path(tmp_path_factory.mktemp("gguf"), "demo"))
