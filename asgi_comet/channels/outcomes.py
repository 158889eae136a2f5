"""Outcomes of writes: which messages of a channel were received, and who awaits that.

Owns the ranges of confirmed offsets. Must not know channels, connections or transports.
A message whose outcome is not awaited costs only its share of a range.
Used only in the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum

from asgi_comet._runtime.timers import Timer

__all__ = ["Awaited", "Outcome", "Outcomes", "Ranges"]

RANGES = 1000  # per channel; more than one only after messages without a listener


class Outcome(Enum):
    """The outcome of a write.

    Source: `Ocsigen_comet.Channels.write`. `UNKNOWN` is new, for clients that do not acknowledge.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


class Awaited(Timer):
    """One message whose outcome the application awaits.

    Args:
        offset: The offset of the message.
        listeners: The listeners that can still receive the message.
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
        """Settle at the deadline with the worst known outcome."""
        self.settled(self.at_worst)

    def shut_down(self) -> None:
        """Settle at shutdown with the worst known outcome."""
        self.settled(self.at_worst)


class Ranges:
    """A set of offsets as disjoint ranges; at most `RANGES`, the oldest are dropped first.

    Attributes:
        floor: The highest offset of the dropped ranges.
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
        """Add the offsets `after + 1 … upto`, and return whether any of them could be new."""
        ranges = self._ranges
        if ranges and ranges[-1][0] <= after <= ranges[-1][1]:  # a reader that keeps up
            if upto <= ranges[-1][1]:
                return False
            ranges[-1] = (ranges[-1][0], upto)
        elif not ranges or after > ranges[-1][1]:  # the messages between had no listener
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
    """The confirmed messages of one channel, and the awaited outcomes.

    A message is *confirmed* once a client has it. A transport with positions first records the
    range that it *sent*; the client confirms the range by its next request with that offset. A
    message sent to clients that do not acknowledge stays *unconfirmed*.

    Attributes:
        skipped: The highest offset that the only client was told to skip; 0 if there is none.
    """

    __slots__ = ("_awaited", "_confirmed", "_sent", "_unconfirmed", "skipped")

    def __init__(self) -> None:
        self._confirmed = Ranges()
        self._unconfirmed = Ranges()
        self._sent: dict[int, int] = {}  # last offset of an answer → lowest offset before its first
        self._awaited: set[Awaited] = set()
        self.skipped: int = 0

    @property
    def confirmed(self) -> int:
        """The highest confirmed offset; 0 if there is none."""
        return self._confirmed.top

    def of(self, offset: int) -> Outcome | None:
        """Return the outcome of a message so far; `UNKNOWN` if its range was dropped."""
        if offset in self._confirmed:
            return Outcome.SUCCESS
        past = offset <= max(self._confirmed.floor, self._unconfirmed.floor)
        return Outcome.UNKNOWN if past or offset in self._unconfirmed else None

    def confirm(self, after: int, upto: int) -> None:
        """Record that a client has the messages `after + 1 … upto`."""
        if self._confirmed.add(after, upto):
            for awaited in [a for a in self._awaited if after < a.offset <= upto]:
                awaited.settled(Outcome.SUCCESS)

    def send(self, after: int, upto: int) -> None:
        """Record that `after + 1 … upto` is sent to a client that acknowledges."""
        sent = self._sent
        known = sent.get(upto)
        if known is None:
            if len(sent) >= RANGES:
                del sent[next(iter(sent))]
            sent[upto] = after
        elif after < known:
            sent[upto] = after

    def acknowledge(self, upto: int) -> None:
        """Confirm the answer that ended with an offset."""
        after = self._sent.get(upto)
        if after is not None:
            self.confirm(after, upto)

    def hand(self, after: int, upto: int) -> None:
        """Record that `after + 1 … upto` is sent to a client that does not acknowledge."""
        self._unconfirmed.add(after, upto)
        for awaited in self._awaited:
            if after < awaited.offset <= upto:
                awaited.at_worst = Outcome.UNKNOWN

    def skip(self, after: int, upto: int) -> None:
        """Record that the only client goes on after an offset, and lacks `after + 1 … upto`."""
        self.skipped = upto
        self._unconfirmed.add(after, upto)
        for awaited in [a for a in self._awaited if after < a.offset <= upto]:
            awaited.settled(Outcome.UNKNOWN)

    def learn(self, upto: int, skipped: tuple[int, int]) -> None:
        """Record that the only client has all messages up to an offset but the skipped ones.

        Args:
            upto: The offset.
            skipped: The offset before the skipped messages, and that of the last one.
        """
        after, last = skipped
        self.confirm(0, min(after, upto))
        if last > self.skipped:
            self.skip(after, last)
        if upto >= self.skipped:
            self.confirm(self.skipped, upto)

    def leave(self, listener: Hashable, upto: int) -> None:
        """Remove a listener that was sent all messages up to an offset and none beyond."""
        for awaited in [a for a in self._awaited if listener in a.listeners]:
            awaited.listeners.discard(listener)
            if awaited.offset > upto and not awaited.listeners:
                awaited.settled(awaited.at_worst)

    def excuse(self, listener: Hashable) -> None:
        """Remove a listener that was sent all messages and may still acknowledge them."""
        for awaited in self._awaited:
            awaited.listeners.discard(listener)

    def lose(self, listener: Hashable) -> None:
        """Remove a listener that was sent none of the awaited messages."""
        for awaited in [a for a in self._awaited if listener in a.listeners]:
            awaited.listeners.discard(listener)
            if not awaited.listeners:
                awaited.settled(awaited.at_worst)

    def forget(self) -> None:
        """Forget what clients have, because the offsets are of other messages from now on.

        What a client has of those settles no outcome that is awaited now.
        """
        self._confirmed, self._unconfirmed, self._sent = Ranges(), Ranges(), {}
        self.skipped = 0
        former, self._awaited = self._awaited, set()
        for awaited in former:
            awaited.settled(Outcome.UNKNOWN)

    def watch(self, awaited: Awaited) -> None:
        """Start to wait for an outcome."""
        self._awaited.add(awaited)

    def unwatch(self, awaited: Awaited) -> None:
        """Stop waiting for an outcome."""
        self._awaited.discard(awaited)
