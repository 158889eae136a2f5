"""The client processes that no worker has: their deadlines, and the second phase of closing.

Owns which worker looks at which partition, and the count of all client processes. Must not know the
connections of this worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.people import Moved
from asgi_comet.brokers.redis.asking import Asking
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.closing import Ending
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.foreign import passing_over
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.stock_scripts import StockScripts
from asgi_comet.brokers.redis.stocktaking import Stocktaking
from asgi_comet.errors import TooManyProcesses

__all__ = ["Sweeping"]

EVERY = 5.0  # seconds between two sweeps
FIRST = 0  # the partition whose sweeper takes stock of all


class Sweeping:
    """Closes client processes whose deadlines are over, in the partitions of this worker.

    Args:
        people: The scripts of people.
        asking: Runs scripts.
        ending: Closes client processes.
        heartbeat: Has the living workers.
        clock: The clock.

    Attributes:
        stocktaking: Finds client processes whose records are lost.
    """

    def __init__(
        self,
        people: PeopleScripts,
        asking: Asking,
        ending: Ending,
        heartbeat: Heartbeat,
        clock: Clock,
    ) -> None:
        self._people = people
        self._asking = asking
        self._ending = ending
        self._heartbeat = heartbeat
        self._clock = clock
        scripts = StockScripts(people.keys, people.timeout)
        self.stocktaking: Stocktaking = Stocktaking(scripts, asking, ending)
        self._counted = 0  # at the last sweep
        self._opened = 0  # by this worker, since then
        self._opening = 0

    async def run(self, connection: Connection) -> NoReturn:
        """Sweep until the connection ends."""
        await self._asking.ready()
        while True:
            await self._count()
            if self._heartbeat.calm:
                partitions = self._list_partitions()
                for partition in partitions:
                    with passing_over(partition):
                        await self._sweep(connection, partition)
                if FIRST in partitions:
                    await self.stocktaking.go_on()
            await self._clock.sleep_until(self._clock.now() + EVERY)

    @asynccontextmanager
    async def place(self, most: int) -> AsyncIterator[None]:
        """Count a client process that is opened in the context.

        Raises:
            TooManyProcesses: All workers together have as many as they may.
        """
        if self.known >= most:
            await self._count()
        if self.known >= most:
            raise TooManyProcesses(most, of_session=False)
        self._opening += 1
        try:
            yield
            self._opened += 1
        finally:
            self._opening -= 1

    @property
    def known(self) -> int:
        """How many client processes are open in all workers, as far as this worker knows."""
        return self._counted + self._opened + self._opening

    async def _count(self) -> None:
        opened, calls = self._opened, self._people.counts()
        try:
            counts = await self._asking.ask_all(calls)
        except ReplyError:
            counts = await self._count_each(calls)
        self._counted, self._opened = sum(counts), self._opened - opened

    async def _count_each(self, calls: Sequence[Call[int]]) -> list[int]:
        counts = []
        for partition, call in enumerate(calls):
            with passing_over(partition):
                counts.append(await self._asking.ask(call))
        return counts

    def _list_partitions(self) -> list[int]:
        """Return the partitions that fall to this worker, in turn with all living workers."""
        worker, workers = self._heartbeat.worker, self._heartbeat.living
        every = range(self._people.keys.partitions)
        return [one for one in every if max(workers, key=lambda w: _weigh(w, one)) == worker]

    async def _sweep(self, connection: Connection, partition: int) -> None:
        late = connection.send(self._people.late(partition))
        unfinished = await connection.send(self._people.unfinished(partition))
        for process in await late:
            await self._close(connection, process)
        for process in unfinished:
            await self._ending.close(process, process, resumes=True)

    async def _close(self, connection: Connection, process: str) -> None:
        """Close a client process, unless it is connected again, or has moved a moment ago."""
        session = await connection.send(self._people.owner(self._people.keys.process(process)))
        with suppress(Moved):
            await self._ending.close(session or process, process, if_late=True)


def _weigh(worker: str, partition: int) -> bytes:
    """Return a weight that is different for each partition: rendezvous hashing."""
    return hashlib.blake2b(f"{partition} {worker}".encode(), digest_size=8).digest()
