"""The demo checkpoint, chat templates, and small random models of other architectures."""

import json
import os
import tarfile

import pytest
import torch

from support.checkpoints import DEMO, TUNED
from yarncli.evaluation.passkey import make_codec


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo():
    return DEMO


@pytest.fixture(scope="session")
def tuned():
    return TUNED


@pytest.fixture(scope="session")
def codec(demo):
    return make_codec(demo, False)


@pytest.fixture
def scaled(tmp_path, demo):
    """A function that writes a copy of the demo with another RoPE block, typed by hand."""

    def write(rope, maximum=256, name="scaled"):
        directory = tmp_path / name
        directory.mkdir()
        for file in demo.iterdir():
            (directory / file.name).write_bytes(file.read_bytes())
        config = json.loads((demo / "config.json").read_text())
        config["max_position_embeddings"] = maximum
        config["rope_parameters"] = {"rope_theta": 10000.0, **rope}
        del config["rope_theta"]
        (directory / "config.json").write_text(json.dumps(config))
        return directory

    return write


@pytest.fixture(scope="session")
def template_corpus():
    """Chat templates of real models, by file name, from the source archive of llama-cpp-python.

    Each carries its model's licence, so they are fetched and never kept here.
    """
    archive = os.environ.get("YARNCLI_TEMPLATES")
    if not archive:
        pytest.skip("no archive of llama-cpp-python's source (`make test-full` fetches it)")
    with tarfile.open(archive) as source:
        return {
            member.name.rpartition("/")[2]: source.extractfile(member).read().decode("utf-8")
            for member in sorted(source.getmembers(), key=lambda member: member.name)
            if "/models/templates/" in member.name and member.name.endswith(".jinja")
        }
