"""llama.cpp's own server, with a trained model: what it serves, answers and refuses."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest

from support.program import invoke
from support.servers import Served
from support.smollm2 import smollm2

PYTHON = os.environ.get("YARNCLI_ENGINES_PYTHON")
SCRIPT = Path(__file__).parents[1] / "support" / "llama_server.py"
CONTEXT = 1024
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        PYTHON is None,
        reason="YARNCLI_ENGINES_PYTHON names no Python with engines; make test-full does",
    ),
    pytest.mark.xdist_group("smollm2"),
]


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """SmolLM2 with twice its window, as `convert` writes it."""
    out = tmp_path_factory.mktemp("served") / "twice.gguf"
    invoke("convert", smollm2(), out, "--factor", "2", code=0)
    return out


@pytest.fixture(scope="module")
def server(extended):
    log = extended.with_name("log")
    with log.open("wb") as stream:
        server = Served(stream, [PYTHON, SCRIPT, extended, "--context", str(CONTEXT)])
        yield server
        server.stop()


def test_the_window_of_the_file_is_served(server):
    with urllib.request.urlopen(f"{server.url}/models", timeout=10) as answer:
        (model,) = json.load(answer)["data"]
    assert model["meta"]["n_ctx_train"] == 2 * 8192


def test_keys_are_found(server):
    found = invoke(
        "check-passkey", "--base-url", server.url, "--lengths", "256", "--depths", "2",
        "--trials", "1", "--json", code=0,
    )  # fmt: skip
    (length,) = json.loads(found.stdout)["lengths"]
    assert (length["accuracy"], length["trials"]) == (1.0, 2)


def test_a_prompt_beyond_its_context_is_refused_in_its_words(server):
    found = invoke("check-passkey", "--base-url", server.url, "--lengths", "2048", "--depths", "1",
                   "--trials", "1", code=5)  # fmt: skip
    assert f"exceeds the available context size ({CONTEXT} tokens)" in found.stderr


def test_it_tells_nothing_of_the_tokens_of_a_prompt(server, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("It was the best of times, it was the worst of times. " * 60)
    found = invoke("perplexity", "--base-url", server.url, "--text", text, "--lengths", "128",
                   code=5)  # fmt: skip
    assert "llama.cpp's server does not." in found.stderr
