"""Applications under test: lifespans, time, workers, restarts, and what is left."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from asgi_comet import SITE, ChannelFull, Comet, CometMiddleware, ProcessClosed
from asgi_comet.testing import CometApp, run, running, traffic
from asgi_comet.testing.hiring import Hiring
from tests.kit.newsroom import application, make_app
from tests.kit.stage import KEY

pytestmark = pytest.mark.anyio


# Start and stop


async def test_an_application_runs_with_its_lifespan() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        seen.append("start")
        yield
        seen.append("stop")

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(CometMiddleware, comet=Comet(KEY))
    async with run(app):
        assert seen == ["start"]
    assert seen == ["start", "stop"]


async def test_a_test_that_fails_stops_the_application_and_raises_its_own_error() -> None:
    with pytest.raises(LookupError, match="of the test"):  # noqa: PT012 - the whole test
        async with run(make_app()) as comet_app:
            tab = await comet_app.browser().open("/")
            tab.channel("news")
            raise LookupError("of the test")


@pytest.mark.parametrize("when", ["start", "stop"])
async def test_a_lifespan_that_fails_fails_the_test(when: str) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if when == "start":
            raise LookupError("no database")
        yield
        raise LookupError("no database")

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(CometMiddleware, comet=Comet(KEY))
    with pytest.raises((LookupError, RuntimeError), match="no database"):
        async with run(app):
            assert when == "stop"


async def test_an_application_without_a_lifespan_of_its_own_fails_plainly() -> None:
    comet = Comet(KEY)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    expected = "expected lifespan.startup.complete, got lifespan.startup.failed: no database"
    with pytest.raises(RuntimeError, match=expected):
        async with run(app, comet=comet):
            pytest.fail("it runs")


async def test_an_application_that_raises_in_its_lifespan_fails_the_test() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no lifespan")

    with pytest.raises(LookupError, match="no lifespan"):
        async with run(app, comet=Comet(KEY)):
            pytest.fail("it runs")


async def test_an_application_can_run_in_one_test_after_the_other() -> None:
    app = make_app()
    for _ in range(2):
        async with run(app) as comet_app:
            tab = await comet_app.browser().open("/")
            assert await tab.channel("inbox").next() == "Welcome"
            await comet_app.check()


async def test_a_test_leaves_nothing_at_an_application_of_many_tests() -> None:
    comet = Comet(KEY)
    app = FastAPI()
    app.add_middleware(CometMiddleware, comet=comet)
    news = comet.create(scope=SITE, name="news", type=str)
    depths: list[int] = []

    @comet.identify
    def find_user(connection: HTTPConnection) -> None:
        depths.append(len(inspect.stack(0)))

    records = []
    for _ in range(2):
        async with run(app) as comet_app:
            comet_app.browser(user="ada")
            await comet_app.browser().tab().open_process()
            records.append(comet_app.record("news"))
            news.publish("Hello")
    assert [record.messages for record in records] == [["Hello"], ["Hello"]]
    assert depths
    assert depths[: len(depths) // 2] * 2 == depths


async def test_an_application_that_does_not_run_says_how_it_would() -> None:
    made = CometApp(Hiring(make_app(), make_app=None, comet=None, workers=1))
    with pytest.raises(RuntimeError, match="it runs inside the test function, which must be async"):
        made.browser()


# The Comet


def mounted(comet: Comet) -> FastAPI:
    app = FastAPI()
    app.mount("/inner", application(comet))
    return app


def served(comet: Comet) -> Any:
    return Starlette(routes=[Mount("/comet", comet.app)])


def wrapped(comet: Comet) -> Any:
    return CometMiddleware(Starlette(), comet=comet)


def in_a_list(comet: Comet) -> Any:
    return Starlette(
        middleware=[Middleware(GZipMiddleware), Middleware(CometMiddleware, comet=comet)]
    )


@pytest.mark.parametrize("make", [application, mounted, served, wrapped, in_a_list])
async def test_the_comet_is_found(make: Any) -> None:
    comet = Comet(KEY)
    async with run(make(comet)) as comet_app:
        assert comet_app.comet is comet


async def test_an_application_without_comet_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one Comet in the application, found 0"):
        async with run(FastAPI()):
            pytest.fail("it runs")


async def test_of_two_comets_the_test_names_one() -> None:
    first, second = Comet(KEY), Comet(KEY, prefix="/second")
    app = application(first)
    app.add_middleware(CometMiddleware, comet=second)
    with pytest.raises(ValueError, match="expected one Comet in the application, found 2"):
        async with run(app):
            pytest.fail("it runs")
    async with run(app, comet=second) as comet_app:
        assert comet_app.comet is second


async def test_a_comet_with_redis_is_refused() -> None:
    app = application(Comet(KEY, broker="redis://127.0.0.1:1/0"))
    with pytest.raises(TypeError, match=r"got one with RedisBroker: make the .* broker=None"):
        async with run(app):
            pytest.fail("it runs")


async def test_an_application_or_what_makes_it_is_expected() -> None:
    for options in ({}, {"app": make_app(), "make_app": make_app}):
        with pytest.raises(ValueError, match="expected either an application or make_app="):
            async with run(**options):  # type: ignore[arg-type]
                pytest.fail("it runs")


# Users


async def test_a_user_needs_an_application_that_asks() -> None:
    app = FastAPI()
    app.add_middleware(CometMiddleware, comet=Comet(KEY))
    async with run(app) as comet_app:
        with pytest.raises(ValueError, match=r"expected an application with @comet.identify"):
            comet_app.browser(user="ada")


# Time


async def test_time_stands_still_until_it_is_advanced(comet_app: CometApp) -> None:
    assert comet_app.clock.now() == 0.0
    comet_app.clock.advance(1.5)
    assert comet_app.clock.now() == 1.5


async def test_what_is_due_is_done_when_time_has_passed_and_not_before(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    await tab.channel("inbox").next()
    tab.leave()
    await comet_app.settle()
    comet_app.clock.advance(599.7)
    assert not tab.closed
    comet_app.clock.advance(0.3)
    assert tab.closed
    await comet_app.check()


async def test_an_endpoint_that_waits_for_time_is_answered_when_time_passes(
    comet_app: CometApp,
) -> None:
    tab = await comet_app.browser().open("/")
    async with anyio.create_task_group() as tasks:
        answers: list[str] = []

        async def wave() -> None:
            answers.append((await tab.post("/wave")).json())

        tasks.start_soon(wave)
        await comet_app.settle()
        assert answers == []
        comet_app.clock.advance(20)
    assert answers == ["FAILURE"]


async def test_an_endpoint_that_waits_for_time_that_does_not_pass_is_named(
    comet_app: CometApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "PATIENCE", 0.01)
    expected = r"expected an answer to POST /wave within 0.01 s: the application waits, maybe for"
    with pytest.raises(AssertionError, match=expected):
        await comet_app.browser().tab().post("/wave")


async def test_an_answer_without_an_end_is_named(
    comet_app: CometApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "PATIENCE", 0.01)
    with pytest.raises(AssertionError, match="a stream without an end"):
        await comet_app.browser().tab().get("/comet/events?channel=news")


async def test_a_client_process_that_cannot_be_opened_during_a_cut_is_named(
    comet_app: CometApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "PATIENCE", 0.01)
    tab = comet_app.browser().tab()
    async with tab.cut("before answer"):
        with pytest.raises(AssertionError, match="the connections of the tab are cut"):
            await tab.open_process()


# Records


async def test_a_record_has_what_is_published_with_or_without_readers(
    comet_app: CometApp,
) -> None:
    tab = await comet_app.browser().open("/")
    await tab.post("/news", json="before")
    record = comet_app.record("news")
    await tab.post("/news", json="Hello")
    await tab.post("/news", json="other", params={"topic": "other"})
    assert record.messages == ["Hello"]


async def test_a_record_takes_a_channel_for_its_name(comet_app: CometApp) -> None:
    comet = comet_app.comet
    made = comet.create(scope=SITE, name="made", type=int)

    @comet.channel("declared")
    async def declared() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    records = [comet_app.record(channel) for channel in (made, declared, declared.channel())]
    made.publish(7)
    await comet_app.settle()
    assert [record.messages for record in records] == [[7], [1], [1]]


async def test_a_record_has_own_channels_of_all_tabs(comet_app: CometApp) -> None:
    record = comet_app.record("~inbox")
    for _ in range(2):
        await comet_app.browser().open("/")
    assert record.messages == ["Welcome", "Welcome"]


# Restart


async def test_a_restart_without_redis_loses_what_was_in_memory_and_says_so() -> None:
    async with run(make_app=make_app) as comet_app:
        before = comet_app.comet
        tab = await comet_app.browser(user="ada").open("/")
        inbox, news = tab.channel("inbox"), tab.channel("news")
        assert await inbox.next() == "Welcome"
        await tab.post("/news", json="Hello")
        assert await news.next() == "Hello"
        await comet_app.restart()
        assert comet_app.comet is not before
        with pytest.raises(ChannelFull):
            await news.next()
        with pytest.raises(ProcessClosed):
            await inbox.next()
        again = await comet_app.browser(user="ada").open("/")
        assert (await again.get("/me")).json()["user"] == "ada"
        await comet_app.check()


async def test_a_server_that_restarts_takes_no_requests_and_tabs_come_back() -> None:
    may_stop = anyio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await may_stop.wait()

    def make() -> FastAPI:
        app = FastAPI(lifespan=lifespan)
        app.add_middleware(CometMiddleware, comet=Comet(KEY))
        return app

    async with run(make_app=make) as comet_app:
        tab = comet_app.browser().tab()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(comet_app.restart)
            await comet_app.settle()
            with pytest.raises(ConnectionError, match="no worker runs"):
                await tab.get("/")
            tab.channel("~comet")
            await comet_app.settle()
            assert not tab.process
            may_stop.set()
        await comet_app.settle()
        assert tab.process


async def test_a_restart_needs_what_makes_the_application(comet_app: CometApp) -> None:
    with pytest.raises(RuntimeError, match=r"expected run\(make_app=make_app\), or a fixture"):
        await comet_app.restart()


# Workers


async def test_two_workers_share_everything() -> None:
    async with run(make_app=make_app, workers=2) as comet_app:
        tabs = [await comet_app.browser(user="ada").open("/") for _ in range(4)]
        news = [tab.channel("news") for tab in tabs]
        alerts = [tab.channel("~alerts") for tab in tabs]
        await tabs[0].post("/news", json="Hello")
        await tabs[1].post("/alert", json="fire")
        for reader in news:
            assert await reader.next() == "Hello"
        for reader in alerts:
            assert (await reader.next())["value"] == "fire"
        await tabs[3].close()
        assert [tab.closed for tab in tabs] == [False, False, False, True]
        await comet_app.check()


async def test_two_workers_restart_one_by_one_and_no_tab_notices() -> None:
    async with run(make_app=make_app, workers=2) as comet_app:
        tab = await comet_app.browser(user="ada").open("/")
        inbox, news = tab.channel("inbox"), tab.channel("news")
        record = comet_app.record("news")
        assert await inbox.next() == "Welcome"
        await comet_app.restart()
        await tab.post("/news", json="Hello")
        assert await news.next() == "Hello"
        await tab.post("/inbox", json="again")
        assert await inbox.next() == "again"
        assert record.messages == ["Hello"]
        await comet_app.check()


async def test_what_is_published_while_the_broker_is_away_comes_afterwards() -> None:
    async with run(make_app=make_app, workers=2) as comet_app:
        tab = await comet_app.browser().open("/")
        news = tab.channel("news")
        await news.expect_silence()
        comet_app.broker.down()
        await tab.post("/news", json="meanwhile")
        await news.expect_silence()
        comet_app.broker.up()
        assert await news.next() == "meanwhile"
        await comet_app.check()


async def test_one_worker_has_no_broker(comet_app: CometApp) -> None:
    with pytest.raises(RuntimeError, match=r"expected several workers, run\(make_app=make_app"):
        comet_app.broker.down()


async def test_several_workers_need_what_makes_an_application_with_a_broker() -> None:
    def make() -> FastAPI:
        return make_app()

    for options, got in (
        ({"app": make_app()}, "an application"),
        ({"make_app": make}, r"make_app\(\)"),
    ):
        with pytest.raises(ValueError, match=rf"expected make_app\(broker\) .*, got {got}"):
            async with run(workers=2, **options):
                pytest.fail("it runs")


async def test_a_broker_that_no_comet_has_is_noticed() -> None:
    def make(broker: Any) -> FastAPI:
        return make_app()

    with pytest.raises(ValueError, match=r"expected make_app to give its broker to Comet"):
        async with run(make_app=make, workers=2):
            pytest.fail("it runs")


# What is left


async def test_check_finds_a_task_that_is_left(comet_app: CometApp) -> None:
    async def linger() -> None:
        await anyio.sleep_forever()

    tab = await comet_app.browser().open("/")
    news = tab.channel("news")
    await news.expect_silence()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(linger)
        await comet_app.settle()
        with pytest.raises(AssertionError, match=r"a task is left: '.*linger'"):
            await comet_app.check()
        tasks.cancel_scope.cancel()
    await comet_app.check()


async def test_check_finds_what_is_left_in_a_table(
    comet_app: CometApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "left", lambda comet: {"listeners": 2, "channels": 7})
    with pytest.raises(AssertionError, match=r"2 left in the table `listeners`$"):
        await comet_app.check()


async def test_client_processes_without_a_tab_are_closed_by_time(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    await tab.get("/")  # opens a client process that no tab has
    await comet_app.check()
