"""Fixtures of every room: a small checkpoint, a copy of the demo, a local Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, core, settings

from support.checkpoints import write_checkpoint
from support.minihub import MiniHub
from yarncli.demo import write_demo

# The same inputs in every run; `make test-deep` gives a seed of its own, for others.
SEED = os.environ.get("YARNCLI_FUZZ_SEED")
settings.register_profile(
    "yarncli",
    deadline=None,
    database=None,
    derandomize=SEED is None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("yarncli")
if SEED is not None:
    core.global_force_seed = int(SEED)


# What forks many times, not once to leave something killed. To fork a process that has imported
# torch takes ten times as long, and all test modules are imported before the first test: so these
# modules have a run of their own.
_FORKS = re.compile(r"^from (support\.kills|hostile\.trial) import (?!leave_killed$)", re.M)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--forks only`: only the test modules that fork; `--forks never`: only the others."""
    parser.addoption("--forks", choices=("only", "never"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the test modules that `--forks` does not ask for."""
    wanted = config.getoption("forks")
    if wanted is None or not collection_path.match("test_*.py"):
        return None
    forks = _FORKS.search(collection_path.read_text(encoding="utf-8")) is not None
    return forks != (wanted == "only") or None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many inputs the fuzzing made, in all workers together."""
    passed = [*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())]
    said = [
        value for report in passed for name, value in report.user_properties if name == "inputs"
    ]
    if said:
        terminalreporter.write_line(f"{sum(said):,} inputs were made up; seed: {SEED or 'fixed'}")


@pytest.fixture(scope="session", autouse=True)
def _state_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What yarncli remembers between runs stays out of the home directory."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A copy of the demo checkpoint, which a test may change."""
    return write_demo(tmp_path / "demo")


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """`make_checkpoint(name, shards=2)`: a directory with config, index and shards."""
    return lambda name="model", **options: write_checkpoint(tmp_path / name, **options)


@pytest.fixture
def minihub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A local Hub that the huggingface_hub client of this process and of children talks to.

    Its cache is `minihub.cache`; no token is set (`minihub.log_in` sets one).
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with MiniHub(tmp_path / "hub") as hub:
        hub.cache = tmp_path / "hub-cache"
        home = tmp_path / "hf-home"
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_CACHE": str(hub.cache),
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        # The client reads its environment when it is imported, which may be long ago.
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        hub.log_in = lambda token: monkeypatch.setenv("HF_TOKEN", token)
        hub.go_offline = lambda: (
            monkeypatch.setenv("HF_HUB_OFFLINE", "1"),
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True),
        )
        close_session()
        yield hub
        close_session()


@pytest.fixture
def nothing_is_printed(capfd):
    """No call of a test that uses this may print."""
    yield
    assert capfd.readouterr() == ("", "")
