"""The Hub with its writing side, and what the tests push to it."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.checkpoints import write_index
from support.minihub_writing import open_for_writing
from support.minihub_xet import with_xet
from support.program import PROGRAM, interrupt, invoke
from yarncli.demo import write_demo

TOKEN = "hf_" + "t" * 34
OTHER_TOKEN = "hf_" + "o" * 34
READ_TOKEN = "hf_" + "r" * 34
SECRETS = (TOKEN, OTHER_TOKEN, READ_TOKEN, "Signature=", "xet-secret")


@pytest.fixture
def hub(minihub: Any) -> Any:
    """A Hub that can be written to; the user `me` is logged in, `other` is not."""
    open_for_writing(minihub)
    minihub.add_user(TOKEN, "me")
    minihub.add_user(OTHER_TOKEN, "other")
    minihub.add_user(READ_TOKEN, "reader", write=False)
    minihub.log_in(TOKEN)
    return minihub


@pytest.fixture
def xet_hub(hub: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The Hub with Xet storage, and a client that uses it."""
    yield from with_xet(hub, monkeypatch)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo checkpoint as it ships, not to be changed."""
    return write_demo(tmp_path_factory.mktemp("demo") / "model")


@pytest.fixture(scope="session")
def converted_once(demo: Path) -> Path:
    out = demo.parent / "model-yarn"
    invoke("convert", demo, out, "--factor", 8, code=0)
    return out


@pytest.fixture
def model(converted_once: Path, tmp_path: Path) -> Path:
    """A converted demo checkpoint of its own."""
    return Path(shutil.copytree(converted_once, tmp_path / "model-yarn"))


@pytest.fixture
def sharded(model: Path) -> Path:
    """The model in two shards with an index, written by the safetensors package."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, model / shard, {"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_index(model, weight_map, total)
    return model


@pytest.fixture
def client_log() -> Iterator[list[str]]:
    """What the client writes to its log; left alone, it names signed addresses there."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("huggingface_hub")
    logger.setLevel(logging.WARNING)
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture
def cli(client_log: list[str]) -> Callable[..., Any]:
    """Run the program in this process; no token and no signature may appear in what it prints."""

    def run(*arguments: object, code: int = 0) -> Any:
        result = invoke(*arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.stdout + result.stderr
        for secret in SECRETS:
            assert secret not in result.output + "".join(client_log)
        return result

    return run


@pytest.fixture
def program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the program in a process of its own; no secret may appear in what it prints."""

    def run(*arguments: object, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [*PROGRAM, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, **options)
        assert done.returncode == code, done.stdout + done.stderr
        assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]
        return done

    return run


@pytest.fixture
def interrupted() -> Callable[..., str]:
    """`support.program.interrupt`."""
    return interrupt


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between tries, ours and the client's, take no time."""
    from types import SimpleNamespace

    from huggingface_hub.utils import _http

    from yarncli.hub import failures

    still = SimpleNamespace(sleep=lambda seconds: None)
    monkeypatch.setattr(_http, "time", still)
    monkeypatch.setattr(failures, "time", still)
