"""The kit knows when nothing can happen any more, and says what it cannot see."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import FastAPI

from asgi_comet.testing import ChannelReader, CometApp, NotQuiet, quiet, run
from tests.kit.newsroom import make_app

pytestmark = pytest.mark.anyio

Job = Callable[[], Coroutine[Any, Any, object]]


only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
only_trio = pytest.mark.parametrize("anyio_backend", ["trio"])


@asynccontextmanager
async def beside(job: Job) -> AsyncIterator[None]:
    """Run something while the context lasts."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(job)
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def setting(event: threading.Event) -> AsyncIterator[None]:
    """Set an event at the end, so that its thread ends."""
    try:
        yield
    finally:
        event.set()


async def open_news(comet_app: CometApp) -> ChannelReader:
    return (await comet_app.browser().open("/")).channel("news")


# What waits for time


async def sleep_by_anyio() -> None:
    await anyio.sleep(3600)


async def sleep_by_asyncio() -> None:
    await asyncio.sleep(3600)


async def limit_by_anyio() -> None:
    with anyio.move_on_after(3600):
        await anyio.Event().wait()


async def limit_by_asyncio() -> None:
    async with asyncio.timeout(3600):
        await asyncio.Event().wait()


async def wait_by_asyncio() -> None:
    await asyncio.wait_for(asyncio.Event().wait(), 3600)


async def sleep_by_trio() -> None:
    import trio

    await trio.sleep(3600)


async def limit_by_trio() -> None:
    import trio

    with trio.move_on_after(3600):
        await trio.Event().wait()


async def expect_not_quiet(comet_app: CometApp, job: Job) -> None:
    news = await open_news(comet_app)
    await news.expect_silence()
    async with beside(job):
        with pytest.raises(NotQuiet, match=rf"the timer of '.*{job.__name__}' in {job.__name__} "):
            await news.expect_silence()
    await news.expect_silence()


@pytest.mark.parametrize("job", [sleep_by_anyio, limit_by_anyio])
async def test_a_task_that_waits_for_time_is_named(comet_app: CometApp, job: Job) -> None:
    await expect_not_quiet(comet_app, job)


@only_asyncio
@pytest.mark.parametrize("job", [sleep_by_asyncio, limit_by_asyncio, wait_by_asyncio])
async def test_a_task_that_waits_for_time_in_asyncio(comet_app: CometApp, job: Job) -> None:
    await expect_not_quiet(comet_app, job)


@only_trio
@pytest.mark.parametrize("job", [sleep_by_trio, limit_by_trio])
async def test_a_task_that_waits_for_time_in_trio(comet_app: CometApp, job: Job) -> None:
    await expect_not_quiet(comet_app, job)


@only_asyncio
async def test_a_timer_of_no_task_is_named_by_its_function(comet_app: CometApp) -> None:
    news = await open_news(comet_app)

    def ring() -> None:
        raise AssertionError

    timer = asyncio.get_running_loop().call_later(3600, ring)
    with pytest.raises(NotQuiet, match=r"the timer of .*ring"):
        await news.expect_silence()
    timer.cancel()
    await news.expect_silence()


async def test_a_source_of_the_application_is_named(comet_app: CometApp) -> None:
    comet = comet_app.comet

    @comet.channel("slow:{number}")
    async def slow(number: int) -> AsyncIterator[int]:
        await anyio.sleep(3600)
        yield number

    reader = (await comet_app.browser().open("/")).channel("slow:1")
    with pytest.raises(NotQuiet, match=r"slow \(test_silence.py:\d+\)"):
        await reader.expect_silence()
    with pytest.raises(NotQuiet):
        await comet_app.check()


async def test_a_time_limit_of_the_test_itself_is_none_of_the_application(
    comet_app: CometApp,
) -> None:
    news = await open_news(comet_app)
    with anyio.fail_after(3600):
        await news.expect_silence()


@only_asyncio
async def test_a_time_limit_of_asyncio_is_none_of_the_application_either(
    comet_app: CometApp,
) -> None:
    news = await open_news(comet_app)
    async with asyncio.timeout(3600):
        await news.expect_silence()
    await asyncio.wait_for(news.expect_silence(), 3600)
    async with beside(sleep_by_asyncio):
        with pytest.raises(NotQuiet, match="sleep_by_asyncio"):
            await asyncio.wait_for(news.expect_silence(), 3600)


async def test_a_time_limit_around_the_whole_test_is_none_of_the_application() -> None:
    with anyio.fail_after(3600):
        async with run(make_app()) as comet_app:
            await (await open_news(comet_app)).expect_silence()
            await comet_app.check()


async def test_a_message_that_another_task_posts_is_awaited(comet_app: CometApp) -> None:
    tab = await comet_app.browser().open("/")
    news = tab.channel("news")
    may_go = anyio.Event()

    async def post() -> None:
        with anyio.move_on_after(3600):  # a timer, so the kit does not know how this ends
            await may_go.wait()
        await tab.post("/news", json="Hello")

    async def release() -> None:
        await comet_app.settle()
        may_go.set()

    async with beside(post), beside(release):
        assert await news.next() == "Hello"


async def test_a_message_of_a_request_under_way_is_awaited(
    app: FastAPI, comet_app: CometApp
) -> None:
    tab = await comet_app.browser().open("/")
    news = tab.channel("news")
    may_go = anyio.Event()

    @app.post("/later")
    async def later() -> None:
        await may_go.wait()
        await tab.post("/news", json="Hello")

    async with beside(partial(tab.post, "/later")):
        with pytest.raises(NotQuiet, match="another task of the test sends a request"):
            await news.expect_silence()
        may_go.set()
        assert await news.next() == "Hello"


