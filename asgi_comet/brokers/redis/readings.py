"""The client processes whose own channels connections of this worker read, or have read.

Owns which connection reads which client process, its windows, and how long windows go on without a
connection. Must not know how Redis is asked, nor how a window is filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.base import Host
from asgi_comet.brokers.logs import Placed
from asgi_comet.brokers.people import Found
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.keys import ProcessKeys
from asgi_comet.brokers.redis.people_calls import Reader
from asgi_comet.brokers.redis.replicas import Replica
from asgi_comet.brokers.redis.windows import OwnWindows
from asgi_comet.core.messages import Start
from asgi_comet.position import Position

__all__ = ["Reading", "Readings"]

KEPT = 30.0  # seconds that windows go on without a connection, for a client that polls comes back
TICK = 5.0  # seconds between two looks at these windows


class Reading:
    """One client process whose own channels a connection of this worker reads, or has read.

    Attributes:
        session: The session of the connection.
        keys: The keys of the client process.
        reader: The connection, as Redis knows it.
        local: The connection, as this worker knows it: a later one, if that came without a claim.
        came: Between which times of Redis the latter came, if it came without a claim.
        active: Whether the connection still reads.
        replicas: The windows, by name.
        expected: Names without a channel, for which the connection waits.
        late: Whether a channel of such a name came and went without notice.
        since: When the connection stopped reading.
    """

    __slots__ = (
        "active",
        "came",
        "expected",
        "keys",
        "late",
        "local",
        "reader",
        "replicas",
        "session",
        "since",
    )

    def __init__(self, session: str, keys: ProcessKeys, reader: Reader) -> None:
        self.session: str = session
        self.keys: ProcessKeys = keys
        self.reader: Reader = reader
        self.local: int = reader.number
        self.came: tuple[float, float] | None = None
        self.active: bool = True
        self.replicas: dict[str, Replica] = {}
        self.expected: set[str] = set()
        self.late: bool = False
        self.since: float = 0.0

    def keep(self, name: str, replica: Replica | None) -> None:
        """Record the window on a channel; `None` for none."""
        if replica is None or replica.stopped:
            self.replicas.pop(name, None)
        else:
            self.replicas[name] = replica


class Readings:
    """The readings of one worker. Call in the loop's thread.

    Args:
        host: The worker, which is told of client processes that are read elsewhere, or closed.
        windows: The windows on own channels.
        clock: The clock.
    """

    def __init__(self, host: Host, windows: OwnWindows, clock: Clock) -> None:
        self._host = host
        self._windows = windows
        self._clock = clock
        self._by_process: dict[str, Reading] = {}
        self._idle: dict[str, Reading] = {}  # without a connection, the longest first
        self._processes: dict[int, str] = {}  # by the number of the reader

    def __len__(self) -> int:
        return len(self._by_process)

    @property
    def idle(self) -> int:
        """How many of them are without a connection."""
        return len(self._idle)

    def all(self) -> list[tuple[str, Reading]]:
        """Return all of them, by client process."""
        return list(self._by_process.items())

    def find(self, process: str) -> Reading | None:
        """Return the reading of a client process."""
        return self._by_process.get(process)

    def find_active(self, process: str, reader: int) -> Reading | None:
        """Return what a connection reads, if it reads."""
        reading = self._by_process.get(process)
        reads = reading is not None and reading.active and reading.local == reader
        return reading if reads else None

    def find_by_number(self, number: int) -> tuple[str, Reading] | None:
        """Return what a connection reads, by the number that Redis knows."""
        process = self._processes.get(number)
        return None if process is None else (process, self._by_process[process])

    def begin(self, process: str, reading: Reading) -> None:
        """Record that a connection reads from now on, as Redis knows."""
        self._by_process[process] = reading
        self._idle.pop(process, None)
        reading.active = True
        self._processes[reading.reader.number] = process

    def go_on(
        self,
        session: str,
        process: str,
        reader: int,
        came: tuple[float, float],
        starts: Mapping[str, Start],
    ) -> dict[str, Found] | None:
        """Let a connection read after one of this worker that has left, if the windows suffice.

        Redis is not told.
        """
        reading = self._by_process.get(process)
        if reading is None or reading.active or reading.session != session or reading.expected:
            return None
        if not starts or starts.keys() != reading.replicas.keys():
            return None
        found: dict[str, Found] = {}
        for name, start in starts.items():
            log = reading.replicas[name].log
            if not isinstance(start, Position) or not reading.replicas[name].proves(start):
                return None
            found[name] = Found(log, Placed(start.offset, start.epoch))
        for name, start in starts.items():
            assert isinstance(start, Position)  # noqa: S101 - for the type checker
            self._windows.acknowledge(reading.replicas[name].log, start.offset)
        self._idle.pop(process, None)
        reading.active, reading.local, reading.came = True, reader, came
        return found

    def rename(self, process: str, reading: Reading, reader: Reader) -> None:
        """Record another connection for the one that Redis knows."""
        self._processes.pop(reading.reader.number)
        reading.reader = reader
        self._processes[reader.number] = process

    def retire(self, process: str, reading: Reading) -> None:
        """Record that the connection has left; the windows go on for a while."""
        reading.active, reading.since = False, self._clock.now()
        self._idle[process] = reading

    def replace(self, process: str, before: Reading, reading: Reading) -> None:
        """Forget a connection of this worker in whose place another one reads."""
        self._processes.pop(before.reader.number, None)
        for name, replica in list(before.replicas.items()):
            if reading.replicas.get(name) is not replica:
                self._windows.drop(replica)
        if before.active:
            self._host.people.replaced(process, before.local)

    def lose(self, process: str, reading: Reading) -> None:
        """Tell a connection that another one reads, which came later."""
        if self._by_process.get(process) is reading:
            self.drop(process, reading)
        else:
            self._host.people.replaced(process, reading.local)

    def drop(self, process: str, reading: Reading) -> None:
        """Forget a client process that is read elsewhere, or not at all. Idempotent."""
        self._by_process.pop(process, None)
        self._idle.pop(process, None)
        self._processes.pop(reading.reader.number, None)
        for replica in list(reading.replicas.values()):
            self._windows.drop(replica)
        if reading.active:
            reading.active = False
            self._host.people.replaced(process, reading.local)

    def close(self, process: str, reading: Reading) -> None:
        """Forget a client process that has closed, and tell the worker so."""
        self.drop(process, reading)
        self._host.people.closed(process)

    def drop_idle(self) -> None:
        """Forget all that are without a connection."""
        for idle in list(self._idle.items()):
            self.drop(*idle)

    def forget(self, replica: Replica) -> None:
        """Forget a window that is filled no more."""
        keys = replica.keys
        reading = self._by_process.get(keys.owner)
        if reading is not None and reading.replicas.get(keys.shown) is replica:
            del reading.replicas[keys.shown]

    async def run(self, connection: Connection) -> NoReturn:
        """Drop the windows of clients that have not come back, as long as a connection lasts."""
        del connection
        while True:
            await self._clock.sleep_until(self._clock.now() + TICK)
            over = self._clock.now() - KEPT
            for process, reading in list(self._idle.items()):
                if reading.since > over:
                    break
                self.drop(process, reading)
