"""What `publish` returns: a message on its way, and what became of it for those who ask.

Owns nothing: a `Delivery` that nobody awaits is three references.
"""

from __future__ import annotations

from collections.abc import Generator

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.brokers.base import Stored
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.outcomes import Awaited, Outcome
from asgi_comet.core.messages import Position

__all__ = ["Delivery"]


class Delivery:
    """A published message. Await it to learn its outcome; nothing happens if nobody does.

    Awaiting gives `Outcome.SUCCESS` once one listener has the message, `Outcome.FAILURE` when the
    connection of every listener there was broke first, or when nobody had it `Settings.timeout`
    seconds after the write, and `Outcome.UNKNOWN` when it was only sent to clients that acknowledge
    nothing. A client with positions has a message once it comes back with the message's position; a
    registration request without a client process once the answer was handed to the server.

    Awaited in the lifespan's event loop, any number of times, at once or later. A cancelled wait
    changes nothing.

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
            feed = feed.latest  # its log may have got another epoch meanwhile
        outcomes = feed.outcomes
        known = outcomes.of(offset)
        if known is Outcome.SUCCESS:
            return known
        left = self._deadline - runtime.clock.now()
        if left <= 0:
            return known or Outcome.FAILURE
        settled = anyio.Event()
        found: list[Outcome] = []

        def settle(outcome: Outcome) -> None:
            found.append(outcome)  # the first one counts
            settled.set()

        waiting = {x for x in feed.listeners if x.cursors[feed] < offset}
        awaited = Awaited(offset, set(waiting), settle)
        awaited.at_worst = known or Outcome.FAILURE
        outcomes.watch(awaited)
        runtime.timers.start(awaited, left)
        try:
            await settled.wait()
        finally:
            outcomes.unwatch(awaited)
            runtime.timers.stop(awaited)
        return found[0]
