"""Limits on waiting for the Hub, and messages about every wait.

There are limits for connecting and for time without any byte. Some work of the Hub takes minutes
without a byte, such as joining the parts of a large file or a commit of many files. So requests
that change something get a long limit.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

Tell = Callable[[str], None]

CONNECT_WAIT = 15.0  # seconds
ANSWER_WAIT = 60.0  # seconds without a byte after which a server counts as hanging
WORK_WAIT = 600.0  # the same for requests that may be much work for the server
TOLD_AFTER = 15.0  # seconds of silence before the first message; doubled for each further one
_LOOK_EVERY = 0.25  # seconds between looks at the clock

# The messages that the client logs before it retries a request.
_CLIENT_LOG = "huggingface_hub.utils._http"
_CAUSE = re.compile(r"HTTP Error (\d{3}) thrown while|'(?:.|\n)*' thrown while")
_PAUSE = re.compile(r"(?:Waiting|Retrying in) ([\d.]+)s.*\[Retry (\d+)/(\d+)\]")

_current: _Waits | None = None


def tell(message: str) -> None:
    """Report a wait to the listener of `told_waits`, if there is one."""
    if _current is not None:
        _current.tell(message)


def tell_retry(cause: str, pause: float, number: int, tries: int) -> None:
    """Report that a request will be retried, before the pause."""
    if _current is not None:
        _current.expect(pause)
        _current.open = max(0, _current.open - 1)  # a broken request gets no answer
    tell(f"{cause}. Trying again in {pause:.0f} s (try {number} of {tries}).")


def moved() -> None:
    """Note that bytes arrived or left, so nothing hangs."""
    if _current is not None:
        _current.expect(0.0)


@contextmanager
def told_waits(listener: Tell | None) -> Iterator[None]:
    """Report every wait in the block: our retries, those of the client, and a busy server.

    Only one block of a process can be active, as the client has one log and session per process.
    """
    global _current
    if listener is None:
        yield
        return
    waits, before = _Waits(listener), _current
    _current = waits
    try:
        with waits.running():
            yield
    finally:
        _current = before


@contextmanager
def at_work() -> Iterator[None]:
    """A block that waits for a server outside the client's session, as Xet does."""
    if _current is None:
        yield
        return
    _current.open += 1
    try:
        yield
    finally:
        _current.open -= 1


def limit_waits() -> None:
    """Set our limits on the client's session. The client makes a new one after some failures."""
    utils: Any = import_module("huggingface_hub.utils")
    session = utils.get_session()
    session.timeout = utils.httpx.Timeout(
        connect=CONNECT_WAIT, read=ANSWER_WAIT, write=ANSWER_WAIT, pool=None
    )
    hooks = session.event_hooks
    if _asked not in hooks["request"]:
        session.event_hooks = {
            "request": [*hooks["request"], _asked],
            "response": [*hooks["response"], _answered],
        }


def _asked(request: Any) -> None:
    """Called before a request is sent. Requests that change something get the long limit."""
    if request.method not in ("GET", "HEAD"):
        limits = {**request.extensions.get("timeout", {}), "read": WORK_WAIT}
        request.extensions = {**request.extensions, "timeout": limits}
    moved()
    if _current is not None:
        _current.open += 1


def _answered(_response: Any) -> None:
    """Called when the head of an answer has arrived."""
    moved()
    if _current is not None:
        _current.open -= 1


class _Waits(logging.Handler):
    """Collects waits from our code and from the client's log, and watches for silence."""

    def __init__(self, listener: Tell) -> None:
        super().__init__()
        self.open = 0  # requests that wait for an answer
        self._listener = listener
        self._causes = threading.local()
        self._since = time.monotonic()
        self._next = TOLD_AFTER
        self._ended = threading.Event()

    def tell(self, message: str) -> None:
        """Pass a sentence on."""
        self._listener(message)

    def expect(self, pause: float) -> None:
        """Restart the measurement of silence, at the end of a reported pause."""
        self._since, self._next = time.monotonic() + pause, TOLD_AFTER

    def emit(self, record: logging.LogRecord) -> None:
        """Turn a log message of the client, which may hold signed addresses, into our sentence."""
        text = record.getMessage()
        if found := _CAUSE.match(text):
            status = found[1]
            self._causes.last = (
                f"The server answered {status}" if status else "The connection broke"
            )
        elif found := _PAUSE.search(text):
            limit_waits()  # the session may be a new one
            cause = getattr(self._causes, "last", "The request failed")
            tell_retry(cause, float(found[1]), int(found[2]) + 1, int(found[3]) + 1)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Listen, and watch the clock."""
        log = logging.getLogger(_CLIENT_LOG)
        level, spreads = log.level, log.propagate
        log.setLevel(logging.WARNING)
        log.propagate = False
        log.addHandler(self)
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        try:
            yield
        finally:
            self._ended.set()
            watch.join()
            log.removeHandler(self)
            log.setLevel(level)
            log.propagate = spreads

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_EVERY):
            if self.open > 0 and time.monotonic() - self._since >= self._next:
                self.tell(f"No answer for {self._next:.0f} s. Waiting.")
                self._next *= 2
