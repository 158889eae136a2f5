"""Channels that Redis has lost together with their client process.

Owns for how long such a channel waits until a worker with a connection of the process has announced
the process. Must not know messages, nor how a channel is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.replies import Refused

__all__ = ["LOST", "WAIT", "Orphans"]

T = TypeVar("T")

LOST = Refused("closed", "lost")
"""The answer to the opening of a channel whose client process is not in Redis."""

WAIT = 15.0  # seconds; a worker finds its Redis emptied by its next probe, within five
PAUSE = 0.5  # seconds between two attempts


class Orphans(Generic[T]):
    """The channels that wait for their client process, each under a key of the caller.

    Args:
        clock: The clock.
        make_call: Returns the call that opens a channel again.
    """

    def __init__(self, clock: Clock, make_call: Callable[[T], Call[Any]]) -> None:
        self._clock = clock
        self._make_call = make_call
        self._since: dict[T, float] = {}
        self._work = asyncio.Event()

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, one: T) -> bool:
        return one in self._since

    def add(self, one: T) -> bool:
        """Let a channel wait; return false if the channel has waited for long enough."""
        now = self._clock.now()
        waits = self._since.setdefault(one, now) + WAIT > now
        self._work.set()
        return waits

    def discard(self, one: T) -> None:
        """Let a channel wait no longer. Idempotent."""
        self._since.pop(one, None)

    async def run(self, connection: Connection) -> NoReturn:
        """Try to open the waiting channels, until the connection ends."""
        work = self._work = asyncio.Event()
        while True:
            while self._since:
                await self._clock.sleep_until(self._clock.now() + PAUSE)
                asked = [connection.send(self._make_call(one)) for one in list(self._since)]
                await asyncio.gather(*asked, return_exceptions=True)
            await work.wait()
            work.clear()
