"""The connection of a worker to the primary, replaced by a new connection after the end.

Owns the order of the steps on a new connection, and the tasks that run as long as a connection.
Each doubt about the data ends the connection, so a new connection is the only way to recover.
Must not know what channels are.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.logs import Unsuitable
from asgi_comet.brokers.redis.address import Address
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.checks import Server, examine
from asgi_comet.brokers.redis.connection import Connection, OnFrame
from asgi_comet.brokers.redis.dialing import dial
from asgi_comet.brokers.redis.reconnecting import Pace
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.errors import BrokerUnavailable

__all__ = ["Beginning", "Primary", "Serving", "Step", "Task"]

T = TypeVar("T")

RECOVERY = 8.0  # seconds; a worker finds its Redis emptied within five, and connects within two
REMEMBERED = 540.0  # seconds that Redis remembers ended channels, less a reserve


@dataclass(frozen=True, slots=True)
class Primary:
    """The primary, and how a worker connects.

    Attributes:
        address: The address.
        scripts: The scripts that run there.
        timeout: How many seconds a request may take.
        warn: Logs a warning about a passing trouble; takes the arguments of a logger's method.
        advise: Logs a warning that calls for an operator; takes the same arguments.
    """

    address: Address
    scripts: Scripts
    timeout: float
    warn: Callable[..., None]
    advise: Callable[..., None]


@dataclass(frozen=True, slots=True)
class Beginning:
    """A new connection.

    Attributes:
        connection: The connection.
        generation: The generation of the server's data.
        renewed: Whether Redis may have lost data since the connection before.
    """

    connection: Connection
    generation: str
    renewed: bool


Step = Callable[[Beginning], Awaitable[None]]
Task = Callable[[Connection], Awaitable[None]]


class Serving:
    """Connects, runs the steps, and serves until the connection ends; then again.

    Args:
        primary: The primary.
        clock: The clock.

    Attributes:
        on_frame: Takes the frames of all topics; set before the first connection.
        connection: The serving connection, if there is one.
        generation: The generation of the data at the last connection; `""` before the first one.
        before: The steps before the queue is sent again: announcing channels.
        tasks: The tasks that then run as long as the connection lasts: the queue first.
        after: The steps before clients are served: subscribing, and reading missed messages.
        reopens: Whether Redis has lost a missing channel, which else may have ended meanwhile.
        renewed: When the time began in which the others may report what Redis has lost.
        served: How many connections have served since the start.
        failures: How often a connection failed, or could not be made.
    """

    def __init__(self, primary: Primary, clock: Clock) -> None:
        self.connection: Connection | None = None
        self.generation: str = ""
        self.before: list[Step] = []
        self.tasks: list[Task] = []
        self.after: list[Step] = []
        self.reopens: bool = True
        self.renewed: float = -math.inf
        self.served: int = 0
        self.failures: int = 0
        self._primary = primary
        self._clock = clock
        self.on_frame: OnFrame
        self._up = asyncio.Event()
        self._tried = asyncio.Event()
        self._unsuitable: Unsuitable | None = None
        self._trouble = ""
        self._former: Server | None = None
        self._left = math.inf  # the end of the last connection

    async def run(self) -> NoReturn:
        """Stay connected until cancelled."""
        pace = Pace(self._clock)
        while True:
            await pace.wait()
            try:
                await self._serve(pace)
            except* BrokerUnavailable as group:
                self._fail(group)

    def prepare(self) -> None:
        """Prepare for this loop, which may differ from the loop before."""
        self._up = asyncio.Event()
        self._tried = asyncio.Event()
        self._unsuitable = None
        self._trouble = ""
        self.served = 0

    @property
    def away(self) -> float | None:
        """For how many seconds there has been no connection; infinite if never since the start."""
        if self.connection is not None:
            return None
        return self._clock.now() - self._left if self.served else math.inf

    @property
    def trouble(self) -> str:
        """The reason of the last failure, until there is a connection."""
        return self._trouble

    async def ready(self) -> None:
        """Return once the first connection serves.

        Raises:
            Unsuitable: The first server cannot serve until an operator changes something.
        """
        await self._tried.wait()
        if self._unsuitable is not None and self.connection is None:
            raise self._unsuitable

    def _fail(self, group: BaseExceptionGroup[BrokerUnavailable]) -> None:
        for error in group.exceptions:
            if isinstance(error, Unsuitable) and not self.generation:
                self._unsuitable = error
                self._tried.set()
        self.failures += 1
        first = group.exceptions[0]
        self._trouble = first.reason if isinstance(first, BrokerUnavailable) else str(first)
        self._primary.warn("%s", first)

    @property
    def recovers(self) -> bool:
        """Whether other workers may yet report client processes that Redis has lost."""
        return self._clock.now() - self.renewed < RECOVERY

    async def up(self) -> None:
        """Return once the connection serves; for the tasks of a connection."""
        await self._up.wait()

    async def connected(self) -> Connection:
        """Return the connection; wait for a connection within the timeout.

        Raises:
            BrokerUnavailable: There is no connection.
        """
        if not self._up.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._primary.timeout):
                    await self._up.wait()
        if self.connection is None:
            raise BrokerUnavailable(f"no connection to {self._primary.address}")
        return self.connection

    async def ask(self, call: Call[T]) -> T:
        """Run a script without a retry.

        Raises:
            BrokerUnavailable: Redis did not answer.
        """
        connection = await self.connected()
        return await connection.send(call)

    async def _serve(self, pace: Pace) -> None:
        primary = self._primary
        line = await dial(primary.address, primary.timeout)
        connection = Connection(line, self.on_frame, primary.timeout)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(connection.run())
                await self._begin(connection, tasks)
                pace.succeeded()
        finally:
            if self.connection is not None:
                self._left = self._clock.now()
            self.connection = None
            self._up.clear()
            connection.close("the connection is not wanted any more")

    async def _begin(self, connection: Connection, tasks: asyncio.TaskGroup) -> None:
        """Run the steps of a new connection, always in this order."""
        await self._replace_former(connection)
        generation = await connection.send(self._primary.scripts.lineage())
        renewed = self.generation not in ("", generation)
        if renewed or self._left - self.renewed < RECOVERY:  # the others were away, too
            self.renewed = self._clock.now()
        self.reopens = renewed or self._clock.now() - self._left < REMEMBERED
        beginning = Beginning(connection, generation, renewed)
        for step in self.before:
            await step(beginning)
        self.generation = generation  # set last: the steps above are repeated if one fails
        for task in self.tasks:
            tasks.create_task(_run(task, connection))
        for step in self.after:
            await step(beginning)
        self.connection = connection
        self.served += 1
        self._trouble = ""
        self.reopens = True  # a channel missing from now on was there until now
        self._up.set()
        self._tried.set()

    async def _replace_former(self, connection: Connection) -> None:
        """End the former connection at the server, so that its requests are never run."""
        primary = self._primary
        server = await examine(connection, primary.address, primary.scripts, primary.advise)
        former, self._former = self._former, server
        if former is not None and former.run == server.run:
            await connection.send(Call(("CLIENT", "KILL", "ID", former.client), int))


async def _run(task: Task, connection: Connection) -> None:
    await task(connection)
