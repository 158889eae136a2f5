from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from asgi_comet import (
    SITE,
    Channel,
    ChannelClosed,
    ClientProcess,
    Comet,
    InvalidMessage,
    InvalidName,
    MessageTooLarge,
    NonUniqueChannelName,
    NotRunning,
    Outcome,
    TooManyVirtualChannels,
)
from asgi_comet.channels.feed import Feed
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import awaited, feed_of, inside
from tests.kit.listening import Ear, attach
from tests.kit.processes import open_in
from tests.kit.running import advance, make, running
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


def test_a_channel_has_its_name_or_a_fresh_identifier() -> None:
    comet = make()
    named, unnamed = comet.channels.create("news"), comet.channels.create()
    assert (named.id, named.name) == ("news", "news")
    assert unnamed.name is None
    assert len(unnamed.id) >= 22
    assert unnamed.id != comet.channels.create().id
    assert repr(named) == "<Channel 'news' listeners=0>"


def test_a_second_live_channel_of_a_name_is_refused_and_a_later_one_is_not() -> None:
    comet = make()
    channel = comet.channels.create("news")
    with pytest.raises(NonUniqueChannelName, match="'news', which is taken") as caught:
        comet.channels.create("news")
    assert caught.value.name == "news"
    channel.close()
    channel.close()
    again = comet.channels.create("news")
    channel.close()  # the old one: it must not close its namesake
    again.publish("x")
    assert repr(channel) == "<Channel 'news' ended>"


def test_bad_names_are_refused_and_allocate_nothing() -> None:
    comet = make()
    with pytest.raises(InvalidName):
        comet.channels.create("~inbox")
    assert len(inside(comet).channels) == 0


def test_max_virtual_channels_at_n_and_n_plus_one() -> None:
    comet = make(max_virtual_channels=2)
    kept = [comet.channels.create("a"), comet.channels.create()]
    with pytest.raises(TooManyVirtualChannels, match="at most 2 live channels") as caught:
        comet.channels.create("c")
    assert caught.value.limit == 2
    kept[0].close()
    comet.channels.create("c")


def test_without_max_virtual_channels_there_is_no_limit() -> None:
    comet = make()
    kept = [comet.channels.create() for _ in range(5000)]
    assert len(inside(comet).channels) == len(kept)


def test_an_unnamed_channel_that_nobody_holds_is_reclaimed_at_once_and_a_named_one_is_not() -> None:
    comet = make(max_virtual_channels=2)
    comet.channels.create("named")
    for _ in range(10):
        comet.channels.create()
        gc.collect()
    assert len(inside(comet).channels) == 1


async def test_one_worker_knows_each_channel_at_once_and_counts_alone() -> None:
    async with running() as (comet, _):
        channel: Any = comet.create(scope=SITE, name="news")
        await channel.ready()
        assert await channel.count() == 0


async def test_reclaiming_needs_no_call_while_the_lifespan_runs() -> None:
    async with running() as (comet, _):
        channel = comet.channels.create()
        feed = feed_of(channel)
        del channel
        gc.collect()
        await wait_all_tasks_blocked()
        assert feed.closed == "ended"
        assert inside(comet).channels.find(feed.name) is None


async def test_an_unnamed_channel_with_listeners_lingers_after_the_last_one() -> None:
    async with running(linger=10) as (comet, clock):
        channel = comet.channels.create()
        feed, ear = feed_of(channel), Ear()
        attach(inside(comet).fanout, ear, feed)
        del channel
        gc.collect()
        await advance(clock, 60)
        assert feed.closed is None
        inside(comet).fanout.detach(ear)
        await advance(clock, 9.9)
        assert feed.closed is None
        again = Ear()  # a poll comes back in time
        attach(inside(comet).fanout, again, feed)
        inside(comet).fanout.detach(again)
        await advance(clock, 9.9)
        assert feed.closed is None
        await advance(clock, 20.2)
        assert feed.closed == "ended"
        assert len(inside(comet).channels) == 0
        assert len(inside(comet).timers) == 0


