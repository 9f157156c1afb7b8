"""Work in several threads: which error ends it."""

from __future__ import annotations

import threading

import pytest

from yarncli.threads import in_parallel


def test_the_error_that_stopped_the_others_is_raised() -> None:
    """As hf_xet does, a job may raise an error of its own because it was stopped."""
    stopped = threading.Event()

    def waits(_count: object) -> None:
        assert stopped.wait(5)
        raise RuntimeError("cancelled")

    def fails(_count: object) -> None:
        raise ValueError("the cause")

    with pytest.raises(ValueError, match="the cause"):
        in_parallel([waits, fails], workers=2, on_stop=stopped.set)
