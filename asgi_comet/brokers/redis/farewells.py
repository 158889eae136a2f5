"""The application's functions that run once for each closed client process.

Owns which of these this worker runs, and that no other worker begins them meanwhile; another worker
does if this one ends before the functions do. Must not know the functions, nor how a client process
closes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.people_scripts import RESUMED, PeopleScripts

__all__ = ["Farewells"]

RENEW = RESUMED / 1000 / 3  # seconds between two reports that the functions still run


class Farewells:
    """The closed client processes whose functions run in this worker.

    Args:
        people: The scripts of people.
        run: Runs the functions for a client process, and calls a function at the end.
        clock: The clock.
    """

    def __init__(
        self,
        people: PeopleScripts,
        run: Callable[[str, Callable[[], None]], None],
        clock: Clock,
    ) -> None:
        self._people = people
        self._run = run
        self._clock = clock
        self._connection: Connection  # set by `run`, before any client process closes
        self._running: dict[str, bool] = {}  # whether the functions have ended

    def __len__(self) -> int:
        return len(self._running)

    def take(self, process: str) -> bool:
        """Reserve a client process for `begin`; return false if it was reserved already.

        Call as soon as Redis has answered that the process closes: such an answer comes before the
        one that the functions have ended, so they never run twice.
        """
        if process in self._running:
            return False
        self._running[process] = False
        return True

    def give_back(self, process: str) -> None:
        """Leave a reserved client process to a sweeper."""
        self._running.pop(process, None)

    def begin(self, process: str) -> None:
        """Run the functions for a reserved client process, unless this worker stops."""
        if process in self._running:
            self._run(process, partial(self._end, process))

    def _end(self, process: str) -> None:
        if process in self._running:
            self._running[process] = True
            self._report(process)

    def _report(self, process: str) -> None:
        """Tell Redis that the functions have ended, or else that they still run."""
        keys = self._people.keys.process(process)
        if self._running[process]:
            asked = self._connection.send(self._people.finish(keys, []))
            asked.add_done_callback(partial(self._forget, process))
        else:
            self._connection.send(self._people.prolong(keys))

    def _forget(self, process: str, reply: asyncio.Future[bool]) -> None:
        if reply.exception() is None:
            self._running.pop(process, None)

    async def run(self, connection: Connection) -> NoReturn:
        """Report on each connection, and again and again, until the connection ends."""
        self._connection = connection
        while True:
            for process in list(self._running):
                self._report(process)
            await self._clock.sleep_until(self._clock.now() + RENEW)

    def depart(self, connection: Connection) -> None:
        """Let other workers run soon what this one has not ended: it stops."""
        for process in self._running:
            connection.send(self._people.abandon(self._people.keys.process(process)))
        self._running.clear()
