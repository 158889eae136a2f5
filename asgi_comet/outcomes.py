"""What became of a write: which messages of a channel somebody has, and who waits to know.

Owns the ranges of confirmed offsets. Must not know channels, connections or transports.
A message that nobody waits for costs nothing here but its share of a range.
Used only in the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum

from .timers import Timer

__all__ = ["Awaited", "Outcome", "Outcomes"]

RANGES = (
    64  # confirmed ranges kept per channel; more than one only where messages found no listener
)


class Outcome(Enum):
    """The outcome of a write.

    Source: `Ocsigen_comet.Channels.write`, to which `UNKNOWN` is added for clients that
    acknowledge nothing.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


class Awaited(Timer):
    """One message whose outcome somebody waits for.

    Args:
        offset: The message.
        listeners: Those who could still get it.
        settled: Called once with the outcome.
    """

    __slots__ = ("listeners", "offset", "settled")

    def __init__(
        self, offset: int, listeners: set[Hashable], settled: Callable[[Outcome], None]
    ) -> None:
        super().__init__()
        self.offset: int = offset
        self.listeners: set[Hashable] = listeners
        self.settled: Callable[[Outcome], None] = settled

    def expire(self) -> None:
        """Nobody had it in time."""
        self.settled(Outcome.FAILURE)


class Outcomes:
    """The confirmed offsets of one channel, and the awaited ones."""

    __slots__ = ("_awaited", "_ranges")

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []  # (after, upto), disjoint, ascending
        self._awaited: set[Awaited] = set()

    def confirmed(self, offset: int) -> bool:
        """Tell whether somebody has the message."""
        return any(after < offset <= upto for after, upto in self._ranges)

    def confirm(self, after: int, upto: int) -> None:
        """Somebody has the messages `after + 1 … upto`."""
        ranges = self._ranges
        if ranges and ranges[-1][0] <= after <= ranges[-1][1]:  # the usual case, once per answer
            if upto <= ranges[-1][1]:
                return
            ranges[-1] = (ranges[-1][0], upto)
        else:
            self._merge(after, upto)
        for awaited in [a for a in self._awaited if after < a.offset <= upto]:
            awaited.settled(Outcome.SUCCESS)

    def lose(self, listener: Hashable) -> None:
        """A listener has gone without what it could have got."""
        for awaited in [a for a in self._awaited if listener in a.listeners]:
            awaited.listeners.discard(listener)
            if not awaited.listeners:
                awaited.settled(Outcome.FAILURE)

    def watch(self, awaited: Awaited) -> None:
        """Begin to wait for an outcome."""
        self._awaited.add(awaited)

    def unwatch(self, awaited: Awaited) -> None:
        """Stop waiting for an outcome."""
        self._awaited.discard(awaited)

    def _merge(self, after: int, upto: int) -> None:
        apart = []
        for first, last in self._ranges:
            if last < after or upto < first:
                apart.append((first, last))
            else:
                after, upto = min(after, first), max(upto, last)
        self._ranges = sorted([*apart, (after, upto)])[-RANGES:]
