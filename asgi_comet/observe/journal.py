"""The journal: the last events of this worker, for the dashboard.

Owns which events an operator is shown, and how many are kept. Must not know how an event is logged,
nor who reads the journal. Thread-safe.

A client can cause events of some kinds as often as it likes, so each kind has a bound of its own.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["KEPT", "SHOWN", "Entry", "Journal"]

KEPT = 100  # events of one kind

SHOWN = (
    "admin.acted",
    "admin.refused",
    "authorize.failed",
    "broker.unavailable",
    "change.missed",
    "channel.unstarted",
    "client.missed",
    "client.stalled",
    "function.cut_off",
    "function.failed",
    "identify.failed",
    "internal.failed",
    "key.foreign",
    "loop.blocked",
    "message.lost",
    "message.unserved",
    "origin.refused",
    "process.evicted",
    "push.activated",
    "push.deactivated",
    "source.failed",
    "source.restarted",
    "timeout.changed",
    "worker.differs",
    "worker.found",
)
"""The kinds that an operator is shown; static/admin.js says what to do about each."""


class Entry(NamedTuple):
    """One event.

    Attributes:
        number: Ascending, without gaps, over all kinds.
        at: When, in seconds since 1970.
        fields: The kind, as `event`, and what it is about; has a JSON form.
    """

    number: int
    at: float
    fields: Mapping[str, Any]


class Journal:
    """The last events of one worker.

    Args:
        now: The time, in seconds since 1970.

    Attributes:
        worker: Stands for this worker while it runs, and for no other.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.worker: str = secrets.token_hex(6)
        self._now = now
        self._lock = threading.Lock()
        self._newest = 0  # number
        self._kinds: dict[str, deque[Entry]] = {kind: deque(maxlen=KEPT) for kind in SHOWN}
        self._totals: dict[tuple[str, ...], int] = {}

    def note(self, fields: Mapping[str, Any]) -> None:
        """Keep an event, if an operator is to see events of its kind."""
        kept = self._kinds.get(fields["event"])
        if kept is not None:
            at = self._now()
            with self._lock:  # a lower number that came later would never be read
                self._newest += 1
                kept.append(Entry(self._newest, at, fields))

    def count(self, kind: str, total: int, **fields: str) -> None:
        """Keep one event for all that were counted since this was last called.

        Args:
            kind: The kind.
            total: How many there have been.
            **fields: What the events are about.
        """
        key = kind, *fields.values()
        more = total - self._totals.get(key, 0)
        if more:
            self._totals[key] = total
            self.note({"event": kind, **fields, "count": more})

    def since(self, number: int, most: int) -> list[Entry]:
        """Return the events after one, the oldest first.

        Args:
            number: That of the last event that is known; 0 for none.
            most: How many to return at most.
        """
        if number == self._newest:
            return []
        found = [one for kept in self._kinds.values() for one in tuple(kept) if one.number > number]
        return sorted(found)[:most]
