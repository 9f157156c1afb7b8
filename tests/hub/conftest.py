"""A Hub that is read through Xet, by the real hf_xet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support import minihub_writing  # noqa: F401 the routes that those of Xet add to
from support.minihub_xet import with_xet
from yarncli.hub import failures


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "RETRY_WAITS", (0.0, 0.0))


@pytest.fixture
def xet_hub(minihub: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The Hub with Xet storage, and a client that uses it."""
    yield from with_xet(minihub, monkeypatch)
