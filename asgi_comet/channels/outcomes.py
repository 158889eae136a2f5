"""What became of a write: which messages of a channel somebody has, and who waits to know.

Owns the ranges of confirmed offsets. Must not know channels, connections or transports.
A message that nobody waits for costs nothing here but its share of a range.
Used only in the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum

from asgi_comet._runtime.timers import Timer

__all__ = ["Awaited", "Outcome", "Outcomes", "Ranges"]

RANGES = 1000  # kept per channel; more than one only where messages found no listener


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
        settled: Called with the outcome; the first call counts.
    """

    __slots__ = ("at_worst", "listeners", "offset", "settled")

    def __init__(
        self, offset: int, listeners: set[Hashable], settled: Callable[[Outcome], None]
    ) -> None:
        super().__init__()
        self.offset: int = offset
        self.listeners: set[Hashable] = listeners
        self.settled: Callable[[Outcome], None] = settled
        self.at_worst: Outcome = Outcome.FAILURE

    def expire(self) -> None:
        """Nobody had it in time."""
        self.settled(self.at_worst)

    def hasten(self) -> None:
        """Nobody has it so far."""
        self.settled(self.at_worst)


class Ranges:
    """A set of offsets as disjoint ranges; at most `RANGES`, the oldest go first.

    Attributes:
        floor: Of offsets up to here it is no longer known.
    """

    __slots__ = ("_ranges", "floor")

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []  # (after, upto), ascending
        self.floor: int = 0

    def __contains__(self, offset: int) -> bool:
        return any(after < offset <= upto for after, upto in self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    @property
    def top(self) -> int:
        """The highest offset; 0 if there is none."""
        return self._ranges[-1][1] if self._ranges else 0

    def add(self, after: int, upto: int) -> bool:
        """Add the offsets `after + 1 … upto`, and tell whether any of them could be new."""
        ranges = self._ranges
        if ranges and ranges[-1][0] <= after <= ranges[-1][1]:  # a reader that keeps up
            if upto <= ranges[-1][1]:
                return False
            ranges[-1] = (ranges[-1][0], upto)
        elif not ranges or after > ranges[-1][1]:  # messages between were for nobody
            ranges.append((after, upto))
        else:
            self._merge(after, upto)
        if len(ranges) > RANGES:
            self.floor = ranges.pop(0)[1]
        return True

    def _merge(self, after: int, upto: int) -> None:
        apart = []
        for first, last in self._ranges:
            if last < after or upto < first:
                apart.append((first, last))
            else:
                after, upto = min(after, first), max(upto, last)
        self._ranges[:] = sorted([*apart, (after, upto)])


class Outcomes:
    """Who has what of one channel, and who waits to know.

    A message is *confirmed* once somebody has it. A transport with positions first tells what it
    *sent*, up to which offset; the client confirms it by coming back with that offset. What went to
    clients that acknowledge nothing is *unconfirmed* for good.
    """

    __slots__ = ("_awaited", "_confirmed", "_sent", "_unconfirmed")

    def __init__(self) -> None:
        self._confirmed = Ranges()
        self._unconfirmed = Ranges()
        self._sent: dict[int, int] = {}  # where answers ended, and the lowest offset they began at
        self._awaited: set[Awaited] = set()

    @property
    def confirmed(self) -> int:
        """The highest offset that somebody has; 0 if nobody ever had any."""
        return self._confirmed.top

    def of(self, offset: int) -> Outcome | None:
        """Return the outcome of a message so far; also `UNKNOWN` when it is too long ago."""
        if offset in self._confirmed:
            return Outcome.SUCCESS
        past = offset <= max(self._confirmed.floor, self._unconfirmed.floor)
        return Outcome.UNKNOWN if past or offset in self._unconfirmed else None

    def confirm(self, after: int, upto: int) -> None:
        """Somebody has the messages `after + 1 … upto`."""
        if self._confirmed.add(after, upto):
            for awaited in [a for a in self._awaited if after < a.offset <= upto]:
                awaited.settled(Outcome.SUCCESS)

    def send(self, after: int, upto: int) -> None:
        """A client is being sent `after + 1 … upto`, and will say when it has them."""
        sent = self._sent
        known = sent.get(upto)
        if known is None:
            if len(sent) >= RANGES:
                del sent[next(iter(sent))]
            sent[upto] = after
        elif after < known:
            sent[upto] = after

    def acknowledge(self, upto: int) -> None:
        """A client has come back with the position of what it was sent."""
        after = self._sent.get(upto)
        if after is not None:
            self.confirm(after, upto)

    def hand(self, after: int, upto: int) -> None:
        """Somebody who acknowledges nothing was sent `after + 1 … upto`."""
        self._unconfirmed.add(after, upto)
        for awaited in self._awaited:
            if after < awaited.offset <= upto:
                awaited.at_worst = Outcome.UNKNOWN

    def leave(self, listener: Hashable, upto: int) -> None:
        """A listener has gone, to which all up to an offset was sent and nothing beyond."""
        for awaited in [a for a in self._awaited if listener in a.listeners]:
            awaited.listeners.discard(listener)
            if awaited.offset > upto and not awaited.listeners:
                awaited.settled(awaited.at_worst)

    def excuse(self, listener: Hashable) -> None:
        """A listener has gone with what it could get, and may yet acknowledge it."""
        for awaited in self._awaited:
            awaited.listeners.discard(listener)

    def lose(self, listener: Hashable) -> None:
        """A listener has gone without what it could have got."""
        for awaited in [a for a in self._awaited if listener in a.listeners]:
            awaited.listeners.discard(listener)
            if not awaited.listeners:
                awaited.settled(awaited.at_worst)

    def watch(self, awaited: Awaited) -> None:
        """Begin to wait for an outcome."""
        self._awaited.add(awaited)

    def unwatch(self, awaited: Awaited) -> None:
        """Stop waiting for an outcome."""
        self._awaited.discard(awaited)
