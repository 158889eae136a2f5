"""The messages and scripts of a worker that wait for Redis, in order and within bounds.

Owns the order, the bounds, and which entries make up a batch. Thread-safe.
Must not know connections, nor the outcome of an entry that was taken.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asgi_comet.brokers.redis.appends import Append
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.errors import BrokerUnavailable

__all__ = [
    "BATCH",
    "BATCH_BYTES",
    "REMEMBERED",
    "BufferFull",
    "Entry",
    "Limits",
    "Queue",
    "Single",
]

T = TypeVar("T")

BATCH = 256  # messages of a batch at most
BATCH_BYTES = 256 * 1024  # of a batch at most, or one message
ADVICE = "publish no faster than the messages are stored: await channel.publish(value).stored()"
REMEMBERED = 600.0  # seconds that Redis remembers the last batch of a worker


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a queue.

    Attributes:
        messages: How many messages.
        bytes: How many bytes of messages.
        patience: How many seconds a message waits at most.

    Raises:
        ValueError: Redis does not remember a batch for that long.
    """

    messages: int = 100_000
    bytes: int = 16 * 2**20
    patience: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.patience < REMEMBERED / 2:
            expected = f"above 0 and below {REMEMBERED / 2:g} seconds"
            raise ValueError(f"expected patience to be {expected}, got {self.patience!r}")


class BufferFull(BrokerUnavailable):
    """Too many messages wait to be stored, though Redis may be well."""

    def __str__(self) -> str:
        return self.reason  # which does not begin with the broker, for the broker may be available


