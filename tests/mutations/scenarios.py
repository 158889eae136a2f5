"""What an application and its clients do where a fault shows.

Owns the scenarios, each a coroutine that ends with `check()`. They pass without a fault.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from asgi_comet import SITE, ClientProcess, Comet, CometMiddleware
from asgi_comet.errors import ChannelFull
from asgi_comet.testing import ChannelReader, CometApp, Tab, run
from asgi_comet.testing._inspect import inside

KEY = "k" * 32
SOON = 15.0  # seconds after which a channel that has ended is forgotten
LATER = 60.0  # seconds after which a poll and every wait for an outcome have ended


def make_app(comet: Comet) -> Starlette:
    """Return an application whose page opens a client process."""

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(comet.script(comet.open_process()))

    return Starlette(
        routes=[Route("/", page)], middleware=[Middleware(CometMiddleware, comet=comet)]
    )


async def count_to_three(process: ClientProcess) -> AsyncIterator[int]:
    for number in (1, 2, 3):
        yield number
    await anyio.sleep_forever()


async def read(reader: ChannelReader, count: int) -> list[Any]:
    return [await reader.next() for _ in range(count)]


def process_of(comet: Comet) -> Any:
    """Return the only client process."""
    (process,) = comet.processes()
    return process


class Halfway:
    """Runs a function in a thread, which stops where it first calls the loop. Make it first."""

    def __init__(self) -> None:
        loop: Any = asyncio.get_running_loop()
        self._call = loop.call_soon_threadsafe
        self._stopped = threading.Event()
        self._may_go_on = threading.Event()
        self._thread = threading.Thread()
        loop.call_soon_threadsafe = self._call_soon

    def begin(self, function: Callable[[], object]) -> None:
        """Call the function; return where it stops."""
        self._thread = threading.Thread(target=function)
        self._thread.start()
        self._stopped.wait()

    def finish(self) -> None:
        """Let the function go on; return when it has returned."""
        self._may_go_on.set()
        self._thread.join()

    def _call_soon(self, *args: Any, **options: Any) -> object:
        if threading.current_thread() is self._thread:
            self._stopped.set()
            self._may_go_on.wait()
        return self._call(*args, **options)


async def read_on_demand() -> None:
    comet = Comet(KEY)
    comet.unlimited("numbers")(count_to_three)
    async with run(make_app(comet)) as comet_app:
        await _read_slowly(comet_app)


async def read_on_demand_at_workers() -> None:
    def make(broker: Any) -> Starlette:
        comet = Comet(KEY, broker=broker)
        comet.unlimited("numbers")(count_to_three)
        return make_app(comet)

    async with run(make_app=make, workers=2) as comet_app:
        await _read_slowly(comet_app)


async def _read_slowly(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    async with tab.stall():
        numbers = tab.channel("~numbers", transport="poll")
    assert await read(numbers, 3) == [1, 2, 3]
    await comet_app.check()


async def come_back_to_a_full_channel() -> None:
    comet = Comet(KEY)
    async with run(make_app(comet)) as comet_app:
        tab = await comet_app.browser().open("/")
        inbox = comet.create(scope=process_of(comet), name="inbox", type=int, size=1)
        inbox.publish(1)
        with suppress(ChannelFull):
            inbox.publish(2)
        await comet_app.settle()
        comet_app.clock.advance(SOON)
        tab.channel("~inbox", transport="poll")
        await comet_app.check()


async def come_back_to_an_ended_channel() -> None:
    comet = Comet(KEY)
    async with run(make_app(comet)) as comet_app:
        tab = await comet_app.browser().open("/")
        process = process_of(comet)
        inbox = comet.create(scope=process, name="inbox", type=int)
        news = comet.create(scope=process, name="news", type=int)
        inbox_reader = tab.channel("~inbox", transport="registration")
        await comet_app.settle()
        inbox.publish(1)
        assert await inbox_reader.next() == 1
        tab.leave()
        later = tab.duplicate()
        news_reader = later.channel("~news", transport="registration")
        await comet_app.settle()
        inbox.close()
        await comet_app.settle()
        comet_app.clock.advance(SOON)
        news.publish(2)
        assert await news_reader.next() == 2
        later.channel("~inbox", transport="registration")
        await comet_app.check()


async def wait_for_an_outcome() -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=str)

    async def wait() -> None:
        await delivery

    async with run(make_app(comet)) as comet_app:
        delivery = news.publish("nobody has this")
        tab = comet_app.browser().tab()
        tab.channel("news", transport="poll")
        await comet_app.settle()
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            async with tab.cut("before answer"):
                pass
            comet_app.clock.advance(LATER)
        await comet_app.check()


async def replace_a_poll_at_its_timeout() -> None:
    comet = Comet(KEY)
    gate = anyio.Event()
    gate.set()

    @comet.identify
    async def identify(connection: Any) -> None:
        await gate.wait()

    async with run(make_app(comet)) as comet_app:
        tab = await comet_app.browser().open("/")
        comet.create(scope=process_of(comet), name="inbox", type=int)
        tab.channel("~inbox", transport="poll")
        await comet_app.settle()
        gate = anyio.Event()
        tab.duplicate().channel("~inbox", transport="poll")
        await comet_app.settle()
        gate.set()
        comet_app.clock.advance(LATER)  # both happen in the next turn of the loop
        await comet_app.check()


async def acknowledge_while_the_process_closes() -> None:
    comet, halfway = Comet(KEY), Halfway()
    async with run(make_app(comet)) as comet_app:
        tab = await comet_app.browser().open("/")
        process = process_of(comet)
        inbox = comet.create(scope=process, name="inbox", type=int)
        tab.channel("~inbox", transport="sse")
        async with tab.stall():
            inbox.publish(1)
            await comet_app.settle()
            halfway.begin(process.close)
        halfway.finish()  # now that the tab has the message, and has acknowledged it
        await comet_app.check()


async def read_own_channel() -> None:
    comet = Comet(KEY)
    async with run(make_app(comet)) as comet_app:
        tab = await comet_app.browser().open("/")
        inbox = comet.create(scope=process_of(comet), name="inbox", type=int)
        reader = tab.channel("~inbox", transport="websocket")
        await comet_app.settle()
        inbox.publish(1)
        assert await reader.next() == 1
        await comet_app.check()


async def publish_from_threads() -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)

    def publish() -> None:
        for number in range(100):
            news.publish(number)

    def let_others_run(frame: Any, event: str, argument: Any) -> Any:
        os.sched_yield()
        return let_others_run if frame.f_code.co_filename.endswith("history.py") else None

    async with run(make_app(comet)) as comet_app:
        threads = [threading.Thread(target=publish) for _ in range(4)]
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        threading.settrace(let_others_run)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        threading.settrace(None)
        sys.setswitchinterval(before)
        await comet_app.check()


async def restart_a_source() -> None:
    comet = Comet(KEY)
    fails = [True]

    @comet.channel("ticks")
    async def ticks() -> AsyncIterator[int]:
        yield 1
        if fails.pop() if fails else False:
            raise RuntimeError("the first time")
        await anyio.sleep_forever()

    async with run(make_app(comet)) as comet_app:
        await comet_app.settle()
        comet_app.clock.advance(1)
        await comet_app.check()


async def leave_a_channel() -> None:
    comet = Comet(KEY)
    comet.create(scope=SITE, name="news", type=str)
    async with run(make_app(comet)) as comet_app:
        tab: Tab = comet_app.browser().tab()
        tab.channel("news", transport="sse")
        await comet_app.settle()
        tab.leave()
        await comet_app.check()


async def lose_a_source() -> None:
    def make(broker: Any) -> Starlette:
        comet = Comet(KEY, broker=broker)

        @comet.channel("ticks")
        async def ticks() -> AsyncIterator[int]:
            nonlocal_events.append(event := anyio.Event())
            await event.wait()
            yield 1
            await anyio.sleep_forever()

        return make_app(comet)

    nonlocal_events: list[anyio.Event] = []
    async with run(make_app=make, workers=2) as comet_app:
        await comet_app.settle()
        store = inside(comet_app.comet).broker.store  # type: ignore[attr-defined] # joined
        store.release("ticks", store.owner("ticks"))  # as if its worker had been away for too long
        nonlocal_events[0].set()
        await comet_app.check()
