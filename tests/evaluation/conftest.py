"""The demo checkpoint and small random models of other architectures, as the tests use them."""

import json

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
