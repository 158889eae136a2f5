"""A worker as a broker uses it, for tests of brokers: a host, and windows on logs."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from asgi_comet._runtime.clock import MonotonicClock
from asgi_comet._runtime.loop import LoopThread
from asgi_comet.brokers.base import (
    Broker,
    ChannelSpec,
    Log,
    Stored,
)
from asgi_comet.core.history import History, Received
from asgi_comet.core.messages import Last, Message, Now, Position, Start
from asgi_comet.errors import ChannelClosed

__all__ = ["Party", "Window", "position"]

PATIENCE = 20.0  # seconds until a waiting test fails


class Window:
    """A window on a log, like that of a channel. Thread-safe.

    Attributes:
        spec: The properties that all workers agree on.
        closed: The reason why the channel has ended.
        seen: Every message that was added, in order.
    """

    def __init__(self, spec: ChannelSpec) -> None:
        self.spec: ChannelSpec = spec
        self.closed: str | None = None
        self.seen: list[bytes] = []
        self._history = History(size=spec.size, max_bytes=spec.max_bytes)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name of the channel."""
        return self.spec.name

    @property
    def epoch(self) -> str:
        """The epoch of the window."""
        return self._history.epoch

    @property
    def first(self) -> int:
        """The offset of the oldest message held."""
        return self._history.first

    @property
    def top(self) -> int:
        """The offset of the newest message."""
        return self._history.top

    def append(self, data: bytes) -> int:
        """Store a message under the next offset."""
        with self._lock:
            if self.closed is not None:
                raise ChannelClosed(self.name, self.closed)
            self.seen.append(data)
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

    Attributes:
        broker: The broker.
        cuts: How often a window was cut.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker: Broker = broker
        self.cuts: int = 0
        self._loop = LoopThread()
        self._clock = MonotonicClock()
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

    def moved(self, log: Log, epoch: str, first: int) -> Log:
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

    def wanted(self, log: Log, offset: int) -> None:
        """Do nothing: there are no sources."""

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

    async def make(self, name: str, *, size: int = 100, adopt: bool = False) -> Window:
        """Open a channel and follow it."""
        window = Window(
            ChannelSpec(name=name, kind="site", size=size, max_bytes=2**20, adopt=adopt)
        )
        await self.broker.open(window)
        await self.broker.follow(window)
        return window

    async def join(self, name: str) -> Window:
        """Follow a channel of another worker."""
        spec = await self.broker.find(name)
        assert spec is not None
        window = Window(spec)
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
