"""Several `Comet`s in one event loop that share one store, and a worker that only reads."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet import ClientProcess, Comet, Notifier, Settings
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.people import People
from asgi_comet.brokers.redis import RedisBroker
from asgi_comet.core.messages import First
from asgi_comet.testing import JoinedBroker, join
from asgi_comet.testing.party import Party, new_id
from asgi_comet.testing.window import Window
from tests.kit.stage import ASYNC_BACKENDS, KEY, TOKEN

ASYNCIO, UVLOOP, TRIO = (one.values[0] for one in ASYNC_BACKENDS)
PLACES = [
    pytest.param(("joined", ASYNCIO), id="joined"),
    pytest.param(("joined", TRIO), id="joined-trio"),
    pytest.param(("redis", UVLOOP), id="redis"),
]
"""Stores and event loops; Redis is not for trio."""

Make = Callable[[int], list[Broker]]


def make_brokers(request: pytest.FixtureRequest, store: str, **options: Any) -> Make:
    """Return a function that makes brokers on one new store; options are for Redis."""
    if store == "joined":
        return lambda count: [*join(count)]
    url = request.getfixturevalue("redis").url
    return lambda count: [RedisBroker(url, **options) for _ in range(count)]


class Cluster:
    """Three workers, and a fourth one that opens and reads client processes."""

    def __init__(self, make: Make, **settings: Any) -> None:
        *rest, last = make(4)
        self.brokers = rest
        self.comets = [
            Comet(KEY, broker=one, settings=Settings(**settings), admin=TOKEN) for one in rest
        ]
        self.reader = Party(last)
        self.sessions: dict[str, str] = {}

    @property
    def people(self) -> People:
        assert self.reader.broker.people is not None
        return self.reader.broker.people

    def notifiers(self, name: str = "n", **options: Any) -> list[Notifier[Any]]:
        """Make a notifier in each worker."""
        return [comet.notifier(name, **options) for comet in self.comets]

    async def open(self, user: str | None = None) -> str:
        """Open a client process of a user, and return its id."""
        session = new_id()
        process = await self.people.open(session, new_id(session))
        if user is not None:
            new = new_id(session)
            await self.people.move(session, new, user=json.dumps(user), keep=True)
            session = new
        self.sessions[process] = session
        return process

    async def find(self, worker: int, process: str) -> ClientProcess:
        """Return a worker's copy of a client process."""
        every = await self.comets[worker].processes()
        return next(one for one in every if one.id == process)

    async def listen(
        self, notifiers: Sequence[Notifier[Any]], worker: int, key: Any, *processes: str
    ) -> None:
        """Have client processes listen in a worker, and return once all workers know."""
        copies = [await self.find(worker, process) for process in processes]
        for copy in copies:
            notifiers[worker].listen(key, copy)
        other = notifiers[(worker + 1) % len(notifiers)]
        await self.eventually(other, key, lambda ids: ids >= set(processes))

    async def eventually(
        self, notifier: Notifier[Any], key: Any, reached: Callable[[set[str]], bool]
    ) -> None:
        """Return once a condition holds for those that listen."""
        while not reached({one.id for one in await notifier.listeners(key)}):
            await anyio.lowlevel.checkpoint()

    async def read(self, process: str, name: str = "n") -> Window:
        """Read the channel of a notifier from its first message on."""
        start = {f"~{name}": First()}
        while not self.reader.broker.connected:
            await anyio.lowlevel.checkpoint()
        found = await self.people.claim(self.sessions[process], process, 1, start)
        window = found[f"~{name}"].window
        assert isinstance(window, Window), found
        return window

    async def values(self, process: str, count: int, name: str = "n") -> list[Any]:
        """Return the first values that a client process gets."""
        window = await self.read(process, name)
        await self.reader.until(lambda: len(window.seen) >= count)
        return [json.loads(data)["value"] for data in window.seen]

    async def close(self, process: str) -> None:
        """Close a client process, in the worker that is none of the three."""
        await self.people.close(self.sessions[process], process)


@asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[None]:
    """Run all workers while the context lasts."""
    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(60))
        await stack.enter_async_context(cluster.reader.running())
        for comet in cluster.comets:
            await stack.enter_async_context(comet.lifespan())
        await cluster.people.visit([])
        yield


class Store:
    """The store of a cluster, which a test takes away from a worker."""

    def __init__(self, request: pytest.FixtureRequest, brokers: Sequence[Broker]) -> None:
        self.broker = brokers[1]
        self._request = request

    def leave(self) -> None:
        if isinstance(self.broker, JoinedBroker):
            self.broker.disconnect()
        else:
            self._request.getfixturevalue("redis").send(signal.SIGSTOP)

    def come_back(self) -> None:
        if isinstance(self.broker, JoinedBroker):
            self.broker.reconnect()
        else:
            self._request.getfixturevalue("redis").send(signal.SIGCONT)

    async def left(self) -> None:
        """Return once the worker knows."""
        while self.broker.connected:
            await anyio.lowlevel.checkpoint()
