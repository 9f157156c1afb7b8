"""The Hub with its writing side, and what the tests push to it."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from yarncli.cli.app import app
from yarncli.demo import write_demo

TOKEN = "hf_" + "t" * 34
OTHER_TOKEN = "hf_" + "o" * 34
READ_TOKEN = "hf_" + "r" * 34


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The client's own way of sending files is deprecated in the library below it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"))


def _writing_side() -> Any:
    name = "yarncli_tests_minihub_writing"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "minihub_writing.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def hub(minihub: Any) -> Any:
    """A Hub that can be written to; the user `me` is logged in, `other` is not."""
    _writing_side().open_for_writing(minihub)
    minihub.add_user(TOKEN, "me")
    minihub.add_user(OTHER_TOKEN, "other")
    minihub.add_user(READ_TOKEN, "reader", write=False)
    minihub.log_in(TOKEN)
    return minihub


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo checkpoint as it ships, not to be changed."""
    return write_demo(tmp_path_factory.mktemp("demo") / "model")


@pytest.fixture(scope="session")
def converted_once(demo: Path) -> Path:
    out = demo.parent / "model-yarn"
    result = CliRunner().invoke(app, ["convert", str(demo), str(out), "--factor", "8"])
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def model(converted_once: Path, tmp_path: Path) -> Path:
    """A converted demo checkpoint of its own."""
    return Path(shutil.copytree(converted_once, tmp_path / "model-yarn"))


@pytest.fixture
def client_log() -> Iterator[list[str]]:
    """What the client writes to its log; it names signed URLs there."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("huggingface_hub")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture
def cli(client_log: list[str]) -> Callable[..., Any]:
    """Run the program in this process; no token and no signature may appear in what it prints."""

    def run(*arguments: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="yarncli")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.stdout + result.stderr
        for secret in (TOKEN, OTHER_TOKEN, READ_TOKEN, "Signature="):
            assert secret not in result.output + "".join(client_log)
        return result

    return run


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between tries, ours and the client's, take no time."""
    from types import SimpleNamespace

    from huggingface_hub.utils import _http

    from yarncli.hub import failures

    still = SimpleNamespace(sleep=lambda seconds: None)
    monkeypatch.setattr(_http, "time", still)
    monkeypatch.setattr(failures, "time", still)