class Single(Generic[T]):
    """A script in order with the messages."""

    __slots__ = ("again", "call", "future", "patient", "sent", "since")

    def __init__(self, call: Call[T], since: float, *, patient: bool, again: bool) -> None:
        self.call: Call[T] = call
        self.since: float = since
        self.patient: bool = patient
        self.again: bool = again
        self.sent: float = math.inf
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def succeed(self, value: T) -> None:
        """Tell the waiter, unless the waiter was told."""
        if not self.future.done():
            self.future.set_result(value)

    def fail(self, error: Exception) -> None:
        """Tell the waiter, unless the waiter was told."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # a waiter may be gone


Entry = Append | Single[Any]


class Queue:
    """The waiting entries, and the count of the messages that are not settled.

    Args:
        limits: How much may wait.
        nudge: Called after messages were added to a queue that was taken from; in any thread.
        trouble: Returns why Redis is away; `""` if Redis is well.

    Attributes:
        messages: How many messages wait, including those that were taken and not settled.
        parked_until: When the entries are tried again that Redis has refused.
        closed: Whether messages are refused: the server has stopped.
    """

    def __init__(
        self, limits: Limits, nudge: Callable[[], object], trouble: Callable[[], str] = str
    ) -> None:
        self.messages: int = 0
        self.parked_until: float = 0.0
        self.closed: bool = False
        self._limits = limits
        self._nudge = nudge
        self._trouble = trouble
        self._bytes = 0
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._parked: deque[Entry] = deque()  # values of sources, and scripts
        self._nudged = False

    def __len__(self) -> int:
        return len(self._entries) + len(self._parked)

    @property
    def parked(self) -> bool:
        """Whether entries are put aside."""
        return bool(self._parked)

    def append(self, append: Append) -> None:
        """Count a message, and add the message.

        Raises:
            BufferFull: The queue is full.
            BrokerUnavailable: The server has stopped.
        """
        with self._lock:
            self._admit(append)
            aside = append.patient and self._parked
            (self._parked if aside else self._entries).append(append)
            nudge, self._nudged = not self._nudged, True
        if nudge:
            self._nudge()

    def admit(self, append: Append) -> None:
        """Count a message that `add` adds later; see `append`."""
        with self._lock:
            self._admit(append)

    def _admit(self, append: Append) -> None:
        if self.closed:
            raise BrokerUnavailable("the server has stopped")
        if not append.patient and not self.fits(append.size):
            limits, trouble = self._limits, self._trouble()
            raise BufferFull(
                f"the buffer is full: expected at most {limits.messages} messages of "
                f"{limits.bytes} bytes (buffer_bytes) to wait to be stored, got {self.messages} of "
                f"{self._bytes} bytes, and one more of {append.size}; "
                + (f"Redis is away: {trouble}" if trouble else ADVICE)
            )
        self._count(append, 1)

    def add(self, entries: Sequence[Entry]) -> None:
        """Add scripts, or messages that were counted."""
        with self._lock:
            self._entries += entries
            if self._parked:
                self._set_aside()
        self._nudge()

    def add_or_join(self, single: Single[Any], joins: Callable[[Entry], bool]) -> None:
        """Add a script, unless the last entry of the queue takes it in."""
        with self._lock:
            if self._entries and joins(self._entries[-1]):
                return
        self.add([single])

    def put_first(self, single: Single[Any], appends: Sequence[Append]) -> None:
        """Put messages that were taken back, behind a script; not those given up meanwhile."""
        left = [append for append in appends if append.outcome is None]
        with self._lock:
            self._entries.extendleft(reversed([single, *left]))
            for append in left:
                self._count(append, 1)

    def take_back(self, appends: Sequence[Append]) -> None:
        """Count messages again that were taken, and that `add` adds later."""
        with self._lock:
            for append in appends:
                self._count(append, 1)

    def fits(self, size: int) -> bool:
        """Return whether there is room for a message of `size` bytes."""
        if self.messages == 0:
            return True
        limits = self._limits
        return self.messages < limits.messages and self._bytes + size <= limits.bytes

    def take(self, now: float) -> Single[Any] | list[Append]:
        """Take the entries to send next: a script, or the messages up to the next script."""
        with self._lock:
            self._nudged = False
            if self._parked and now >= self.parked_until:
                self._entries.extendleft(reversed(self._parked))
                self._parked.clear()
            if self._entries and isinstance(self._entries[0], Single):
                return self._entries.popleft()  # type: ignore[return-value]  # the line above
            return self._gather()

    def _gather(self) -> list[Append]:
        entries, appends, left = self._entries, list[Append](), BATCH_BYTES
        while entries and len(appends) < BATCH:
            one = entries[0]
            if isinstance(one, Single) or (appends and one.size > left):
                break
            left -= one.size
            appends.append(one)
            entries.popleft()
        return appends

    def park(self, entries: Sequence[Entry], until: float) -> None:
        """Put refused entries aside for a while, so that other entries go on.

        Args:
            entries: Values of sources, which are counted again; or a script.
            until: When to try the entries again.
        """
        with self._lock:
            self._parked.extendleft(reversed(entries))
            self.parked_until = until
            for one in entries:
                if isinstance(one, Append):
                    self._count(one, 1)
            self._set_aside()

    def _set_aside(self) -> None:
        """Put the entries aside that must stay behind others: values, and scripts of channels."""
        channels = {_channel_of(one) for one in self._parked}
        left = deque[Entry]()
        for one in self._entries:
            patient = isinstance(one, Append) and one.patient
            if patient or (isinstance(one, Single) and _channel_of(one) in channels):
                self._parked.append(one)
                channels.add(_channel_of(one))
            else:
                left.append(one)
        self._entries = left

    def remove(self, concerns: Callable[[Entry], bool]) -> list[Entry]:
        """Remove and return the entries that a function selects."""
        with self._lock:
            found = [one for one in (*self._parked, *self._entries) if concerns(one)]
            if found:
                gone = set(map(id, found))
                self._entries = deque(one for one in self._entries if id(one) not in gone)
                self._parked = deque(one for one in self._parked if id(one) not in gone)
        return found

    def clear(self, *, close: bool = False) -> list[Entry]:
        """Remove and return all entries; and refuse others from now on, if wanted."""
        with self._lock:
            self.closed = close
            every = [*self._entries, *self._parked]
            self._entries.clear()
            self._parked.clear()
        return every

    def settled(self, appends: Sequence[Append]) -> None:
        """Stop counting messages that are settled next."""
        with self._lock:
            for append in appends:
                if append.outcome is None:
                    self._count(append, -1)

    def _count(self, append: Append, sign: int) -> None:
        self._bytes += sign * append.size
        self.messages += sign


def _channel_of(entry: Entry) -> str:
    return entry.log.keys.name if isinstance(entry, Append) else entry.call.channel
