"""The messages of a call that writes a card or publishes a checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from yarncli.rules.finding import Severity

Notify = Callable[[Severity, str], None] | None


@dataclass(frozen=True, slots=True)
class Message:
    """One sentence for the user."""

    severity: Severity
    text: str


class Messages:
    """Keeps the messages of one call for its result, and passes each on at once.

    A later failure leaves no result to read them from, so they are not kept until the end.
    """

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._one_at_a_time = threading.Lock()
        self.kept: tuple[Message, ...] = ()

    def add(self, severity: Severity, text: str) -> None:
        """Keep a message, and pass it on if there is a receiver."""
        with self._one_at_a_time:
            self.kept += (Message(severity, text),)
            if self._notify:
                self._notify(severity, text)

    def note(self, text: str) -> None:
        """Keep and pass on a message that is neither an error nor a warning."""
        self.add("note", text)
