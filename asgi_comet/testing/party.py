"""A worker as a broker uses it, for tests of brokers: a host, and windows on logs."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from asgi_comet._runtime.clock import Clock, MonotonicClock
from asgi_comet._runtime.loop import LoopThread
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import ChannelSpec, Log, Stored
from asgi_comet.core.aged import make_history
from asgi_comet.core.history import Received
from asgi_comet.core.messages import Last, Message, Now, Position, Start
from asgi_comet.errors import ChannelClosed

__all__ = ["Party", "Window", "position"]

HEARTBEAT = 1.0  # seconds
PATIENCE = 20.0  # seconds until a waiting test fails


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


class Party:
    """One worker: a broker and its host.

    Args:
        broker: The broker.
        clock: The clock; by default that of the machine.

    Attributes:
        broker: The broker.
        cuts: How often a window was cut.
    """

    def __init__(self, broker: Broker, clock: Clock | None = None) -> None:
        self.broker: Broker = broker
        self.cuts: int = 0
        self.heartbeat: float = HEARTBEAT
        self.digest: str = ""
        self._loop = LoopThread()
        self._clock = clock or MonotonicClock()
        self._changed = anyio.Event()
        broker.bind(self)

    # Called by the broker

    def now(self) -> float:
        """Return the time, in seconds."""
        return self._clock.now()

    def run_soon(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's next turn."""
        self._loop.run_soon(function)

    def appended(self, log: Log) -> None:
        """Record that a window has a new message."""
        self._loop.run(self._change)

    def received(self, log: Log, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages to a window."""
        received = log.receive(epoch, first, run)
        self._change()
        return received

    def moved(self, log: Log, epoch: str, first: int, began: int) -> Log:
        """Reset a window to another epoch."""
        log.reset(epoch, first)
        self._change()
        return log

    def cut(self, log: Log, first: int) -> None:
        """Restart a window at an offset."""
        self.cuts += 1
        log.reset(log.epoch, first)
        self._change()

    def ended(self, log: Log, reason: str) -> None:
        """Record that a channel has ended."""
        assert isinstance(log, Window)
        log.closed = reason
        self._change()

    def owned(self, log: Log, newest: Message | None) -> None:
        """Record that the worker owns a channel."""
        assert isinstance(log, Window)
        log.owned += 1
        log.newest_owned = newest
        self._change()

    def disowned(self, log: Log) -> None:
        """Record that the worker owns a channel no more."""
        assert isinstance(log, Window)
        log.disowned += 1
        self._change()

    def in_use(self, log: Log) -> bool:
        """Return what the test says."""
        assert isinstance(log, Window)
        return log.used

    def wanted(self, log: Log, offset: int) -> None:
        """Record that a reader asks for messages."""
        assert isinstance(log, Window)
        log.wanted = offset
        self._change()

    # Called by the tests

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the broker while the context lasts."""
        self._loop.enter()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.broker.run)
                yield
                await self.broker.hand_over()
                tasks.cancel_scope.cancel()
        finally:
            self._loop.leave()

    async def make(
        self,
        name: str,
        *,
        size: int = 100,
        max_age: float | None = None,
        adopt: bool = False,
        sourced: bool = False,
        reclaim: bool = False,
    ) -> Window:
        """Open a channel and follow it."""
        spec = ChannelSpec(
            name=name,
            kind="site",
            size=size,
            max_bytes=2**20,
            adopt=adopt,
            sourced=sourced,
            reclaim=reclaim,
            max_age=max_age,
        )
        window = Window(spec, self._clock)
        await self.broker.open(window)
        await self.broker.follow(window)
        return window

    async def join(self, name: str) -> Window:
        """Follow a channel of another worker."""
        spec = await self.broker.find(name)
        assert spec is not None
        window = Window(spec, self._clock)
        await self.broker.follow(window)
        return window

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        with anyio.fail_after(PATIENCE):
            while not reached():
                self._changed = anyio.Event()
                await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()


async def position(log: Log, stored: Stored) -> Position:
    """Return the position of a message, once it is stored."""
    return Position(log.epoch, stored) if isinstance(stored, int) else await stored()
