"""The same tests with the oldest client that is supported, in its own environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OLDER = os.environ.get("YARNCLI_HUB1_PYTHON")


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.skipif(not OLDER, reason="YARNCLI_HUB1_PYTHON names no environment")
def test_publishing_and_reading_with_the_1x_client():
    assert OLDER is not None
    version = "import huggingface_hub as hub; print(hub.__version__)"
    found = subprocess.run([OLDER, "-c", version], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("1.")
    done = subprocess.run(
        [OLDER, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/publishing", "tests/hub"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
