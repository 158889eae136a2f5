"""What a worker has left of channels when it forgets a tab, or the tab closes, at any moment."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asgi_comet import CLIENT_PROCESS, ClientProcess, Comet, CometMiddleware
from asgi_comet.brokers.redis import RedisBroker
from asgi_comet.identity import presence, used
from asgi_comet.testing._inspect import inside
from asgi_comet.testing._inspect_redis import redis_tables
from tests.kit.redis import Client, RedisServer
from tests.kit.stage import KEY
from tests.kit.turns import until

pytestmark = pytest.mark.anyio

WITHIN = 20.0  # seconds
TABLES = ("held", "bids", "followed", "topics", "early")

Act = Callable[[ClientProcess], Awaitable[None]]


async def endless() -> AsyncIterator[int]:
    await anyio.sleep_forever()
    yield 0


async def wait(turns: int) -> None:
    for _ in range(turns):
        await checkpoint()


async def cut_off(ask: Callable[[], Coroutine[Any, Any, object]], turns: int) -> None:
    """Send a request, and cancel it after some turns of the loop."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await wait(turns)
        tasks.cancel_scope.cancel()


class Worker:
    """A `Comet` that runs in the loop of the test.

    Attributes:
        act: Called with the tab of a browser that asks for it.
    """

    def __init__(self, url: str) -> None:
        self.comet = comet = Comet(KEY, broker=RedisBroker(url))
        self.act: Act
        self._declared = comet.channel("declared", scope=CLIENT_PROCESS)(_endless_of)
        routes = [Route(f"/{one.__name__}", one) for one in (self.open, self.login, self.tab)]
        self._app = CometMiddleware(Starlette(routes=routes), comet=comet)

    async def open(self, _: Request) -> Response:
        return Response(self.comet.open_process().url)

    async def login(self, _: Request) -> Response:
        self.comet.login("alice")
        return Response()

    async def tab(self, _: Request) -> Response:
        session = self.comet.session()
        assert session is not None
        await self.act(session.processes[0])
        gc.collect()
        return Response()

    def make(self, kind: str, process: ClientProcess) -> None:
        """Make a channel of a tab."""
        if kind == "declared":
            self._declared.channel(process)
        else:
            source = endless() if kind == "sourced" else None
            self.comet.create(source, scope=process, name="own")

    def browser(self, same: httpx.AsyncClient | None = None) -> httpx.AsyncClient:
        """Return a browser, or another worker's browser that comes to this worker."""
        cookies = None if same is None else dict(same.cookies)
        transport = httpx.ASGITransport(self._app)
        return httpx.AsyncClient(transport=transport, base_url="http://a", cookies=cookies)

    @property
    def tables(self) -> dict[str, int]:
        """How much this worker has of channels."""
        broker = inside(self.comet).broker
        assert isinstance(broker, RedisBroker)
        found = redis_tables(broker)
        return {name: found[name] for name in TABLES}

    async def empty(self) -> None:
        """Return once this worker has nothing of a channel."""
        with anyio.move_on_after(WITHIN):
            while any(self.tables.values()):
                gc.collect()  # channels and tabs refer to themselves
                await checkpoint()
        assert not any(self.tables.values()), self.tables


async def _endless_of(process: ClientProcess) -> AsyncIterator[int]:
    del process
    await anyio.sleep_forever()
    yield 0


@asynccontextmanager
async def running(redis: RedisServer) -> AsyncIterator[tuple[Worker, Worker]]:
    one, two = Worker(redis.url), Worker(redis.url)
    async with one.comet.lifespan(), two.comet.lifespan():
        yield one, two


async def act_on_tab(one: Worker, two: Worker, act: Act) -> None:
    """Open a tab in one worker, and act on it in another one."""
    two.act = act
    async with one.browser() as browser:
        await browser.get("/open")
        async with two.browser(browser) as same:
            await same.get("/tab")


# The worker forgets the tab


@pytest.mark.parametrize("kind", ["written", "sourced"])
async def test_a_tab_that_is_dropped_while_its_channel_is_opened_leaves_nothing(
    redis: RedisServer, client: Client, kind: str
) -> None:
    async with running(redis) as (one, two):
        for turns in range(3):

            async def make(process: ClientProcess, turns: int = turns) -> None:
                two.make(kind, process)
                del process
                await wait(turns)

            await act_on_tab(one, two, make)
        await two.empty()
        assert not client.keys("*own:*")


async def test_tabs_that_are_told_of_a_login_in_another_worker_leave_nothing_there(
    redis: RedisServer,
) -> None:
    async def collect() -> None:
        while True:
            gc.collect(0)
            await checkpoint()

    async with running(redis) as (one, two), anyio.create_task_group() as tasks:
        tasks.start_soon(collect)
        for _ in range(3):
            async with one.browser() as browser:
                await browser.get("/open")
                async with two.browser(browser) as same:
                    await same.get("/login")
        await two.empty()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("reads", ["whole", "cut"])
async def test_a_tab_that_expires_while_its_channels_are_followed_leaves_nothing(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    monkeypatch.setattr(presence, "PAUSE", 0.0)
    monkeypatch.setattr(used, "SWEEP", 0.05)
    monkeypatch.setattr(used, "KEPT", 0.05)
    async with running(redis) as (one, two):

        async def make(process: ClientProcess) -> None:
            channel = one.comet.create(scope=process, name="own")
            await channel.publish(1).stored()

        for turns in range(0, 100, 20):
            one.act = make
            async with one.browser() as browser:
                url = (await browser.get("/open")).text
                await browser.get("/tab")
                async with two.browser(browser) as same:
                    body = {"channels": {"~own": "new.0"}}
                    ask = partial(same.post, f"{url}/poll", json=body)
                    if reads == "whole":
                        assert (await ask()).json()["events"][0]["data"] == 1
                        assert two.tables["held"]
                    else:
                        await cut_off(ask, turns)
        await two.empty()


# The tab closes


@pytest.mark.parametrize("kind", ["written", "sourced", "declared"])
async def test_a_tab_that_closes_while_its_channel_is_opened_leaves_nothing(
    redis: RedisServer, client: Client, kind: str
) -> None:
    async with running(redis) as (one, two):
        for turns in range(0, 60, 6):

            async def make(process: ClientProcess, turns: int = turns) -> None:
                two.make(kind, process)
                await wait(turns)
                process.close()

            await act_on_tab(one, two, make)
        await two.empty()
        assert not client.keys("*own:*")


# The worker stops


async def test_a_worker_that_stops_while_it_opens_a_channel_of_a_tab_keeps_nothing(
    redis: RedisServer,
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)

    async def make(process: ClientProcess) -> None:
        two.make("written", process)

    async with one.comet.lifespan():
        for turns in range(0, 60, 5):
            async with two.comet.lifespan(), one.browser() as browser:
                await browser.get("/open")
                two.act = make
                async with two.browser(browser) as same:
                    await cut_off(partial(same.get, "/tab"), turns)
        await two.empty()


@pytest.mark.parametrize("table", ["held", "followed"])
async def test_a_worker_that_stops_while_it_begins_to_follow_keeps_nothing(
    redis: RedisServer, table: str
) -> None:
    worker = Worker(redis.url)
    worker.comet.family("room:{room}")
    async with anyio.create_task_group() as tasks:
        async with worker.comet.lifespan():
            body = {"channels": {"room:blue": "now"}}
            tasks.start_soon(partial(worker.browser().post, "/comet/poll", json=body))
            await until(lambda: worker.tables[table] > 0)
        await worker.empty()
        tasks.cancel_scope.cancel()