async def test_a_lingering_channel_that_is_closed_otherwise_is_left_alone() -> None:
    async with running(linger=10) as (comet, clock):
        channel = comet.channels.create()
        feed, ear = feed_of(channel), Ear()
        attach(inside(comet).fanout, ear, feed)
        inside(comet).fanout.detach(ear)
        channel.close()
        namesake = comet.channels.create(feed.name)
        del channel
        gc.collect()
        await wait_all_tasks_blocked()
        assert len(inside(comet).timers) == 2  # one for what it holds, one for who dropped it
        await advance(clock, 30)
        assert len(inside(comet).timers) == 0
        assert feed_of(namesake).closed is None


async def test_a_dropped_channel_that_was_referred_to_lingers_from_when_the_lifespan_starts() -> (
    None
):
    clock = ManualClock()
    comet = make(clock, linger=10)
    channel = comet.channels.create()
    channel.reference()
    del channel
    gc.collect()
    assert len(inside(comet).channels) == 1
    async with comet.lifespan():
        await wait_all_tasks_blocked()
        await advance(clock, 9.9)
        assert len(inside(comet).channels) == 1
        await advance(clock, 0.3)
        assert len(inside(comet).channels) == 0


def drop(comet: Comet, process: ClientProcess, *, refer: bool) -> Feed:
    """Make an unnamed channel of a tab, and keep nothing of it but its feed."""
    channel: Channel[str] = comet.create(scope=process)
    if refer:
        channel.reference()
    feed = feed_of(channel)
    del channel
    gc.collect()
    return feed


async def test_an_unnamed_channel_of_a_tab_that_nobody_was_told_of_is_reclaimed_at_once() -> None:
    said: list[str] = []

    async def source() -> AsyncIterator[int]:
        said.append("read")
        yield 1

    async with running() as (comet, _):
        process = open_in(comet, "a session")
        for _ in range(5):
            drop(comet, process, refer=False)
            comet.create(source(), scope=process)
            comet.create_unlimited(source(), scope=process)
            comet.create(scope=process, name="named").close()
        gc.collect()
        await wait_all_tasks_blocked()
        assert (len(inside(comet).channels), len(inside(comet).background), said) == (0, 0, [])


async def test_an_unnamed_channel_of_a_tab_that_was_told_of_it_lingers_while_it_is_there() -> None:
    async with running(linger=10) as (comet, clock):
        process = open_in(comet, "a session")
        process.connect()
        feed = drop(comet, process, refer=True)
        await wait_all_tasks_blocked()
        await advance(clock, 9.9)
        assert feed.closed is None
        ear = Ear()
        attach(inside(comet).fanout, ear, feed)
        await advance(clock, 60)
        assert feed.closed is None
        inside(comet).fanout.detach(ear)
        await advance(clock, 9.9)
        assert feed.closed is None
        await advance(clock, 20.2)
        assert feed.closed == "ended"
        assert (len(inside(comet).channels), len(inside(comet).timers)) == (0, 0)


async def test_a_tab_that_is_away_keeps_its_unnamed_channels_until_it_comes_back_or_closes() -> (
    None
):
    async with running(linger=10, process_timeout=600) as (comet, clock):
        process = open_in(comet, "a session")
        process.connect()
        first, second = (drop(comet, process, refer=True) for _ in range(2))
        process.disconnect()
        for _ in range(5):
            await advance(clock, 100)
        process.connect()  # it has yet to say what it follows
        await advance(clock, 9.9)
        ear = Ear()
        attach(inside(comet).fanout, ear, first)
        for _ in range(2):
            assert second.closed is None
            await advance(clock, 10.2)
        assert (first.closed, second.closed) == (None, "ended")
        process.disconnect()
        await advance(clock, 600.2)
        assert (process.closed, first.closed) == (True, "ended")
        await advance(clock, 20.2)
        assert len(inside(comet).timers) == 0


