"""Random runs of an application with channels of all kinds; the promise is checked in the end.

They show that the library keeps its promise, and that `check()` raises no false alarm.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from fastapi import Body, FastAPI
from fastapi.responses import HTMLResponse

from asgi_comet import ClientProcess, Comet, CometMiddleware, Settings
from asgi_comet.brokers import Broker
from asgi_comet.testing import CometApp, Tab, run

TRANSPORTS = ("websocket", "sse", "poll")
CUTS = ("before answer", "after answer", "inside a frame")
PATHS = ("/alert", "/price", "/news", "/room/a", "/room/b")
NAMES = ("news", "price", "room:a", "room:b", "~alerts", "~steps")
STEPS = 40  # values of the source on demand


def make_app(broker: Broker | None = None) -> FastAPI:  # noqa: C901 - many small endpoints
    comet = Comet("k" * 32, broker=broker, settings=Settings(history_size=5, jitter=0))
    app = FastAPI()
    app.add_middleware(CometMiddleware, comet=comet)
    rooms = comet.family("room:{name}", size=4, type=int)
    alerts = comet.notifier("alerts", key=str)

    @comet.channel("news", size=4)
    async def news() -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 0

    @comet.newest("price")
    async def price() -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 0

    @comet.unlimited("steps")
    async def steps(process: ClientProcess) -> AsyncIterator[int]:
        for value in range(STEPS):
            yield value

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        process = comet.open_process()
        alerts.listen("all", process)
        return comet.script(process)

    @app.post("/alert")
    async def alert(value: int = Body()) -> None:
        alerts.notify("all", value)

    @app.post("/price")
    async def set_price(value: int = Body()) -> None:
        price.publish(value)

    @app.post("/news")
    async def tell(value: int = Body()) -> None:
        news.publish(value)

    @app.post("/room/{name}")
    def say(name: str, value: int = Body()) -> None:
        rooms.publish(value, name=name)

    @app.post("/login")
    async def login(user: str = Body()) -> None:
        comet.login(user)

    @app.post("/logout")
    async def logout() -> None:
        comet.logout()

    return app


class Run:
    """One random run."""

    def __init__(self, comet_app: CometApp, seed: int) -> None:
        self.comet_app = comet_app
        self.chance = random.Random(seed)
        self.publisher = comet_app.browser().tab()
        self.tabs: list[Tab] = []
        self.published = 0

    async def go(self) -> None:
        acts = [self.open, self.cut, self.stall, self.pass_time, self.close, self.restart]
        acts += [self.log_in, self.log_out, *[self.read] * 3, *[self.publish] * 3]
        await self.open(None)
        for _ in range(self.chance.randint(5, 25)):
            if not self.tabs:
                await self.open(None)
            await self.chance.choice(acts)(self.chance.choice(self.tabs))
        await self.comet_app.check()

    async def open(self, _: Tab | None) -> None:
        self.tabs.append(await self.comet_app.browser().open("/"))

    async def read(self, tab: Tab) -> None:
        name = self.chance.choice(NAMES)
        if any(channel.name == name for channel in tab.channels):
            return
        by_number = self.tabs.index(tab) % 2 == 1 and name[0] == "~"
        transport: Any = "registration" if by_number else self.chance.choice(TRANSPORTS)
        start = "now" if by_number or name == "~steps" else self.chance.choice(["now", "last:2"])
        tab.channel(name, transport=transport, start=start)

    async def publish(self, tab: Tab) -> None:
        del tab
        for _ in range(self.chance.choice([1, 1, 2, 6])):
            self.published += 1
            answer = await self.publisher.post(self.chance.choice(PATHS), json=self.published)
            assert answer.status_code in {200, 503}, answer.text

    async def cut(self, tab: Tab) -> None:
        where: Any = self.chance.choice(CUTS)
        async with tab.cut(where):
            await self.publish(tab)

    async def stall(self, tab: Tab) -> None:
        async with tab.stall():
            await self.publish(tab)

    async def pass_time(self, _: Tab) -> None:
        self.comet_app.clock.advance(self.chance.choice([0.5, 5, 15, 25, 40]))
        await self.comet_app.settle()

    async def close(self, tab: Tab) -> None:
        await tab.close()
        self.tabs.remove(tab)

    async def restart(self, _: Tab) -> None:
        if self.chance.random() < 0.4:
            await self.comet_app.restart()

    async def log_in(self, tab: Tab) -> None:
        await tab.post("/login", json=self.chance.choice("ab"))

    async def log_out(self, tab: Tab) -> None:
        await tab.post("/logout")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_promise_is_kept(backend: str, workers: int) -> None:
    async def play(seed: int) -> None:
        async with run(make_app=make_app, workers=workers) as comet_app:
            await Run(comet_app, seed).go()

    for seed in range(12 if workers == 1 else 4):
        try:
            anyio.run(play, seed, backend=backend)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
