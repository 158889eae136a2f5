"""How sources are read and cleaned up: docs/semantics.md#sources."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet import (
    SITE,
    ChannelFull,
    Comet,
    InvalidDeclaration,
    NonUniqueChannelName,
    ProcessClosed,
    Settings,
)
from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.source import Demand
from asgi_comet.core.history import History
from asgi_comet.position import Position
from asgi_comet.testing._inspect import client_of, feed_of, inside, tables
from tests.kit.processes import open_in
from tests.kit.running import advance, running
from tests.kit.stage import KEY
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


class Log:
    """A source that notes what happens to it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def count(self, upto: int) -> AsyncGenerator[int, None]:
        self.said.append("started")
        try:
            for n in range(1, upto + 1):
                yield n
                self.said.append(f"{n} taken")
        finally:
            self.said.append("closed")

    async def hang(self) -> AsyncGenerator[int, None]:
        try:
            await anyio.sleep_forever()
            yield 0
        finally:
            self.said.append("closed")


class Unread:
    """A source that must not be read."""

    def __init__(self) -> None:
        self.closed = 0

    def __aiter__(self) -> Unread:
        return self

    async def __anext__(self) -> int:
        raise AssertionError("read")

    async def aclose(self) -> None:
        self.closed += 1


async def test_site_source_is_read_as_soon_as_values_come() -> None:
    log = Log()
    async with running() as (comet, _):
        channel = comet.create(log.count(3), scope=SITE)
        await wait_all_tasks_blocked()
        assert feed_of(channel).history.top == 3
        assert log.said == ["started", "1 taken", "2 taken", "3 taken", "closed"]


async def test_process_source_is_read_as_soon_as_values_come() -> None:
    log = Log()
    async with running() as (comet, _):
        channel = comet.create(log.count(3), scope=open_in(comet))
        await wait_all_tasks_blocked()
        assert feed_of(channel).history.top == 3


async def test_newest_source_is_read_as_soon_as_values_come() -> None:
    log = Log()
    async with running() as (comet, _):
        channel = comet.create_newest(log.count(3))
        await wait_all_tasks_blocked()
        assert (feed_of(channel).history.top, len(feed_of(channel).history)) == (3, 1)


@pytest.mark.parametrize("ahead", [1, 3])
async def test_unlimited_source_is_read_only_while_a_client_asks_and_no_further_than_ahead(
    ahead: int,
) -> None:
    log = Log()
    async with running() as (comet, _):
        channel = comet.create_unlimited(log.count(9), scope=open_in(comet), ahead=ahead)
        feed = feed_of(channel)
        await wait_all_tasks_blocked()
        assert log.said == []
        for acknowledged in range(3):
            inside(comet).broker.want(feed, 9)  # a broker that asks for too much gets no more
            await wait_all_tasks_blocked()
            assert feed.history.top == acknowledged + ahead
            feed.acknowledge(acknowledged + 1)
            await wait_all_tasks_blocked()
            assert feed.history.top == acknowledged + ahead


async def test_unlimited_source_is_read_only_while_its_messages_fit_into_the_history() -> None:
    settings = Settings(message_limit=100, history_bytes=250)

    async def large() -> AsyncIterator[str]:
        for _ in range(9):
            yield "x" * 98

    comet = Comet(KEY, settings=settings)
    async with comet.lifespan():
        channel = comet.create_unlimited(large(), scope=open_in(comet), ahead=9)
        feed = feed_of(channel)
        inside(comet).broker.want(feed, feed.window)
        await wait_all_tasks_blocked()
        assert (feed.history.first, feed.history.top) == (1, 2)
        feed.acknowledge(1)
        inside(comet).broker.want(feed, feed.window)
        await wait_all_tasks_blocked()
        assert (feed.history.first, feed.history.top) == (2, 3)


@pytest.mark.parametrize("ahead", [0, -1])
async def test_unlimited_needs_a_window_of_at_least_one_message(ahead: int) -> None:
    async with running() as (comet, _):
        log, process = Log(), open_in(comet)
        with pytest.raises(ValueError, match=f"expected ahead to be .* at least 1, got {ahead}"):
            comet.create_unlimited(log.count(1), scope=process, ahead=ahead)
        with pytest.raises(InvalidDeclaration, match=f"at least 1, got {ahead}"):
            comet.unlimited("unread", ahead=ahead)


