"""References to members of families, which another worker may have."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from asgi_comet import Comet, CometMiddleware, MustAwait, Settings
from asgi_comet.brokers import Broker
from asgi_comet.testing import run
from tests.kit.stage import KEY

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def make_app(broker: Broker | None = None, *, strict: bool = False) -> FastAPI:
    comet = Comet(KEY, broker=broker, settings=Settings(jitter=0, strict_shared=strict))
    app = FastAPI()
    app.add_middleware(CometMiddleware, comet=comet)
    rooms = comet.family("room:{name}", type=str)

    @app.get("/at-once/{name}")
    async def at_once(name: str) -> Any:
        return rooms.channel(name=name).reference()

    @app.get("/awaited/{name}")
    async def awaited(name: str) -> Any:
        channel = rooms.channel(name=name)
        await channel.ready()
        return channel.reference()

    @app.get("/thread/{name}")
    def thread(name: str) -> Any:
        return rooms.channel(name=name).reference()

    @app.post("/say/{name}")
    async def say(name: str, text: str) -> None:
        rooms.publish(text, name=name)

    return app


@pytest.mark.parametrize("path", ["awaited", "thread"])
async def test_every_worker_gives_the_same_reference(path: str) -> None:
    async with run(make_app=make_app, workers=2) as comet_app:
        tab = comet_app.browser().tab()
        await tab.post("/say/kitchen?text=before")
        first, second = [(await tab.get(f"/{path}/kitchen")).json() for _ in range(2)]
        assert first == second
        await tab.post("/say/kitchen?text=after")
        for reference in (first, second):
            assert await tab.channel(reference).next() == "after"
        await comet_app.check()


async def test_in_the_event_loop_it_says_what_to_write() -> None:
    async with run(make_app=make_app, workers=2) as comet_app:
        tab = comet_app.browser().tab()
        with pytest.raises(MustAwait, match=r"write: await channel\.ready\(\) before it"):
            await tab.get("/at-once/kitchen")
        known = [(await tab.get(f"/{path}/kitchen")).json() for path in ("awaited",) * 2]
        assert (await tab.get("/at-once/kitchen")).json() in known


async def test_a_worker_alone_gives_it_at_once() -> None:
    async with run(make_app()) as comet_app:
        assert (await comet_app.browser().tab().get("/at-once/kitchen")).is_success


async def test_a_strict_worker_says_so_alone() -> None:
    async with run(make_app(strict=True)) as comet_app:
        tab = comet_app.browser().tab()
        with pytest.raises(MustAwait):
            await tab.get("/at-once/kitchen")
        assert (await tab.get("/thread/hall")).is_success
        assert (await tab.get("/awaited/kitchen")).is_success
        assert (await tab.get("/at-once/kitchen")).is_success