def test_a_channel_tells_what_it_was_made_as() -> None:
    comet = make(history_size=7)
    process = open_in(comet, "a session")

    async def source() -> AsyncIterator[int]:
        yield 1

    @comet.unlimited("unread")
    async def unread(tab: ClientProcess) -> AsyncIterator[int]:
        yield 1

    made = [
        (comet.create(scope=SITE, size=3), SITE, "site", 3),
        (comet.channels.create("text"), SITE, "site", 7),
        (comet.create(scope=process), process, "process", 7),
        (comet.create_newest(), SITE, "newest", 1),
        (comet.create_unlimited(source(), scope=process, ahead=2), process, "unlimited", 2),
        (unread.channel(process), process, "unlimited", 1),
    ]
    for channel, *told in made:
        assert [channel.scope, channel.kind, channel.size] == told


def test_a_finalizer_may_run_while_the_lock_is_held() -> None:
    comet = make()
    channel = comet.channels.create()
    with inside(comet).channels.site.directory.lock:
        del channel
        gc.collect()
    assert len(inside(comet).channels) == 0


def test_creating_and_dropping_in_many_threads_leaves_nothing() -> None:
    comet = make(max_virtual_channels=64)
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(300):
                comet.channels.create().write("x")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(inside(comet).channels) == 0


@pytest.mark.parametrize("wrong", [5, None, ["x"], b"\xff", "ab\ud800c"], ids=repr)
def test_what_is_no_text_is_an_invalid_message_and_nothing_is_published(wrong: Any) -> None:
    comet = make()
    channel = comet.channels.create("news")
    for same in (channel, comet.create(scope=SITE, name="same", type=str)):
        with pytest.raises(InvalidMessage, match="expected a value that fits channel '"):
            same.publish(wrong)
    assert feed_of(channel).history.top == 0


def test_a_message_at_the_limit_and_one_byte_over() -> None:
    channel = make(message_limit=10).channels.create("news")
    channel.write("x" * 8)  # and two quotes
    with pytest.raises(MessageTooLarge, match="at most 10 bytes as JSON on channel 'news', got 11"):
        channel.write("x" * 9)
    assert feed_of(channel).history.top == 1


def test_publishing_on_a_closed_channel_says_so() -> None:
    channel = make().channels.create("news")
    channel.close()
    with pytest.raises(ChannelClosed, match="'news', which has ended"):
        channel.write("x")


def test_history_is_bounded_by_the_settings() -> None:
    channel = make(history_size=3, history_bytes=20, message_limit=20).channels.create("n")
    for _ in range(5):
        channel.write("abc")
    assert (len(feed_of(channel).history), feed_of(channel).history.bytes) == (3, 15)


async def test_a_write_has_its_position_at_once() -> None:
    channel = make().channels.create("news")
    position = await channel.write("x").stored()
    assert position == feed_of(channel).history.position
    assert position.offset == 1


async def test_the_outcome_needs_a_running_lifespan() -> None:
    with pytest.raises(NotRunning):
        await make().channels.create("news").write("x")


async def test_a_write_that_nobody_had_fails_at_the_timeout() -> None:
    async with running(timeout=20) as (comet, clock):
        delivery = comet.channels.create("news").write("x")
        outcomes: list[Outcome] = []

        async def wait() -> None:
            outcomes.append(await delivery)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await wait_all_tasks_blocked()
            await advance(clock, 19.9)
            assert outcomes == []
            await advance(clock, 0.3)
            assert outcomes == [Outcome.FAILURE]
        assert await delivery is Outcome.FAILURE  # asked again, later
        assert len(inside(comet).timers) == 0


async def test_a_cancelled_wait_for_an_outcome_leaves_nothing() -> None:
    async with running() as (comet, _):
        channel = comet.channels.create("news")
        with anyio.move_on_after(0):
            await channel.write("x")
        assert len(inside(comet).timers) == 0
        assert awaited(feed_of(channel)) == 0


async def test_waiting_for_listeners_gives_up_with_what_it_saw() -> None:
    channel = make().channels.create("news")
    wait_for_listeners(channel, 0)
    with pytest.raises(TimeoutError, match=r"expected 2 listeners on channel 'news' .* got 0"):
        await anyio.to_thread.run_sync(lambda: wait_for_listeners(channel, 2, timeout=0.01))
    assert feed_of(channel).observers == ()
