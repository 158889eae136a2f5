"""Deliveries: the result of `publish`, awaited for the outcome.

Owns nothing: a `Delivery` that is not awaited is a few references.
"""

from __future__ import annotations

from collections.abc import Generator

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.brokers.logs import Stored
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.outcomes import Awaited, Outcome
from asgi_comet.core.messages import Position

__all__ = ["Delivery"]


class Delivery:
    """A published message. Await it for the outcome, or drop it.

    Awaiting returns `Outcome.SUCCESS` once one client has the message; `Outcome.FAILURE` if the
    connection of every listener broke first, or if no client had the message `Settings.timeout`
    seconds after the write; `Outcome.UNKNOWN` if the message was sent only to clients that do not
    acknowledge, and in place of `FAILURE` if other workers have the channel, too. A client with
    positions has a message once its next request carries the message's position; a registration
    request without a client process, once the server took the answer.

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
        return self._outcome().__await__()

    async def stored(self) -> Position:
        """Return the position of the message, once the broker has it.

        In memory that is at once: `publish` itself stored it.

        Raises:
            BrokerUnavailable: The broker could not be reached in time.
            ChannelClosed: Another worker had ended the channel.
        """
        offset = self._offset
        return self._feed.position(offset) if isinstance(offset, int) else await offset()

    async def _outcome(self) -> Outcome:
        runtime, feed = self._runtime, self._feed
        runtime.loop.check()
        runtime.loop.check_here()
        offset = self._offset
        if not isinstance(offset, int):
            offset = (await offset()).offset
            feed = feed.latest  # the log may have another epoch by now
        outcomes = feed.outcomes
        known = outcomes.of(offset)
        if known is Outcome.SUCCESS:
            return known
        # Other workers may have delivered what no listener of this one has.
        worst = known or (Outcome.FAILURE if feed.local else Outcome.UNKNOWN)
        left = self._deadline - runtime.clock.now()
        if left <= 0:
            return worst
        settled = anyio.Event()
        found: list[Outcome] = []

        def settle(outcome: Outcome) -> None:
            found.append(outcome)  # the first one counts
            settled.set()

        waiting = {x for x in feed.listeners if x.cursors[feed] < offset}
        awaited = Awaited(offset, set(waiting), settle)
        awaited.at_worst = worst
        outcomes.watch(awaited)
        runtime.timers.start(awaited, left)
        try:
            await settled.wait()
        finally:
            outcomes.unwatch(awaited)
            runtime.timers.stop(awaited)
        return found[0]
