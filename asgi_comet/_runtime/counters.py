"""Counters: what a worker has counted since it started, as plain integers.

Owns the counts and how a duration is sorted into a histogram. Must not know how figures are named
or written, nor who reads them.

Rooms are given the counters as they are given the clock, and keep the object that they add to, so
nothing is looked up per message. All counts are added to in the loop's thread, but those of
`ChannelCounters.publish`, because publishers run in any thread.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable

from asgi_comet._runtime.recent import Recent

__all__ = [
    "ACKNOWLEDGED",
    "CREATED",
    "REPLAYED",
    "SECONDS",
    "TRANSPORTS",
    "ChannelCounters",
    "Counters",
    "Histogram",
    "TransportCounters",
]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ACKNOWLEDGED = (*SECONDS, 20.0, 30.0, 60.0)
REPLAYED = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 250.0, 500.0, 1000.0)

TRANSPORTS = ("poll", "sse", "websocket", "registration")
CREATED = "(created)"  # the label of channels that are not declared

ADMITTED = ("accepted", "origin", "forbidden", "limit", "deactivated")
ENDED = (
    "client", "time", "stalled", "replaced", "moved", "closed", "deactivated", "answered",
    "shutdown",
)  # fmt: skip
RESUMED = ("complete", "nothing", "full")
MISSED = ("displaced", "epoch", "overflow", "restarted")
AUTHORISED = ("yes", "no", "failed", "late")
OUTCOMES = ("success", "failure", "unknown")
ASKED = ("authorize", "identify")


class Histogram:
    """How often values fell between two bounds.

    Args:
        bounds: The upper bounds, ascending; each bound belongs to what is below it.

    Attributes:
        bounds: The same.
        counts: The count for each bound, and last of the values above all bounds.
        total: The sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds: tuple[float, ...] = bounds
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.total: float = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class ChannelCounters:
    """The counts of all channels of one declaration.

    Args:
        label: The declared name, a family's with its words; `CREATED` for other channels.
        missed: Counts the gaps of all channels.

    Attributes:
        label: The same.
        published: Messages that this worker's application and sources have published.
        published_bytes: The bytes of these, as JSON.
        gaps: How often a client was told `full`, by reason.
        restarts: How often a source was started again after a failure.
        authorisations: How often the application was asked for a right, by its answer.
    """

    __slots__ = (
        "_lock",
        "_missed",
        "authorisations",
        "gaps",
        "label",
        "published",
        "published_bytes",
        "restarts",
    )

    def __init__(self, label: str, missed: Recent) -> None:
        self._lock = threading.Lock()
        self._missed = missed
        self.label: str = label
        self.published: int = 0
        self.published_bytes: int = 0
        self.gaps: dict[str, int] = _none_of(MISSED)
        self.restarts: int = 0
        self.authorisations: dict[str, int] = _none_of(AUTHORISED)

    def miss(self, reason: str) -> None:
        """Count that a client was told `full`.

        Args:
            reason: One of `MISSED`.
        """
        self.gaps[reason] += 1
        self._missed.add()

    def publish(self, size: int) -> None:
        """Count a published message. Thread-safe.

        Args:
            size: The bytes of the message.
        """
        with self._lock:
            self.published += 1
            self.published_bytes += size


class TransportCounters:
    """The counts of all connections of one transport.

    Args:
        name: The transport.

    Attributes:
        name: The same.
        open: The connections that are open now.
        delivered: Messages that were handed to the ASGI server.
        delivered_bytes: The bytes of these, as the transport writes them.
        connections: How many connections came, by what became of them.
        disconnections: How many connections ended, by reason.
        delivery: From the publishing of messages to their last delivery of one flush, in seconds.
        acknowledge: From the publishing of a message to the position of a client that has it, in
            seconds; for some of the messages.
    """

    __slots__ = (
        "acknowledge",
        "connections",
        "delivered",
        "delivered_bytes",
        "delivery",
        "disconnections",
        "name",
        "open",
    )

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.open: int = 0
        self.delivered: int = 0
        self.delivered_bytes: int = 0
        self.connections: dict[str, int] = _none_of(ADMITTED)
        self.disconnections: dict[str, int] = _none_of(ENDED)
        self.delivery: Histogram = Histogram(SECONDS)
        self.acknowledge: Histogram = Histogram(ACKNOWLEDGED)


class Counters:
    """All counts of one worker.

    Args:
        now: The time, in seconds of a clock that never goes back.

    Attributes:
        transports: The counts by transport.
        uncounted: For connections that are left out of the figures: those of the dashboard.
        missed: The gaps of the last hour.
        created: The counts of channels that are not declared.
        channels: The counts by label; there are as many as declarations. Replaced, never changed.
        resumes: How often a client went on from a position, by what it got.
        replayed: How many messages such a client was behind.
        outcomes: How many outcomes that the application awaited there were, by outcome.
        asked: How long the application's functions took, in seconds, by function.
        stalled: The writes that the ASGI server does not take now.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.transports: dict[str, TransportCounters] = {
            n: TransportCounters(n) for n in TRANSPORTS
        }
        self._lock = threading.Lock()
        self.uncounted: TransportCounters = TransportCounters("admin")
        self.missed: Recent = Recent(now)
        self.created: ChannelCounters = ChannelCounters(CREATED, self.missed)
        self.channels: dict[str, ChannelCounters] = {CREATED: self.created}
        self.resumes: dict[str, int] = _none_of(RESUMED)
        self.replayed: Histogram = Histogram(REPLAYED)
        self.outcomes: dict[str, int] = _none_of(OUTCOMES)
        self.asked: dict[str, Histogram] = {name: Histogram(SECONDS) for name in ASKED}
        self.stalled: int = 0

    def of(self, label: str) -> ChannelCounters:
        """Return the counts of a declaration. Thread-safe; only declarations may call this."""
        found = self.channels.get(label)
        if found is None:
            with self._lock:
                found = self.channels.get(label, ChannelCounters(label, self.missed))
                self.channels = self.channels | {label: found}  # others may go over the former
        return found


def _none_of(names: Iterable[str]) -> dict[str, int]:
    return dict.fromkeys(names, 0)
