"""Whoever comes goes, and leaves nothing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from asgi_comet import SITE, ClientProcess, Comet, Settings
from asgi_comet.channels.feed import Feed
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import belongs_to, feed_of, inside, left
from tests.kit.stage import KEY, application
from tests.kit.workers import own_workers

pytestmark = [
    pytest.mark.anyio,
    own_workers("a lifespan without a server, to look at its memory"),
]

PROCESSES = 200

How = Callable[[httpx.AsyncClient, str], Any]


async def say_goodbye(client: httpx.AsyncClient, url: str) -> None:
    assert (await client.post(f"{url}/close")).status_code == 204


async def just_leave(client: httpx.AsyncClient, url: str) -> None:
    pass


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("leave", [say_goodbye, just_leave])
async def test_after_many_processes_came_and_went_all_tables_are_empty(leave: How) -> None:
    clock, started, closed = ManualClock(), list[int](), list[int]()
    comet = Comet(KEY, clock=clock, settings=Settings(jitter=0))
    site = comet.create(scope=SITE, name="site")

    async def source(number: int) -> AsyncIterator[int]:
        started.append(number)
        try:
            yield number
            await anyio.sleep_forever()
        finally:
            closed.append(number)

    async def visit(number: int) -> None:
        transport = httpx.ASGITransport(application(comet))
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            url = (await client.post("/comet/open")).json()["url"]
            process = comet.processes()[-1]
            own = comet.create(source(number), scope=process, name="own")
            while feed_of(own).history.top == 0:
                await checkpoint()
            comet.create_unlimited(source(-1), scope=process, name="asked")
            process.on_close(lambda process: gone.append(process.id))
            start = {"channels": {"~own": "last:1", "site": "now", "~later": "now"}}
            answer = await client.post(f"{url}/poll", json=start)
            positions = {e["channel"]: e["position"] for e in answer.json()["events"]}
            await client.post(f"{url}/poll", json={"channels": positions, "idle": True})
            await leave(client, url)

    gone: list[str] = []
    async with comet.lifespan():
        tasks = len(asyncio.all_tasks())
        for number in range(PROCESSES):
            await visit(number)
        for _ in range(4):
            clock.advance(601)
            await anyio.wait_all_tasks_blocked()
        site.publish("x")
        await anyio.wait_all_tasks_blocked()
        assert sorted(started) == sorted(closed) == list(range(PROCESSES))
        assert len(gone) == PROCESSES
        assert site.listeners == 0
        assert len(asyncio.all_tasks()) == tasks
        check_tables(comet)


def check_tables(comet: Comet) -> None:
    gc.collect()
    assert left(comet) == {"channels": 1}
    mine = [
        f for f in gc.get_referrers(inside(comet).channels.site.directory) if isinstance(f, Feed)
    ]
    assert len(mine) == 1
    processes = [o for o in gc.get_objects() if isinstance(o, ClientProcess)]
    assert [p for p in processes if belongs_to(p, comet)] == []
