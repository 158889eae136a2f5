"""Deliveries: the result of `publish`, awaited for the outcome.

Owns nothing: a `Delivery` that is not awaited is a few references.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable
from contextlib import suppress

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import Timers
from asgi_comet.brokers.logs import Stored
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.outcomes import Awaited, Outcome
from asgi_comet.errors import BrokerUnavailable
from asgi_comet.position import Position

__all__ = ["Delivery"]

ASKED = (1.0, 2.0, 4.0)  # seconds after which the store is asked, and at the deadline


class Delivery:
    """A published message. Await it for the outcome, or drop it.

    Awaiting returns `Outcome.SUCCESS` once one client has the message; `Outcome.FAILURE` if the
    connection of every listener broke first, or if no client had the message `Settings.timeout`
    seconds after the write; `Outcome.UNKNOWN` if the message was sent only to clients that do not
    acknowledge, or the client of a process channel was told `full` and skips the message; and in
    place of `FAILURE` if other workers have the channel, too. A client with positions has a message
    once its next request carries the message's position; a registration request without a client
    process, once the server took the answer.

    Await it in the lifespan's event loop, any number of times, at once or later. Cancelling a wait
    has no other effect.

    Source: `Ocsigen_comet.Channels.write`.
    """

    __slots__ = ("_deadline", "_feed", "_offset", "_runtime")

    def __init__(self, runtime: Runtime, feed: Feed, offset: Stored, patience: float) -> None:
        self._runtime = runtime
        self._feed = feed
        self._offset = offset
        self._deadline = runtime.clock.now() + patience

    def __await__(self) -> Generator[object, object, Outcome]:
        return self._count().__await__()

    async def stored(self) -> Position:
        """Return the position of the message, once the broker has it.

        In memory that is at once: `publish` itself stored it.

        Raises:
            BrokerUnavailable: The broker could not be reached in time.
            ChannelClosed: Another worker had ended the channel.
        """
        offset = self._offset
        return self._feed.position(offset) if isinstance(offset, int) else await offset()

    async def _count(self) -> Outcome:
        outcome = await self._outcome()
        self._runtime.counters.outcomes[outcome.value] += 1
        return outcome

    async def _outcome(self) -> Outcome:
        runtime, feed = self._runtime, self._feed
        runtime.loop.check()
        runtime.loop.check_here()
        offset = self._offset
        if not isinstance(offset, int):
            position = await offset()
            offset, feed = position.offset, feed.latest
            if feed.epoch != position.epoch:  # whether the message is lost cannot be told
                return Outcome.UNKNOWN
        outcomes = feed.outcomes
        known = outcomes.of(offset)
        if known is Outcome.SUCCESS:
            return known
        # Other workers may have delivered what no listener of this one has.
        worst = known or (Outcome.FAILURE if feed.local else Outcome.UNKNOWN)
        skipped = offset <= outcomes.skipped
        left = 0.0 if skipped else self._deadline - runtime.clock.now()
        if left <= 0:
            return worst if feed.broker is None else await _look_back(feed, offset)
        wait = _Wait(runtime.timers)
        awaited = Awaited(offset, self._listeners(feed, offset), wait.settle)
        awaited.at_worst = worst
        outcomes.watch(awaited)
        runtime.timers.start(awaited, left)
        try:
            if feed.broker is None:
                await wait.done()
            else:
                await wait.ask(feed, left)
        finally:
            outcomes.unwatch(awaited)
            runtime.timers.stop(awaited)
        return wait.outcome

    def _listeners(self, feed: Feed, offset: int) -> set[Hashable]:
        """Return what has to be lost for the message to be lost."""
        if feed.broker is not None:
            return {self}  # the client may come back to any worker
        return {x for x in feed.listeners if x.cursors[feed] < offset}


class _Wait:
    """One wait for an outcome."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._found: list[Outcome] = []
        self._look = anyio.Event()

    @property
    def outcome(self) -> Outcome:
        """The first outcome; success, if that came with the last question."""
        return Outcome.SUCCESS if Outcome.SUCCESS in self._found else self._found[0]

    def settle(self, outcome: Outcome) -> None:
        self._found.append(outcome)
        self._look.set()

    async def done(self) -> None:
        """Return once there is an outcome."""
        if not self._found:
            await self._look.wait()

    async def ask(self, feed: Feed, left: float) -> None:
        """Do the same, and ask the store, because the client may read at another worker."""
        before = 0.0
        for after in ASKED:
            if after < left and not self._found:
                await self._timers.wait(self._look, after - before)
                self._look, before = anyio.Event(), after
                await self._learn(feed)
        await self.done()
        await self._learn(feed)

    async def _learn(self, feed: Feed) -> None:
        if Outcome.SUCCESS not in self._found:
            await _learn(feed)


async def _look_back(feed: Feed, offset: int) -> Outcome:
    """Return the outcome so far, as the store knows it, of a channel that workers share."""
    epoch = feed.epoch
    await _learn(feed)
    known = feed.outcomes.of(offset) if feed.epoch == epoch else None  # else of another message
    return known or Outcome.UNKNOWN


async def _learn(feed: Feed) -> None:
    """Find out from the store which messages the client process of a channel has."""
    assert feed.broker is not None  # noqa: S101 - for the type checker
    with suppress(BrokerUnavailable):
        feed.learn(await feed.broker.acknowledged(feed))
