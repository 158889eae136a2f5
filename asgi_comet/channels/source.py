"""Reading async iterators into channels: as soon as values come, or on demand.

Owns a source from the moment its channel is created to its end: one pump per channel reads it, and
whatever happens its `aclose()` runs, within `CLOSE_LIMIT`. A pump knows the feed, never the
`Channel`, so it does not keep a channel alive that nobody holds.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import Timer, Timers
from asgi_comet._runtime.waiting import make_interrupt, pass_cancellation
from asgi_comet.channels.feed import Feed
from asgi_comet.core.history import History
from asgi_comet.errors import ChannelClosed, ChannelFull

__all__ = ["CLOSE_LIMIT", "Demand", "Pump", "check_ahead", "close_source"]

_logger = logging.getLogger(__name__)

BATCH = 32  # values read between two turns of the loop, if the source never waits
CLOSE_LIMIT = 10.0  # seconds a source may take to end and close before it is cut off
CLOSE_AT_LEAST = 1.0  # seconds of these that are kept for `aclose()`


class Demand:
    """How far an on-demand source may be read: up to an offset, and while the history has room.

    Used only in the loop's thread.

    Args:
        room: Bytes that the next message may have. The source is read only if the history can hold
            that many more without displacing a message.
    """

    __slots__ = ("_asked", "_room", "_upto")

    def __init__(self, room: int) -> None:
        self._room = room
        self._upto = 0
        self._asked: anyio.Event | None = None

    def ask(self, upto: int) -> None:
        """A reader asks for messages up to an offset."""
        self._upto = max(self._upto, upto)
        if self._asked is not None:
            self._asked.set()

    async def wait(self, history: History) -> None:
        """Return once a reader asks for more than the history has, and there is room for it."""
        while self._upto <= history.top or history.displaced_by(self._room) >= history.first:
            self._asked = anyio.Event()
            await self._asked.wait()


def check_ahead(ahead: int) -> None:
    """Check how far an on-demand source may be read ahead of its client.

    Raises:
        ValueError: It is less than 1.
    """
    if ahead < 1:
        raise ValueError(f"expected ahead to be a number of messages, at least 1, got {ahead!r}")


async def close_source(source: AsyncIterator[Any]) -> None:
    """Close a source, if it can be."""
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()


class Pump:
    """Reads one source into one feed.

    Args:
        feed: Where the values go.
        source: Where they come from. It is closed in the end, also if it was never started.
        publish: Encodes and publishes a value.
        ended: Told when the source is over, and why: `ended` or `failed`.
        demand: When to read; `None` means as soon as values come.
        runtime: Where it runs, and where a source that does not close is cut off.
    """

    def __init__(
        self,
        feed: Feed,
        source: AsyncIterator[Any],
        *,
        publish: Callable[[Any], object],
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
        self._give_up = math.inf  # when it is cut off; known once it is to end
        self._limit: _Limit | None = None
        self._stopped = False
        self._wake: Callable[[], None] = _asleep

    def stop(self) -> None:
        """Have the source closed: cancelled once where it waits, and cut off if that is not enough.

        Thread-safe; idempotent.
        """
        self._stopped = True
        self._loop.run(self._stop)

    async def run(self) -> None:
        """Read until the source is over, or stopped; then close it, whatever happened."""
        if not self._stopped:
            with anyio.CancelScope() as scope:
                limit = self._limit = _Limit(self._feed.name, self._timers, scope)
                self._ended(await self._read())
            limit.lift()
        self._limit = None  # from here on there is nothing to stop
        self._give_up = min(self._give_up, self._clock.now() + CLOSE_LIMIT)
        with anyio.CancelScope() as scope:
            limit = _Limit(self._feed.name, self._timers, scope)
            limit.begin(max(self._give_up - self._clock.now(), 0.0))
            await self._close()
        limit.lift()

    async def _read(self) -> str:
        interrupt = make_interrupt(self._loop.asyncio)
        self._wake = interrupt.fire
        try:
            count = 0
            while True:
                value = await interrupt.run(self._next)
                if self._stopped:
                    break
                self._publish(value)
                count += 1
                if count % BATCH == 0:  # a source need not wait for anything, but others do
                    await checkpoint()
        except StopAsyncIteration:
            pass
        except (Exception, GeneratorExit, asyncio.CancelledError) as error:
            pass_cancellation(error)
            if isinstance(error, ChannelClosed | ChannelFull) and error.name == self._feed.name:
                return "ended"  # it was, in this very moment; not some other that the source writes
            _logger.exception("the source of channel %.200r failed", self._feed.name)
            return "failed"
        return "ended"

    async def _next(self) -> Any:
        if self._demand is not None:
            await self._demand.wait(self._feed.history)
        return await anext(self._source)

    async def _close(self) -> None:
        try:
            await close_source(self._source)
        except (Exception, asyncio.CancelledError) as error:
            pass_cancellation(error)
            _logger.exception("the source of channel %.200r failed to close", self._feed.name)

    def _stop(self) -> None:
        if self._limit is not None:
            self._give_up = min(self._give_up, self._clock.now() + CLOSE_LIMIT)
            self._limit.begin(CLOSE_LIMIT - CLOSE_AT_LEAST)
            self._wake()


def _asleep() -> None:
    """Nothing to wake: the source is not being read."""


class _Limit(Timer):
    """Cuts a source off that takes too long to close."""

    __slots__ = ("_name", "_scope", "_timers")

    def __init__(self, name: str, timers: Timers, scope: anyio.CancelScope) -> None:
        super().__init__()
        self._name = name
        self._timers = timers
        self._scope = scope

    def begin(self, seconds: float) -> None:
        """Count from now, if not already."""
        if self._bucket is None and not self._scope.cancel_called:
            self._timers.start(self, seconds)

    def lift(self) -> None:
        """It is over."""
        self._timers.stop(self)

    def expire(self) -> None:
        """Cut it off."""
        _logger.warning(
            "the source of channel %.200r did not close within %g s and was cut off",
            self._name,
            CLOSE_LIMIT,
        )
        self._scope.cancel()
