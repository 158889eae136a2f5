"""A worker as a broker uses it, for tests of brokers."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from asgi_comet._runtime.clock import Clock, MonotonicClock
from asgi_comet._runtime.loop import LoopThread
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import ChannelSpec, Log, Stored
from asgi_comet.brokers.people import Limits, People
from asgi_comet.core.history import Received
from asgi_comet.core.messages import Message
from asgi_comet.position import Position
from asgi_comet.testing.home import Home
from asgi_comet.testing.window import Window

__all__ = ["Party", "Window", "gather", "new_id", "people_of", "position"]

HEARTBEAT = 1.0  # seconds
PATIENCE = 20.0  # seconds until a waiting test fails


class Party:
    """One worker: a broker and its host.

    Args:
        broker: The broker.
        clock: The clock; by default that of the machine.
        limits: The bounds of client processes.

    Attributes:
        broker: The broker.
        cuts: How often a window was cut.
        people: What the worker was told of sessions and client processes.
    """

    def __init__(
        self, broker: Broker, clock: Clock | None = None, limits: Limits | None = None
    ) -> None:
        self.broker: Broker = broker
        self.cuts: int = 0
        self.heartbeat: float = HEARTBEAT
        self.digest: str = ""
        self.limits: Limits = limits or Limits()
        self._loop = LoopThread()
        self._clock = clock or MonotonicClock()
        self._changed = anyio.Event()
        self.people: Home = Home(self._change, self._clock)
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

    def answer(self, question: str) -> str:
        """Answer with the question."""
        return question

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

    async def make_own(
        self,
        process: str,
        name: str,
        *,
        kind: str = "process",
        size: int = 100,
        adopt: bool = False,
        sourced: bool = False,
    ) -> Window:
        """Open a channel of a client process; its window is filled while a connection claims it."""
        spec = ChannelSpec(
            name=name,
            kind=kind,
            size=size,
            max_bytes=2**20,
            owner=process,
            adopt=adopt,
            sourced=sourced,
        )
        window = self.people.window(spec)
        await self.broker.open(window)
        return window

    async def join(self, name: str) -> Window:
        """Follow a channel of another worker."""
        spec = await self.broker.find(name)
        assert spec is not None
        window = Window(spec, self._clock)
        await self.broker.follow(window)
        return window

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until a condition holds.

        Raises:
            TimeoutError: The broker did not call the worker so that it holds.
        """
        with anyio.move_on_after(PATIENCE):
            while not reached():
                self._changed = anyio.Event()
                await self._changed.wait()
            return
        raise TimeoutError(
            f"expected the broker to call its host within {PATIENCE:g} s so that the condition of "
            "the test holds"
        )

    def _change(self) -> None:
        self._changed.set()


def new_id(other: str = "") -> str:
    """Return an unused id, in the partition of another one."""
    return other[:2] + secrets.token_urlsafe(18)[len(other[:2]) :]


def people_of(party: Party) -> People:
    """Return the people of a worker."""
    people = party.broker.people
    assert people is not None, "expected Broker.people, without which this suite does not apply"
    return people


async def position(log: Log, stored: Stored) -> Position:
    """Return the position of a message, once it is stored."""
    return Position(log.epoch, stored) if isinstance(stored, int) else await stored()


@asynccontextmanager
async def gather(
    brokers: Sequence[Broker], limits: Limits | None = None
) -> AsyncIterator[list[Party]]:
    """Run a worker for each broker."""
    parties = [Party(broker, limits=limits) for broker in brokers]
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        stop = anyio.Event()
        started = [anyio.Event() for _ in parties]

        async def run(party: Party, begun: anyio.Event) -> None:
            async with party.running():
                begun.set()
                await stop.wait()

        for party, begun in zip(parties, started, strict=True):
            tasks.start_soon(run, party, begun)
        for begun in started:
            await begun.wait()
        try:
            yield parties
        except BaseException as error:  # raised again outside the group, which would wrap it
            failure = error
            tasks.cancel_scope.cancel()
        stop.set()
    if failure is not None:
        raise failure
