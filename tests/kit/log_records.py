"""What the package has logged, and a wait for a certain event."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 20.0  # seconds until a test fails for an event that does not come


class Heard(logging.Handler):
    """Keeps the records of the package, of all threads and levels."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.records.append(record)
            self._changed.notify_all()

    @property
    def events(self) -> list[str]:
        return [event_of(record) for record in self.records]

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the fields of the first record of an event, once there is one."""
        with self._changed:
            assert self._changed.wait_for(lambda: event in self.events, PATIENCE), self.events
            found = self.records[self.events.index(event)]
        fields: dict[str, Any] = vars(found)["comet"]
        return fields

    def check_secret(self, secrets: Iterable[str]) -> None:
        """Check that no record has one of some texts, wherever a handler may find it."""
        formatter = logging.Formatter("%(name)s %(message)s")
        hidden = [secret for secret in secrets if len(secret) >= 10]
        assert hidden
        for record in self.records:
            text = formatter.format(record) + repr(vars(record))  # with args, extra and exc_text
            assert [secret for secret in hidden if secret in text] == [], text


def event_of(record: logging.LogRecord) -> str:
    event: str = vars(record)["comet"]["event"]
    return event


@contextmanager
def listen_to_logs() -> Iterator[Heard]:
    """Keep what the package logs while the context lasts."""
    logger, heard = logging.getLogger("asgi_comet"), Heard()
    former = logger.level
    logger.addHandler(heard)
    logger.setLevel(logging.DEBUG)
    try:
        yield heard
    finally:
        logger.removeHandler(heard)
        logger.setLevel(former)
