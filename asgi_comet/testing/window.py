"""A window on a log, for tests of brokers."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from asgi_comet._runtime.clock import Clock, MonotonicClock
from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.core.aged import make_history
from asgi_comet.core.history import Received
from asgi_comet.core.messages import Last, Message, Now, Start
from asgi_comet.errors import ChannelClosed
from asgi_comet.position import Position

__all__ = ["Window"]


class Window:
    """A window on a log, like that of a channel. Thread-safe.

    Args:
        spec: The properties that all workers agree on.
        clock: The clock; by default that of the machine.

    Attributes:
        spec: The properties that all workers agree on.
        closed: The reason why the channel has ended.
        seen: Every message that was added, in order.
        owned: How often the worker became the owner of the channel.
        newest_owned: The newest message of the channel when it did.
        disowned: How often the worker stopped to be the owner without its own doing.
        wanted: The highest offset that a reader asked for.
        used: Whether the worker says that it uses the channel.
        read_at: When it was last read.
        drops: How often its messages were dropped for want of room.
    """

    def __init__(self, spec: ChannelSpec, clock: Clock | None = None) -> None:
        self.spec: ChannelSpec = spec
        self.closed: str | None = None
        self.seen: list[bytes] = []
        self.owned: int = 0
        self.newest_owned: Message | None = None
        self.disowned: int = 0
        self.wanted: int = 0
        self.used: bool = False
        self.read_at: int = 0
        self.drops: int = 0
        self._clock = clock or MonotonicClock()
        self._history = make_history(size=spec.size, max_bytes=spec.max_bytes, max_age=spec.max_age)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name of the channel."""
        return self.spec.name

    @property
    def origin(self) -> object:
        """The window itself, which stays the same in all epochs."""
        return self

    @property
    def epoch(self) -> str:
        """The epoch of the window."""
        return self._history.epoch

    @property
    def first(self) -> int:
        """The offset of the oldest message held."""
        with self._lock:
            self._history.age(self._clock.now())
            return self._history.first

    @property
    def top(self) -> int:
        """The offset of the newest message."""
        return self._history.top

    @property
    def newest(self) -> Message | None:
        """The newest message in the window."""
        run = self._history.after(self.top - 1)
        return run[0] if run else None

    @property
    def held_bytes(self) -> int:
        """How many bytes the messages held have."""
        return self._history.bytes

    def drop(self) -> None:
        """Drop all messages."""
        with self._lock:
            self.drops += 1
            self._history.drop_through(self._history.top)

    def append(self, data: bytes) -> int:
        """Store a message under the next offset."""
        with self._lock:
            if self.closed is not None:
                raise ChannelClosed(self.name, self.closed)
            self.seen.append(data)
            self._history.age(self._clock.now())
            return self._history.append(data)

    def locate(self, start: Start) -> int | None:
        """Return the offset after which a reader begins, according to the window."""
        if isinstance(start, Now):
            return self.top
        if isinstance(start, Last):
            return max(self.top - start.count, self.first - 1)
        if isinstance(start, Position):
            known = start.epoch == self.epoch and start.offset <= self.top
            return start.offset if known else None
        return self.first - 1

    def receive(self, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages of the log."""
        with self._lock:
            top = self.top
            self._history.age(self._clock.now())
            received = self._history.receive(epoch, first, run)
            self.seen += [message.data for message in run if message.offset > top] * (
                received is Received.APPENDED
            )
            return received

    def reset(self, epoch: str, first: int) -> None:
        """Drop all messages."""
        with self._lock:
            self._history.reset(epoch, first)