async def test_wanting_of_a_channel_without_a_source_on_demand_does_nothing() -> None:
    async with running() as (comet, _):
        inside(comet).broker.want(feed_of(comet.channels.create("news")), 1)


@pytest.mark.parametrize("before", [True, False], ids=["before the lifespan", "in it"])
async def test_a_source_given_before_the_lifespan_is_read_once_it_runs(before: bool) -> None:
    log, comet = Log(), Comet(KEY)
    channel = comet.create(log.count(2), scope=SITE, name="c")
    await wait_all_tasks_blocked()
    assert log.said == []
    async with comet.lifespan():
        await wait_all_tasks_blocked()
        assert feed_of(channel).history.top == 2


async def test_a_source_may_be_a_function_and_its_annotation_is_the_type() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    async with running() as (comet, _):
        channel = comet.create(numbers, scope=SITE)
        with pytest.raises(ValueError, match=r"expected a value that fits channel .*integer"):
            channel.publish("many")  # type: ignore[arg-type]  # that is what is tested
        await wait_all_tasks_blocked()
        assert feed_of(channel).history.top == 1


async def test_a_source_may_be_any_async_iterable() -> None:
    class Once:
        def __init__(self) -> None:
            self.left = 2

        def __aiter__(self) -> Once:
            return self

        async def __anext__(self) -> int:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return self.left

    async with running() as (comet, _):
        channel = comet.create(Once(), scope=SITE)
        await wait_all_tasks_blocked()
        assert feed_of(channel).history.top == 2


@pytest.mark.parametrize("source", [7, [1, 2], lambda: 7, "text"])
async def test_what_is_no_source_says_what_is_expected(source: Any) -> None:
    with pytest.raises(TypeError, match="expected a source to be an async iterator, or a function"):
        Comet(KEY).create(source, scope=SITE)


async def test_unlimited_needs_a_source() -> None:
    async with running() as (comet, _):
        with pytest.raises(TypeError, match="expected a source to read on demand"):
            comet.create_unlimited(None, scope=open_in(comet))  # type: ignore[call-overload]  # tested


async def test_a_source_that_ends_can_be_read_for_linger_seconds_then_is_unknown() -> None:
    async with running(linger=10) as (comet, clock):
        comet.create(Log().count(2), scope=SITE, name="c")
        await wait_all_tasks_blocked()
        feed = inside(comet).channels.find("c")
        assert feed is not None
        assert (feed.closed, len(feed.history), len(inside(comet).channels)) == ("ended", 2, 0)
        await advance(clock, 9.9)
        assert inside(comet).channels.find("c") is feed
        await advance(clock, 0.3)
        assert inside(comet).channels.find("c") is None
        assert len(inside(comet).timers) == 0


async def test_a_namesake_may_replace_a_channel_that_ended_at_once() -> None:
    async with running(linger=10) as (comet, clock):
        comet.create(Log().count(2), scope=SITE, name="c")
        await wait_all_tasks_blocked()
        again = comet.create(scope=SITE, name="c")
        assert inside(comet).channels.find("c") is feed_of(again)
        await advance(clock, 20)
        assert inside(comet).channels.find("c") is feed_of(again)


async def test_a_source_that_raises_fails_its_channel_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise LookupError("no more quotes")

    async with running() as (comet, _):
        with caplog.at_level(logging.ERROR, "asgi_comet.channels.source"):
            channel = comet.create(broken(), scope=SITE, name="quotes")
            other = comet.create(Log().hang(), scope=SITE, name="other")
            await wait_all_tasks_blocked()
        assert feed_of(channel).closed == "failed"
        assert feed_of(other).closed is None
        assert "the source of channel 'quotes' failed" in caplog.text
        assert "no more quotes" in caplog.text


