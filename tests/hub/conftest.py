"""A Hub that is read through Xet, by the real hf_xet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support import minihub_writing  # noqa: F401 the routes that those of Xet add to
from support.minihub_xet import open_for_xet
from yarncli.hub import failures


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "RETRY_WAITS", (0.0, 0.0))


@pytest.fixture
def xet_hub(minihub: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The Hub with Xet storage, and a client that uses it and gives up soon."""
    pytest.importorskip("hf_xet")
    from huggingface_hub import constants
    from huggingface_hub.utils._xet import abort_xet_session

    open_for_xet(minihub)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    environment = {
        "HF_HUB_DISABLE_XET": "0",
        "HF_XET_XORB_COMPRESSION_POLICY": "none",  # of what is pushed
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "3",
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    abort_xet_session()  # the next one reads the environment again
    yield minihub
    abort_xet_session()
