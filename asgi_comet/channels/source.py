"""Pumps read async iterators into channels: as soon as values come, or on demand.

Owns a source from the creation of its channel to its end: one pump per channel reads the source,
and always calls its `aclose()`, within `CLOSE_LIMIT`. A pump holds the feed, never the `Channel`,
so the pump does not keep an unused channel alive.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import Timeout
from asgi_comet._runtime.waiting import make_interrupt, pass_cancellation
from asgi_comet.brokers.logs import Fenced, Stored
from asgi_comet.channels.feed import Feed
from asgi_comet.core.history import History, check_count
from asgi_comet.core.messages import Position
from asgi_comet.errors import ChannelClosed, ChannelFull, CometError

__all__ = ["CLOSE_LIMIT", "Demand", "Pump", "check_ahead", "close_source"]

_logger = logging.getLogger(__name__)

AHEAD = 64  # values read before the first of them is known to be stored
BATCH = 32  # values read between two turns of the loop, if the source never waits
CLOSE_LIMIT = 10.0  # seconds in which a source must end and close; then it is cancelled
CLOSE_AT_LEAST = 1.0  # seconds of `CLOSE_LIMIT` reserved for `aclose()`


class Demand:
    """The limit of reading an on-demand source: an offset, and the room in the history.

    Used only in the loop's thread.

    Args:
        room: The maximal size of a message, in bytes. The source is read only if the history has
            that much room without displacing a message.
    """

    __slots__ = ("_asked", "_room", "_upto")

    def __init__(self, room: int) -> None:
        self._room = room
        self._upto = 0
        self._asked: anyio.Event | None = None

    def ask(self, upto: int) -> None:
        """Ask for messages up to an offset."""
        self._upto = max(self._upto, upto)
        if self._asked is not None:
            self._asked.set()

    async def wait(self, history: History) -> None:
        """Wait until a reader asks for the next message and the history has room for it."""
        while self._upto <= history.top or history.displaced_by(self._room) >= history.first:
            self._asked = anyio.Event()
            await self._asked.wait()


def check_ahead(ahead: int) -> None:
    """Check the `ahead` option of an on-demand source.

    Raises:
        TypeError: `ahead` is no whole number.
        ValueError: `ahead` is less than 1.
    """
    check_count("ahead", ahead)


async def close_source(source: AsyncIterator[Any]) -> None:
    """Close a source, if it has `aclose()`."""
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()


class Pump:
    """Reads one source into one feed.

    Args:
        feed: Receives the values.
        source: The source. Always closed in the end, even if never started.
        publish: Encodes and publishes a value; returns how far it is stored.
        ended: Called when the source has ended, with the reason: `ended` or `failed`.
        demand: The limit of reading; `None` reads values as soon as they come.
        runtime: Runs the pump and its time limit.

    Attributes:
        clean: Whether the source has closed in time, and all its values are stored.
    """

    def __init__(
        self,
        feed: Feed,
        source: AsyncIterator[Any],
        *,
        publish: Callable[[Any], Stored],
        ended: Callable[[str], None],
        demand: Demand | None,
        runtime: Runtime,
    ) -> None:
        self._feed = feed
        self._source = source
        self._publish = publish
        self._ended = ended
        self._demand = demand
        self._loop = runtime.loop
        self._timers = runtime.timers
        self._clock = runtime.clock
        self._give_up = math.inf  # the deadline of closing; set by `stop`
        self._limit: Timeout | None = None
        self._stopped = False
        self._wake: Callable[[], None] = _asleep
        self._behind: deque[Callable[[], Awaitable[Position]]] = deque()  # not known to be stored
        self.clean: bool = True

    def stop(self) -> None:
        """Close the source: cancel it once where it waits, and after the time limit for good.

        Thread-safe; idempotent.
        """
        self._stopped = True
        self._loop.run(self._stop)

    async def run(self) -> None:
        """Read until the source ends or is stopped; then close the source in any case."""
        if not self._stopped:
            with anyio.CancelScope() as scope:
                limit = self._limit = Timeout(partial(self._cut_off, scope))
                self._ended(await self._read())
            self._timers.stop(limit)
        self._limit = None  # from here on `stop` has no effect
        self._give_up = min(self._give_up, self._clock.now() + CLOSE_LIMIT)
        with anyio.CancelScope() as scope:
            limit = Timeout(partial(self._cut_off, scope))
            self._timers.start(limit, max(self._give_up - self._clock.now(), 0.0))
            await self._close()
            await self._store()
        self._timers.stop(limit)

    async def _read(self) -> str:
        interrupt = make_interrupt(self._loop.asyncio)
        self._wake = interrupt.fire
        try:
            count = 0
            while True:
                value = await interrupt.run(self._next)
                if self._stopped:
                    break
                stored = self._publish(value)
                if not isinstance(stored, int):
                    await interrupt.run(partial(self._wait_behind, stored))
                count += 1
                if count % BATCH == 0:  # a source may never wait, and other tasks must run
                    await checkpoint()
        except StopAsyncIteration:
            pass
        except (Exception, GeneratorExit, asyncio.CancelledError) as error:
            pass_cancellation(error)
            self.clean = False
            if isinstance(error, Fenced) and error.name == self._feed.name:
                return "ended"
            if isinstance(error, ChannelClosed | ChannelFull) and error.name == self._feed.name:
                return "ended"  # this channel was closed now, not one that the source uses
            _logger.exception("the source of channel %.200r failed", self._feed.name)
            return "failed"
        return "ended"

    async def _wait_behind(self, stored: Callable[[], Awaitable[Position]]) -> None:
        """Wait as long as too many values are not stored yet."""
        self._behind.append(stored)
        while len(self._behind) > AHEAD:
            await self._behind[0]()
            self._behind.popleft()

    async def _store(self) -> None:
        """Wait until all values are stored."""
        try:
            while self._behind:
                await self._behind.popleft()()
        except CometError:
            self.clean = False

    async def _next(self) -> Any:
        if self._demand is not None:
            await self._demand.wait(self._feed.history)
        return await anext(self._source)

    async def _close(self) -> None:
        try:
            await close_source(self._source)
        except (Exception, asyncio.CancelledError) as error:
            pass_cancellation(error)
            self.clean = False
            _logger.exception("the source of channel %.200r failed to close", self._feed.name)

    def _stop(self) -> None:
        if self._limit is not None:
            if self._give_up == math.inf:  # the first call starts the time limit
                self._give_up = self._clock.now() + CLOSE_LIMIT
                self._timers.start(self._limit, CLOSE_LIMIT - CLOSE_AT_LEAST)
            self._wake()

    def _cut_off(self, scope: anyio.CancelScope) -> None:
        """Cancel a source that takes too long to close."""
        _logger.warning(
            "the source of channel %.200r did not close within %g s and was cut off",
            self._feed.name,
            CLOSE_LIMIT,
        )
        self.clean = False
        scope.cancel()


def _asleep() -> None:
    """Do nothing: the source is not being read."""