async def test_a_value_that_does_not_fit_fails_the_channel(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def wrong() -> AsyncIterator[Any]:
        yield 1
        yield "two"

    async with running() as (comet, _):
        with caplog.at_level(logging.ERROR, "asgi_comet.channels.source"):
            channel = comet.create(wrong(), scope=SITE, name="n", type=int)
            await wait_all_tasks_blocked()
        assert (feed_of(channel).closed, feed_of(channel).history.top) == ("failed", 1)
        assert "expected a value that fits channel 'n'" in caplog.text


async def test_a_value_that_is_too_large_fails_the_channel(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def large() -> AsyncIterator[str]:
        yield "x" * 8  # in quotes
        yield "x" * 9

    async with running(message_limit=10) as (comet, _):
        with caplog.at_level(logging.ERROR, "asgi_comet.channels.source"):
            channel = comet.create(large(), scope=SITE, name="n", type=str)
            await wait_all_tasks_blocked()
        assert (feed_of(channel).closed, feed_of(channel).history.top) == ("failed", 1)
        assert "MessageTooLarge" in caplog.text


async def close_it(comet: Comet, channel: Any) -> None:
    channel.close()


async def close_process(comet: Comet, channel: Any) -> None:
    for process in comet.processes():
        process.close()


@pytest.mark.parametrize("how", [close_it, close_process])
async def test_a_hanging_source_is_closed_with_its_channel(how: Callable[..., Any]) -> None:
    log = Log()
    async with running() as (comet, _):
        channel = comet.create(log.hang(), scope=open_in(comet))
        await wait_all_tasks_blocked()
        await how(comet, channel)
        await wait_all_tasks_blocked()
        assert log.said == ["closed"]
        assert len(inside(comet).background) == 0


async def test_a_source_that_was_never_started_is_closed_too() -> None:
    source = Unread()
    comet = Comet(KEY)
    channel = comet.create(source, scope=SITE, name="c")
    channel.close()
    async with comet.lifespan():
        await wait_all_tasks_blocked()
    assert source.closed == 1


async def test_a_source_may_take_its_time_to_close_but_not_more_than_ten_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said: list[str] = []
    release = anyio.Event()

    async def slow() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            said.append("closing")
            with anyio.CancelScope(shield=not said[1:]):
                await release.wait()
            said.append("closed")

    class Stuck:
        def __aiter__(self) -> Stuck:
            return self

        async def __anext__(self) -> int:
            await anyio.sleep_forever()
            raise AssertionError("it never comes here")

        async def aclose(self) -> None:
            await anyio.sleep_forever()

    async with running() as (comet, clock):
        quick = comet.create(slow(), scope=SITE)
        stuck = comet.create(Stuck(), scope=SITE, name="stuck")
        await wait_all_tasks_blocked()
        quick.close()
        stuck.close()
        await advance(clock, 8.9)
        assert len(inside(comet).background) == 2
        release.set()
        await wait_all_tasks_blocked()
        assert said == ["closing", "closed"]
        assert len(inside(comet).background) == 1
        await advance(clock, 1.3)
        assert len(inside(comet).background) == 0
        await advance(clock, 10)
        assert len(inside(comet).timers) == 0
    assert "the source of channel 'stuck' did not close within 10 s" in caplog.text


async def test_a_source_that_fails_to_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def bad() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            raise LookupError("cannot close")

    async with running() as (comet, _):
        channel = comet.create(bad(), scope=SITE, name="bad")
        await wait_all_tasks_blocked()
        channel.close()
        await wait_all_tasks_blocked()
        assert len(inside(comet).background) == 0
    assert "cannot close" in caplog.text


async def test_an_unnamed_channel_that_nobody_holds_is_reclaimed_though_its_source_goes_on() -> (
    None
):
    log = Log()
    async with running(linger=10) as (comet, clock):
        channel = comet.create(log.hang(), scope=SITE)
        reference = channel.reference()
        await wait_all_tasks_blocked()
        del channel
        gc.collect()
        await wait_all_tasks_blocked()
        await advance(clock, 9.9)
        assert inside(comet).channels.find(reference["channel"]) is not None
        await advance(clock, 0.3)
        assert inside(comet).channels.find(reference["channel"]) is None
        assert log.said == ["closed"]


async def test_a_named_channel_lives_until_its_source_ends() -> None:
    log = Log()
    async with running() as (comet, clock):
        comet.create(log.hang(), scope=SITE, name="c")
        gc.collect()
        await advance(clock, 3600)
        assert inside(comet).channels.find("c") is not None
        assert log.said == []


async def test_one_iterator_for_two_channels_is_refused_at_once_and_the_first_goes_on() -> None:
    log = Log()
    async with running() as (comet, _):
        source = log.count(3)
        first = comet.create(source, scope=SITE)
        for again in (source, lambda: source):
            for make in (comet.create_newest, partial(comet.create, scope=open_in(comet))):
                with pytest.raises(ValueError, match="got async_generator for the second time"):
                    make(again)
        await wait_all_tasks_blocked()
        assert feed_of(first).history.top == 3
        assert log.said == ["started", "1 taken", "2 taken", "3 taken", "closed"]
        with pytest.raises(ValueError, match="pass the function that makes it"):
            comet.create(source, scope=SITE)  # it has been read, so there is nothing left


async def test_a_function_gives_each_channel_an_iterator_and_none_is_kept() -> None:
    log = Log()
    async with running() as (comet, clock):
        for number in range(100):
            comet.create(lambda: log.count(1), scope=SITE, name=f"n{number}")
        await wait_all_tasks_blocked()
        assert len(log.said) == 300
        await advance(clock, 10.2)  # what they held is forgotten
        gc.collect()
        assert tables(comet)["sources"] == 0


async def test_of_an_iterator_without_weak_references_it_is_not_known() -> None:
    class Slotted:
        __slots__ = ()

        def __aiter__(self) -> Slotted:
            return self

        async def __anext__(self) -> int:
            raise StopAsyncIteration

    source = Slotted()
    async with running() as (comet, _):
        feeds = [feed_of(comet.create(source, scope=SITE, name=name)) for name in ("a", "b")]
        await wait_all_tasks_blocked()
        assert [feed.closed for feed in feeds] == ["ended"] * 2


async def test_when_the_lifespan_ends_no_source_is_left() -> None:
    logs = [Log() for _ in range(3)]
    async with running() as (comet, _):
        comet.create(logs[0].hang(), scope=SITE, name="site")
        comet.create(logs[1].hang(), scope=open_in(comet), name="own")
        comet.create_unlimited(logs[2].count(3), scope=open_in(comet), name="unread")
        await wait_all_tasks_blocked()
    assert [log.said for log in logs] == [["closed"], ["closed"], []]
    assert len(inside(comet).background) == 0
    assert len(inside(comet).clients) == 0
    assert len(inside(comet).channels) == 0


async def test_a_process_channel_that_overflows_closes_its_source() -> None:
    log = Log()
    async with running() as (comet, _):
        channel = comet.create(log.count(10), scope=open_in(comet), size=4)
        await wait_all_tasks_blocked()
        assert feed_of(channel).closed == "full"
        assert log.said == ["started", "1 taken", "2 taken", "3 taken", "4 taken", "closed"]
        with pytest.raises(ChannelFull):
            channel.publish(1)
        assert feed_of(channel).kind is Kind.PROCESS


async def test_publishing_too_much_on_a_writable_process_channel_says_so() -> None:
    async with running() as (comet, _):
        process = open_in(comet)
        channel = comet.create(scope=process, name="inbox", size=2)
        channel.publish(1)
        channel.publish(2)
        with pytest.raises(ChannelFull, match="'~inbox'"):
            channel.publish(3)
        assert client_of(process).place.directory.find("~inbox") is feed_of(channel)
        again = comet.create(scope=process, name="inbox")
        assert client_of(process).place.directory.find("~inbox") is feed_of(again)


@pytest.mark.parametrize("size", [0, -1])
async def test_a_size_below_one_says_what_is_expected(size: int) -> None:
    with pytest.raises(ValueError, match="at least 1, got"):
        Comet(KEY).create(scope=SITE, size=size)


@pytest.mark.parametrize("size", ["x", 2.5, True, None])
async def test_a_size_that_is_no_whole_number_says_what_is_expected(size: Any) -> None:
    comet, expected = Comet(KEY), rf"to be a number of messages, at least 1, got {size!r}"
    if size is not None:
        with pytest.raises(TypeError, match=f"^expected size {expected}"):
            comet.create(scope=SITE, size=size)
        with pytest.raises(InvalidDeclaration, match=f"expected size {expected}"):
            comet.channel("news", size=size)
    with pytest.raises(InvalidDeclaration, match=f"expected ahead {expected}"):
        comet.unlimited("unread", ahead=size)
    async with running() as (served, _):
        process = open_in(served)
        with pytest.raises(TypeError, match=f"^expected ahead {expected}"):
            served.create_unlimited(lambda: Log().count(1), scope=process, ahead=size)


async def test_a_source_whose_aclose_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Bad:
        def __aiter__(self) -> Bad:
            return self

        async def __anext__(self) -> int:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            raise LookupError("cannot close")

    async with running() as (comet, _):
        comet.create(Bad(), scope=SITE, name="bad")
        await wait_all_tasks_blocked()
        assert len(inside(comet).background) == 0
    assert "the source of channel 'bad' failed to close" in caplog.text


async def test_an_on_demand_channel_is_of_a_client_process_only() -> None:
    with pytest.raises(ValueError, match="expected a client process as scope, got SITE"):
        Comet(KEY).create_unlimited(Log().count(1), scope=SITE)


async def endless() -> AsyncIterator[int]:
    n = 0
    while True:
        n += 1
        yield n
        await anyio.lowlevel.checkpoint()


async def is_alive(channel: Any) -> bool:
    """Tell whether a channel of an endless source still gets values."""
    top = feed_of(channel).history.top
    for _ in range(100):
        await anyio.lowlevel.checkpoint()
    return bool(feed_of(channel).history.top > top)


async def test_a_source_that_closes_its_own_channel_ends_nothing_else() -> None:
    async def own() -> AsyncIterator[int]:
        yield 1
        channel.close()
        yield 2

    async with running() as (comet, _):
        other = comet.create(endless(), scope=SITE)
        channel = comet.create(own(), scope=SITE)
        while len(inside(comet).background) > 1:
            await anyio.lowlevel.checkpoint()
        assert feed_of(channel).closed == "ended"
        assert await is_alive(other)
        other.close()


async def test_a_source_that_closes_its_own_client_process_ends_nothing_else() -> None:
    async def own() -> AsyncIterator[int]:
        yield 1
        process.close()

    async with running() as (comet, _):
        process = open_in(comet)
        other = comet.create(endless(), scope=SITE)
        channel = comet.create(own(), scope=process)
        while len(inside(comet).background) > 1:
            await anyio.lowlevel.checkpoint()
        assert feed_of(channel).closed == "ended"
        assert await is_alive(other)
        other.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_source_that_awaits_a_cancelled_task_fails_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def stray() -> AsyncIterator[int]:
        yield 1
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    async with running() as (comet, _):
        other = comet.create(endless(), scope=SITE)
        channel = comet.create(stray(), scope=SITE, name="stray")
        while feed_of(channel).closed is None:
            await anyio.lowlevel.checkpoint()
        assert feed_of(channel).closed == "failed"
        assert await is_alive(other)
        other.close()
    assert "the source of channel 'stray' failed" in caplog.text


async def test_a_source_that_raises_generator_exit_fails_alone() -> None:
    class Odd:
        def __aiter__(self) -> Odd:
            return self

        async def __anext__(self) -> int:
            raise GeneratorExit

    async with running() as (comet, _):
        other = comet.create(endless(), scope=SITE)
        channel = comet.create(Odd(), scope=SITE)
        while feed_of(channel).closed is None:
            await anyio.lowlevel.checkpoint()
        assert feed_of(channel).closed == "failed"
        assert await is_alive(other)
        other.close()


async def test_a_source_that_never_waits_does_not_hold_up_the_others() -> None:
    async def greedy() -> AsyncIterator[int]:
        while True:
            yield 1

    async with running() as (comet, _):
        channel = comet.create(greedy(), scope=SITE)
        for _ in range(100):
            await anyio.lowlevel.checkpoint()  # it comes back, however much there is to read
        assert feed_of(channel).history.top > 1000
        channel.close()


async def test_a_source_that_ended_is_not_said_to_be_cut_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as (comet, clock):
        channel = comet.create(Log().count(1), scope=SITE)
        await wait_all_tasks_blocked()
        channel.close()
        await advance(clock, 30)
        assert len(inside(comet).timers) == 0
    assert "cut off" not in caplog.text


async def test_a_source_that_was_cut_off_while_it_was_read_is_closed_all_the_same() -> None:
    said: list[str] = []

    class Stubborn:
        def __aiter__(self) -> Stubborn:
            return self

        async def __anext__(self) -> int:
            try:
                await anyio.sleep_forever()
            except BaseException:
                said.append("not now")
                with anyio.CancelScope(shield=True):
                    await release.wait()
                raise
            raise AssertionError("it never comes here")

        async def aclose(self) -> None:
            said.append("closed")

    release = anyio.Event()
    async with running() as (comet, clock):
        channel = comet.create(Stubborn(), scope=SITE)
        await wait_all_tasks_blocked()
        channel.close()
        await wait_all_tasks_blocked()
        await advance(clock, 10.3)
        release.set()
        await wait_all_tasks_blocked()
        assert said == ["not now", "closed"]
        assert len(inside(comet).background) == 0


async def test_a_channel_for_a_process_that_closed_meanwhile_is_refused_its_source_closed() -> None:
    source = Unread()
    async with running() as (comet, _):
        process = open_in(comet)

        def make() -> Unread:
            process.close()
            return source

        with pytest.raises(ProcessClosed):
            comet.create(make, scope=process)
        await wait_all_tasks_blocked()
        assert source.closed == 1
        assert len(inside(comet).channels) == 0


async def test_a_source_that_comes_while_the_lifespan_ends_is_closed_unread() -> None:
    log = Log()
    async with running() as (comet, _):
        process = open_in(comet)
        process.on_close(lambda _: late.append(comet.create(log.hang(), scope=SITE, name="late")))
        late: list[Any] = []
    assert feed_of(late[0]).closed == "ended"
    assert log.said == []
    assert (len(inside(comet).channels), len(inside(comet).background)) == (0, 0)


async def test_an_on_demand_channel_is_not_published_on() -> None:
    async with running() as (comet, _):
        channel = comet.create_unlimited(Log().count(3), scope=open_in(comet), name="n")
        with pytest.raises(TypeError, match="reads its source as its client asks"):
            channel.publish(1)


async def test_a_second_channel_of_a_name_is_refused_and_its_source_closed() -> None:
    log = Log()
    async with running() as (comet, _):
        comet.create(scope=SITE, name="news")
        for source in (None, log.count(1)):
            with pytest.raises(NonUniqueChannelName):
                comet.create(source, scope=SITE, name="news")
        await wait_all_tasks_blocked()
        assert (len(inside(comet).channels), len(inside(comet).background)) == (1, 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_callback_that_awaits_a_cancelled_task_ends_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def stray(process: object) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    async with running() as (comet, _):
        other = comet.create(endless(), scope=SITE)
        process = open_in(comet)
        process.on_close(stray)
        process.close()
        while len(inside(comet).background) > 1:
            await anyio.lowlevel.checkpoint()
        assert await is_alive(other)
        other.close()
    assert "an on_close callback failed" in caplog.text


async def test_a_source_that_writes_on_another_channel_that_has_ended_has_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as (comet, _):
        other = comet.channels.create("other")
        other.close()

        async def writes_on_another() -> AsyncIterator[int]:
            yield 1
            other.publish("x")

        channel = comet.create(writes_on_another, scope=SITE, name="c")
        await wait_all_tasks_blocked()
        assert feed_of(channel).closed == "failed"
        assert "the source of channel 'c' failed" in caplog.text


def demand_of(history: History) -> Demand:
    return Demand(Feed("c", Kind.UNLIMITED, history, Directory(threading.Lock())), 10)


async def reads(demand: Demand) -> bool:
    read = list[bool]()

    async def wait() -> None:
        await demand.wait()
        read.append(True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    return bool(read)


@pytest.mark.parametrize("epoch", ["e", "later"])
async def test_a_source_on_demand_is_not_read_on_while_its_history_lags(epoch: str) -> None:
    history = History(size=1, max_bytes=100, epoch="e")
    demand = demand_of(history)
    demand.ask(1)
    assert await reads(demand)
    demand.note(Position(epoch, 1), history)  # stored, and on the way into the history
    assert not await reads(demand)
    demand.ask(2)
    assert await reads(demand)


async def test_what_a_source_was_asked_for_in_a_former_epoch_is_past() -> None:
    history = History(size=9, max_bytes=100)
    history.reset("e", 5)
    demand = demand_of(history)
    demand.ask(6)
    assert await reads(demand)
    demand.note(Position("later", 3), history)  # of a replica that lagged
    assert not await reads(demand)
    history.reset("later", 4)
    assert not await reads(demand)
    demand.ask(4)
    assert await reads(demand)


async def test_what_was_stored_in_a_former_epoch_does_not_keep_a_source_from_being_read() -> None:
    history = History(size=9, max_bytes=100)
    history.reset("e", 9)
    demand = demand_of(history)
    demand.ask(9)
    assert await reads(demand)
    history.reset("later", 1)
    demand.note(Position("e", 9), history)
    demand.ask(1)
    assert await reads(demand)
