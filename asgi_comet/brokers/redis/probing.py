"""The probe: a frame that a worker publishes to itself through Redis, again and again.

Owns when a worker gives up a connection without frames: after a failover the server may still
answer a worker, though the other workers publish on another server.
Must not know how a worker connects again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import NoReturn

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.scripts import Scripts

__all__ = ["Inbox", "Probe"]

EVERY = 5.0  # seconds between two probes
PATIENCE = 2.0  # seconds until one must have come back


class Inbox:
    """The frames for one worker, by their first letter.

    Attributes:
        topic: The topic of these frames.
        on: A function for each first letter; other frames are ignored.
    """

    def __init__(self) -> None:
        self.topic: str = ""
        self.on: dict[bytes, Callable[[bytes], None]] = {}

    def take(self, frame: bytes) -> None:
        """Take a frame in."""
        handler = self.on.get(frame[:1])
        if handler is not None:
            handler(frame)


class Probe:
    """Publishes to the worker's own inbox.

    Args:
        scripts: The scripts.
        clock: The clock.
        inbox: The inbox, in which the probes arrive.
        generation: Returns the generation of the data that this worker knows.

    Attributes:
        lag: How many seconds the last probe was on its way.
    """

    def __init__(
        self, scripts: Scripts, clock: Clock, inbox: Inbox, generation: Callable[[], str]
    ) -> None:
        self._scripts = scripts
        self._clock = clock
        self._inbox = inbox
        self._generation = generation
        self.lag: float = 0.0
        self._last = -math.inf
        self._number = 0
        self._arrived: asyncio.Future[None] | None = None
        inbox.on[b"p"] = self._take

    @property
    def age(self) -> float:
        """How many seconds ago the last probe came back; infinite if there was none."""
        return self._clock.now() - self._last

    async def run(self, connection: Connection) -> NoReturn:
        """Probe a connection until the connection ends."""
        while True:
            await self._probe(connection)
            await self._clock.sleep_until(self._clock.now() + EVERY)

    async def _probe(self, connection: Connection) -> None:
        """Close the connection if the probe does not arrive, or the data have changed."""
        self._number += 1
        self._arrived = asyncio.get_running_loop().create_future()
        frame, sent = b"p%d" % self._number, self._clock.now()
        told = connection.send(Call(("PUBLISH", self._inbox.topic, frame), int))
        generation = connection.send(self._scripts.lineage())
        try:
            async with asyncio.timeout(PATIENCE):
                if await told < 1:
                    connection.close("Redis does not know of this worker's subscriptions")
                    return
                await self._arrived
                self.lag = self._clock.now() - sent
        except TimeoutError:
            connection.close(f"a probe did not come back within {PATIENCE:g} s")
        if await generation != self._generation():
            connection.close("the data of Redis are of another generation")
        self._last = self._clock.now()

    def _take(self, frame: bytes) -> None:
        if frame == b"p%d" % self._number and self._arrived and not self._arrived.done():
            self._arrived.set_result(None)