async def test_a_message_that_does_not_come_in_real_time_either(comet_app: CometApp) -> None:
    news = await open_news(comet_app)
    async with beside(sleep_by_anyio):
        with pytest.raises(AssertionError, match="nothing comes"):
            await news.next(timeout=0.01)


# Sockets


async def test_a_socket_that_a_task_waits_for(comet_app: CometApp) -> None:
    news = await open_news(comet_app)
    ours, other = socket.socketpair()
    ours.setblocking(False)

    async def read() -> None:
        await anyio.wait_readable(ours)

    with ours, other:
        async with beside(read):
            with pytest.raises(NotQuiet, match=r"socket that .* waits for"):
                await news.expect_silence()
        await news.expect_silence()


@only_asyncio
async def test_a_socket_that_is_written_to(comet_app: CometApp) -> None:
    news = await open_news(comet_app)
    ours, other = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()

    def write() -> None:
        """Never: the buffer is full."""

    with ours, other:
        while True:
            try:
                ours.send(b"0" * 4096)
            except BlockingIOError:
                break
        loop.add_writer(ours, write)
        with pytest.raises(NotQuiet, match=r"the socket that .*write waits for"):
            await news.expect_silence()
        loop.remove_writer(ours)
    await news.expect_silence()


# Threads and tasks that do not wait


@pytest.mark.parametrize("limiter", [False, True])
async def test_a_thread_that_ends_is_awaited(comet_app: CometApp, limiter: bool) -> None:
    tab = await comet_app.browser().open("/")
    news = tab.channel("news")
    begun, may_end = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        begun.set()
        may_end.wait()
        done.append("work")

    async def job() -> None:
        own = anyio.CapacityLimiter(1) if limiter else None
        await anyio.to_thread.run_sync(work, limiter=own)

    async def release() -> None:
        await anyio.to_thread.run_sync(begun.wait, limiter=anyio.CapacityLimiter(1))
        may_end.set()

    async with beside(job), beside(release), setting(may_end):
        await news.expect_silence()
        assert done == ["work"]


@only_asyncio
async def test_a_thread_of_asyncio_is_awaited(comet_app: CometApp) -> None:
    news = await open_news(comet_app)
    may_end = threading.Event()

    async def job() -> None:
        await asyncio.to_thread(may_end.wait)

    async with beside(job), setting(may_end):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quiet, "THREADS", 1.0)
            with pytest.raises(NotQuiet, match=r"a worker thread still runs after 1 s: "):
                await news.expect_silence()
        may_end.set()
        await news.expect_silence()


@only_asyncio
async def test_a_function_in_an_executor_is_awaited_though_no_task_waits_for_it(
    comet_app: CometApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    news = await open_news(comet_app)
    may_end = threading.Event()
    async with setting(may_end):
        future = asyncio.get_running_loop().run_in_executor(None, may_end.wait)
        with monkeypatch.context() as patch:
            patch.setattr(quiet, "THREADS", 1.0)
            with pytest.raises(NotQuiet, match="a function that run_in_executor was given"):
                await news.expect_silence()
        may_end.set()
        await news.expect_silence()
        assert future.done()


async def test_a_thread_that_does_not_end_is_named(
    comet_app: CometApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "THREADS", 1.0)
    news = await open_news(comet_app)
    may_end = threading.Event()

    async def job() -> None:
        await anyio.to_thread.run_sync(may_end.wait)

    async with beside(job), setting(may_end):
        with pytest.raises(NotQuiet, match="a worker thread still runs after 1 s"):
            await news.expect_silence()


@only_trio
async def test_a_thread_of_a_cancelled_task_is_awaited(
    comet_app: CometApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    news = await open_news(comet_app)
    begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait()

    async def job() -> None:
        await anyio.to_thread.run_sync(work, abandon_on_cancel=True)

    async with setting(may_end):
        async with beside(job):
            await anyio.to_thread.run_sync(begun.wait)
        monkeypatch.setattr(quiet, "THREADS", 1.0)
        with pytest.raises(NotQuiet, match="a function whose task has been cancelled"):
            await news.expect_silence()


async def test_a_task_that_never_waits_is_named(
    comet_app: CometApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "BUSY", 100)
    news = await open_news(comet_app)

    async def spin() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    async with beside(spin):
        with pytest.raises(NotQuiet, match=r"a task never waits, one of: .*spin"):
            await news.expect_silence()


# Several tasks of a test


async def test_several_tasks_of_a_test_may_wait_for_silence_at_once(comet_app: CometApp) -> None:
    readers = [await open_news(comet_app) for _ in range(5)]
    async with anyio.create_task_group() as tasks:
        for reader in readers:
            tasks.start_soon(reader.expect_silence)


async def test_several_tasks_of_a_test_may_use_tabs_at_once(comet_app: CometApp) -> None:
    tabs = [await comet_app.browser().open("/") for _ in range(5)]
    news = [tab.channel("news") for tab in tabs]
    await comet_app.settle()

    async def post(number: int) -> None:
        await tabs[number].post("/news", json=f"from {number}")

    async with anyio.create_task_group() as tasks:
        for number in range(3):  # as many as the channel holds
            tasks.start_soon(post, number)
    for reader in news:
        assert {await reader.next() for _ in range(3)} == {f"from {n}" for n in range(3)}
    await comet_app.check()


# Loops


@only_asyncio
async def test_uvloop_is_refused() -> None:
    async def main() -> None:
        async with run(make_app()):
            pytest.fail("it runs")

    def start() -> None:
        anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})

    with pytest.raises(TypeError, match=r"expected .*asyncio's own event loop .*, got uvloop"):
        await anyio.to_thread.run_sync(start)
