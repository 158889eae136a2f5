"""What `publish` returns: a message on its way, and what became of it for those who ask.

Owns nothing: a `Delivery` that nobody awaits is three references.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import anyio

from .clock import Clock
from .fanout import Feed
from .messages import Position
from .outcomes import Awaited, Outcome
from .threads import LoopThread
from .timers import Timers

__all__ = ["Delivery", "Observation"]


@dataclass(frozen=True, slots=True)
class Observation:
    """What awaiting a delivery needs, shared by all deliveries.

    Attributes:
        loop: The thread in which outcomes are observed.
        timers: Where the wait ends at the latest.
        clock: When a message was written.
        patience: Seconds after the write when nobody having the message is a failure.
    """

    loop: LoopThread
    timers: Timers
    clock: Clock
    patience: float


class Delivery:
    """A published message. Await it to learn its outcome; nothing happens if nobody does.

    Awaiting gives `Outcome.SUCCESS` once one listener has the message, `Outcome.FAILURE` when the
    connection of every listener there was broke first, or when nobody had it `Settings.timeout`
    seconds after the write. A registration request without a client process acknowledges nothing
    itself: there it counts that the answer was handed to the server.

    Awaited in the lifespan's event loop, any number of times, at once or later. A cancelled wait
    changes nothing.

    Source: `Ocsigen_comet.Channels.write`; semantics.md, "Outcome of a write".
    """

    __slots__ = ("_feed", "_observation", "_offset", "_written")

    def __init__(self, observation: Observation, feed: Feed, offset: int) -> None:
        self._observation = observation
        self._feed = feed
        self._offset = offset
        self._written = observation.clock.now()

    def __await__(self) -> Generator[object, object, Outcome]:
        return self._outcome().__await__()

    async def stored(self) -> Position:
        """Return the position of the message, once the broker has it.

        In memory that is at once: `publish` itself stored it.
        """
        return Position(self._feed.history.epoch, self._offset)

    async def _outcome(self) -> Outcome:
        observation, outcomes = self._observation, self._feed.outcomes
        observation.loop.check()
        if outcomes.confirmed(self._offset):
            return Outcome.SUCCESS
        left = self._written + observation.patience - observation.clock.now()
        if left <= 0:
            return Outcome.FAILURE
        settled = anyio.Event()
        found: list[Outcome] = []

        def settle(outcome: Outcome) -> None:
            found.append(outcome)  # the first one counts
            settled.set()

        waiting = {x for x in self._feed.listeners if x.cursors[self._feed] < self._offset}
        awaited = Awaited(self._offset, set(waiting), settle)
        outcomes.watch(awaited)
        observation.timers.start(awaited, left)
        try:
            await settled.wait()
        finally:
            outcomes.unwatch(awaited)
            observation.timers.stop(awaited)
        return found[0]
