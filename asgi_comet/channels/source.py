"""Pumps read async iterators into channels: as soon as values come, or on demand.

Owns a source from the creation of its channel to its end: one pump per channel reads the source,
and always calls its `aclose()`, within `CLOSE_LIMIT`. A pump holds the feed, never the `Channel`,
so the pump does not keep an unused channel alive.
"""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
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
from asgi_comet.errors import ChannelClosed, ChannelFull, CometError
from asgi_comet.log_events import event
from asgi_comet.position import Position

__all__ = ["CLOSE_LIMIT", "Demand", "Pump", "check_ahead", "close_source"]

_logger = logging.getLogger(__name__)

AHEAD = 64  # values read before the first of them is known to be stored
BATCH = 32  # values read between two turns of the loop, if the source never waits
CLOSE_LIMIT = 10.0  # seconds in which a source must end and close; then it is cancelled
FAULT_LIMIT = 2000  # characters of a traceback that are kept for operators
CLOSE_AT_LEAST = 1.0  # seconds of `CLOSE_LIMIT` reserved for `aclose()`


class Demand:
    """The limit of reading an on-demand source: an offset, and the room in the history.

    Used only in the loop's thread.

    Args:
        feed: Receives the values. In another incarnation of it, no message was asked for yet.
        room: The maximal size of a message, in bytes. The source is read only if the history has
            that much room without displacing a message.
    """

    __slots__ = ("_asked", "_epoch", "_epochs", "_feed", "_room", "_stored", "_upto")

    def __init__(self, feed: Feed, room: int) -> None:
        self._feed = feed
        self._room = room
        self._upto = 0
        self._stored = 0
        self._epoch = ""  # in which the last value was asked for
        self._epochs: set[str] = set()  # in which a history may still be that lacks it
        self._asked: anyio.Event | None = None

    def ask(self, upto: int) -> None:
        """Ask for messages up to an offset of the newest incarnation."""
        self._follow()
        self._upto = max(self._upto, upto)
        if self._asked is not None:
            self._asked.set()

    def note(self, stored: Position, history: History) -> None:
        """Record what is stored; the history may get it later, if other workers have it, too."""
        if stored.epoch != history.epoch:
            if stored.epoch == self._epoch:
                return  # the history is of a later epoch, which may lack the message
            self._upto = 0  # the history is of a former epoch: what it was asked for is past
        self._stored, self._epochs = stored.offset, {stored.epoch, history.epoch}

    async def wait(self) -> None:
        """Wait until a reader asks for the next message and the history has room for it."""
        while not self._may_read(history := self._follow()):
            self._asked = anyio.Event()
            await self._asked.wait()
        self._epoch = history.epoch

    def _may_read(self, history: History) -> bool:
        top = self._find_top(history)
        return self._upto > top and history.displaced_by(self._room) < history.first

    def _find_top(self, history: History) -> int:
        return max(history.top, self._stored) if history.epoch in self._epochs else history.top

    def _follow(self) -> History:
        """Return the history of the newest incarnation."""
        newest = self._feed.latest
        if newest is not self._feed:
            self._feed, self._upto = newest, 0
        return newest.history


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
        fault: The end of the traceback, if the source has failed; otherwise empty.
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
        self.fault: str = ""

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
            while not self._stopped:
                found = await interrupt.run(self._next)
                if found is None or not self._has_place():
                    break
                stored = self._publish(found[0])
                if not isinstance(stored, int):
                    self._behind.append(stored)
                    await interrupt.run(self._wait_behind)
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
            _logger.exception(
                "the source of channel %.200r failed",
                self._feed.name,
                extra=event("source.failed", channel=self._feed.name),
            )
            self.fault = traceback.format_exc()[-FAULT_LIMIT:]
            return "failed"
        return "ended"

    async def _wait_behind(self) -> None:
        """Wait as long as too many values are not stored yet.

        On demand, the next value is asked for by what the history holds.
        """
        while len(self._behind) > (AHEAD if self._demand is None else 0):
            position = await self._behind[0]()
            self._behind.popleft()
            if self._demand is not None:
                self._demand.note(position, self._feed.latest.history)

    async def _store(self) -> None:
        """Wait until all values are stored."""
        try:
            while self._behind:
                await self._behind.popleft()()
        except CometError:
            self.clean = False

    def _has_place(self) -> bool:
        """Return whether a value can be published: when the server stops, to other workers."""
        return not self._stopped or self._feed.latest.left

    async def _next(self) -> tuple[Any]:
        if self._demand is not None:
            await self._demand.wait()
        return (await anext(self._source),)  # `None` may be a value

    async def _close(self) -> None:
        try:
            await close_source(self._source)
        except (Exception, asyncio.CancelledError) as error:
            pass_cancellation(error)
            self.clean = False
            _logger.exception(
                "the source of channel %.200r failed to close",
                self._feed.name,
                extra=event("source.failed", channel=self._feed.name),
            )

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
            extra=event("function.cut_off", channel=self._feed.name, seconds=CLOSE_LIMIT),
        )
        self.clean = False
        scope.cancel()


def _asleep() -> None:
    """Do nothing: the source is not being read."""
