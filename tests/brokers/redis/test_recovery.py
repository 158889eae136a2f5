"""What becomes of channels while Redis is away, slow, full, emptied, or another server."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from asgi_comet import BrokerUnavailable, ChannelClosed
from asgi_comet.brokers.logs import ChannelSpec, Closed, Full, Placed, Unsuitable
from asgi_comet.brokers.redis import RedisBroker, following, probing
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.notices import CHANNELS, Notices
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.core.messages import Last, Message, Now
from asgi_comet.errors import InvalidDeclaration
from asgi_comet.position import Position
from asgi_comet.testing._inspect_redis import redis_tables
from asgi_comet.testing.clock import ManualClock
from asgi_comet.testing.party import PATIENCE, Party, position
from asgi_comet.testing.window import Window
from tests.kit.redis import Client, RedisServer
from tests.kit.redis_proxy import RedisProxy, turns

pytestmark = pytest.mark.anyio

SCRIPTS = Scripts(Keys())
KEYS = SCRIPTS.keys.site("a")
MakeRedis = Callable[..., RedisServer]


@asynccontextmanager
async def parties(*brokers: RedisBroker) -> AsyncIterator[list[Party]]:
    found = [Party(broker) for broker in brokers]
    with anyio.fail_after(60):
        async with running(found):
            yield found


@asynccontextmanager
async def running(found: list[Party]) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        stop = anyio.Event()

        async def serve(party: Party) -> None:
            async with party.running():
                await stop.wait()

        for party in found:
            tasks.start_soon(serve, party)
        yield
        stop.set()


def tables(party: Party) -> dict[str, int]:
    assert isinstance(party.broker, RedisBroker)
    return redis_tables(party.broker)


async def stored(party: Party, window: Window, data: bytes) -> Position:
    return await position(window, party.broker.append(window, data))


@asynccontextmanager
async def ticking(clock: ManualClock, seconds: float) -> AsyncIterator[None]:
    """Advance a clock in each turn of the loop while the context lasts."""

    async def tick() -> None:
        while True:
            clock.advance(seconds)
            await turns(1)

    task = asyncio.create_task(tick())
    yield
    task.cancel()


# Emptied


async def test_a_redis_that_was_started_empty_is_given_all_channels_again(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    async with parties(RedisBroker(redis.url), RedisBroker(redis.url)) as (one, two):
        log = await one.make("a")
        other = await two.join("a")
        before = await stored(one, log, b"x")
        redis.stop()
        redis.start()
        for party, window in ((one, log), (two, other)):  # though nothing is published
            await party.until(lambda w=window: w.epoch != before.epoch)  # type: ignore[misc]
        assert log.epoch == other.epoch
        after = await stored(two, other, b"y")
        assert after == Position(log.epoch, 1)
        for party, window in ((one, log), (two, other)):
            await party.until(lambda w=window: w.top == 1)  # type: ignore[misc]
            assert window.seen == [b"x", b"y"]
        assert await two.broker.place(other, before) == Full()


async def test_messages_that_wait_while_redis_is_emptied_are_stored_in_order(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    async with parties(RedisBroker(redis.url)) as (one,):
        log = await one.make("a", size=1000)
        await stored(one, log, b"x")
        await one.until(lambda: log.top == 1)
        redis.stop()
        sent = [one.broker.append(log, b"%d" % number) for number in range(600)]
        redis.start()
        places = [await position(log, one) for one in sent]
        assert [place.offset for place in places] == list(range(1, 601))
        await one.until(lambda: log.top == 600)
        assert log.seen == [b"x", *(b"%d" % number for number in range(600))]


async def test_an_end_reaches_a_redis_that_was_emptied(redis: RedisServer, client: Client) -> None:
    async with parties(RedisBroker(redis.url), RedisBroker(redis.url)) as (one, two):
        log = await one.make("a")
        other = await two.join("a")
        client.flushall()
        await one.broker.end(log, "ended")
        await two.until(lambda: other.closed == "ended")
        assert await two.broker.find("a") == replace(log.spec, closed="ended")
        assert await two.broker.place(other, Now()) == Closed("ended")


async def test_a_channel_fails_whose_key_another_program_has_taken(
    redis: RedisServer, client: Client
) -> None:
    async with parties(RedisBroker(redis.url), RedisBroker(redis.url)) as (one, two):
        log = await one.make("a", adopt=True, sourced=True)
        other = await two.join("a")
        one.broker.bid(log)
        await one.until(lambda: log.owned == 1)
        client.set(KEYS.log, "of another program")
        with pytest.raises(BrokerUnavailable, match="is not ours"):
            await position(log, one.broker.append(log, b"x", sourced=True))
        await one.until(lambda: log.closed == "failed")
        await two.until(lambda: other.closed == "failed")


async def test_a_channel_that_is_made_while_redis_is_full_is_opened_when_there_is_room(
    redis: RedisServer, client: Client
) -> None:
    async with parties(RedisBroker(redis.url)) as (one,):
        client.config_set("maxmemory", 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(one.make, "a", adopt=True))
            await turns(1)
            with pytest.raises(BrokerUnavailable, match="OOM"):
                await one.make("b")  # the caller is told
            client.config_set("maxmemory", 0)
        assert client.exists(KEYS.meta)


async def test_the_last_values_of_a_source_are_stored_before_the_end_once_redis_has_room(
    redis: RedisServer, client: Client
) -> None:
    async with parties(RedisBroker(redis.url)) as (one,):
        log = await one.make("a", adopt=True, sourced=True)
        one.broker.bid(log)
        await one.until(lambda: log.owned == 1)
        client.config_set("maxmemory", 1)
        last = one.broker.append(log, b"x", sourced=True)
        with pytest.raises(BrokerUnavailable, match="OOM"):
            await stored(one, log, b"by hand")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.broker.end, log, "ended")
            await one.broker.find("a")
            client.config_set("maxmemory", 0)
        await position(log, last)
        await one.until(lambda: (log.seen, log.closed) == ([b"x"], "ended"))


async def test_readers_are_told_of_an_emptied_redis_without_a_publish(
    redis: RedisServer, client: Client
) -> None:
    clock = ManualClock()
    broker = RedisBroker(redis.url, clock=clock)
    async with parties(broker) as (one,):
        log = await one.make("a")
        before = await stored(one, log, b"x")
        while not broker.healthy:
            await anyio.lowlevel.checkpoint()
        client.flushall()
        clock.advance(probing.EVERY)  # one probe, and no look at quiet logs
        while broker.serving.connection is not None:
            await anyio.lowlevel.checkpoint()
        clock.advance(1)  # the pause before the next connection
        await one.until(lambda: log.epoch != before.epoch)
        assert client.hget(KEYS.meta, "e").decode() == log.epoch


async def test_a_channel_on_which_no_worker_publishes_for_long_is_kept(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "KEEP", 2 * following.QUIET)
    clock = ManualClock()
    async with parties(RedisBroker(redis.url, clock=clock)) as (one,):
        log = await one.make("a")
        await stored(one, log, b"x")
        whole = client.pttl(KEYS.meta)
        client.pexpire(KEYS.meta, whole // 2)
        client.pexpire(KEYS.log, whole // 2)
        while client.pttl(KEYS.meta) < whole * 0.9:
            clock.advance(10)
            await anyio.lowlevel.checkpoint()
        assert client.pttl(KEYS.log) > whole * 0.9


async def test_readers_are_told_of_a_redis_that_was_started_again_without_a_publish(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis("--appendonly", "yes", "--appendfsync", "always")
    async with parties(RedisBroker(redis.url)) as (one,):
        log = await one.make("a")
        before = await stored(one, log, b"x")
        await one.until(lambda: log.top == 1)
        redis.stop()
        redis.start()
        await one.until(lambda: log.epoch != before.epoch and log.top == 1)
        assert await one.broker.place(log, before) == Full()


async def test_a_channel_that_was_deleted_is_opened_again_by_the_next_message(
    redis: RedisServer, client: Client
) -> None:
    async with parties(RedisBroker(redis.url), RedisBroker(redis.url)) as (one, two):
        log = await one.make("a")
        other = await two.join("a")
        before = await stored(one, log, b"x")
        client.delete(KEYS.meta)
        after = await stored(two, other, b"y")
        assert after.epoch != before.epoch
        await one.until(lambda: (log.epoch, log.top) == (after.epoch, after.offset))
        client.delete(KEYS.meta, KEYS.log)
        assert await one.broker.place(log, after) == Full()
        client.delete(KEYS.meta, KEYS.log)
        assert await one.broker.recover(log, 0, 100) is None
        client.delete(KEYS.log)  # only its messages
        await stored(one, log, b"z")
        assert await one.broker.place(log, Last(5)) == Placed(0, log.epoch)


async def test_a_deleted_channel_is_opened_again_by_a_redis_that_forgot_the_scripts(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis("--appendonly", "yes", "--appendfsync", "always")
    async with parties(RedisBroker(redis.url)) as (one,):
        log = await one.make("a")
        before = await stored(one, log, b"x")
        redis.stop()
        redis.start()
        await one.until(lambda: log.epoch != before.epoch)
        with redis.client() as client:
            client.delete(KEYS.meta)
        assert await one.broker.place(log, before) == Full()


async def test_a_deleted_channel_of_which_nothing_is_heard_is_found_missing(
    redis: RedisServer, client: Client
) -> None:
    clock = ManualClock()
    async with parties(RedisBroker(redis.url, clock=clock)) as (one,):
        log = await one.make("a")
        before = await stored(one, log, b"x")
        client.delete(KEYS.meta)
        while log.epoch == before.epoch:
            clock.advance(probing.EVERY)
            await anyio.lowlevel.checkpoint()
        assert client.hget(KEYS.meta, "e").decode() == log.epoch


async def test_what_cannot_be_opened_again_is_not_available_and_not_ended(
    redis: RedisServer, client: Client
) -> None:
    clock = ManualClock()
    async with parties(RedisBroker(redis.url, clock=clock)) as (one,):
        log = await one.make("a")
        client.config_set("maxmemory", 1)
        client.delete(KEYS.meta)
        with pytest.raises(BrokerUnavailable, match="channel 'a' cannot be opened again"):
            await one.broker.place(log, Now())
        one.broker.unfollow(log)
        async with ticking(clock, 0.01):
            following = asyncio.create_task(one.broker.follow(log))  # which goes on
            await turns(100)
            assert not following.done()
            client.config_set("maxmemory", 0)
            await following
        assert log.closed is None
        assert (await stored(one, log, b"x")).offset == 1


# Ended while this worker was away


async def test_an_end_that_was_not_heard_is_read_afterwards(redis: RedisServer) -> None:
    async with RedisProxy(redis).run() as proxy:
        brokers = RedisBroker(redis.url), RedisBroker(proxy.url)
        async with parties(*brokers) as (one, two):
            log = await one.make("a")
            other = await two.join("a")
            proxy.harm.lost = b""
            await one.broker.end(log, "failed")
            proxy.harm.lost = None
            proxy.reset()
            await two.until(lambda: other.closed is not None)
            assert other.closed == "failed"
            with pytest.raises(ChannelClosed):
                two.broker.append(other, b"x")


async def test_a_namesake_made_meanwhile_is_another_channel(redis: RedisServer) -> None:
    async with RedisProxy(redis).run() as proxy:
        brokers = RedisBroker(redis.url), RedisBroker(proxy.url)
        async with parties(*brokers) as (one, two):
            log = await one.make("a")
            other = await two.join("a")
            proxy.harm.lost = b""
            await one.broker.end(log, "ended")
            again = await one.make("a")
            await stored(one, again, b"x")
            proxy.harm.lost = None
            proxy.reset()
            await two.until(lambda: other.closed is not None)
            assert (other.closed, other.seen) == ("ended", [])


async def test_after_a_long_absence_a_channel_that_is_missing_has_ended(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis("--appendonly", "yes", "--appendfsync", "always")
    clock = ManualClock()
    broker = RedisBroker(redis.url, clock=clock, durable=True)
    async with parties(broker) as (one,):
        log, kept = await one.make("a"), await one.make("kept")
        with redis.client() as client:
            client.delete(KEYS.meta)
        redis.stop()
        while broker.healthy:
            await anyio.lowlevel.checkpoint()
        clock.advance(600)
        redis.start()
        while log.closed is None:
            clock.advance(1)
            await anyio.lowlevel.checkpoint()
        assert (log.closed, kept.closed) == ("ended", None)


async def test_a_channel_that_is_followed_no_more_is_not_found_missing(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tops = ManualClock(), Scripts.tops
    async with RedisProxy(redis).run() as proxy:
        broker = RedisBroker(proxy.url, clock=clock)
        async with parties(broker) as (one,):
            log, kept = await one.make("a"), await one.make("kept")
            client.delete(KEYS.meta)

            def ask(*arguments: Any) -> Any:
                asyncio.get_running_loop().call_soon(broker.unfollow, log)
                return tops(*arguments)

            monkeypatch.setattr(Scripts, "tops", ask)
            proxy.reset()
            while broker.serving.connection is not None:
                await anyio.lowlevel.checkpoint()
            clock.advance(600)  # so long that a missing channel has ended
            while broker.serving.connection is None:
                await anyio.lowlevel.checkpoint()
            assert tables(one)["followed"] == 1
            assert (log.closed, kept.closed) == (None, None)


async def test_a_message_to_a_channel_that_ended_unheard_is_refused(redis: RedisServer) -> None:
    async with (
        RedisProxy(redis).run() as proxy,
        parties(RedisBroker(redis.url), RedisBroker(proxy.url)) as (one, two),
    ):
        log = await one.make("a")
        other = await two.join("a")
        proxy.harm.lost = b"c"
        await one.broker.end(log, "failed")
        with pytest.raises(ChannelClosed, match="which has failed"):
            await stored(two, other, b"x")
        assert other.closed == "failed"
        with pytest.raises(ChannelClosed, match="which has failed"):
            two.broker.append(other, b"x")


async def test_a_window_that_was_never_opened_is_ended_without_a_word(redis: RedisServer) -> None:
    async with parties(RedisBroker(redis.url)) as (one,):
        await one.broker.end(Window(ChannelSpec(name="a", kind="site", size=1, max_bytes=1)), "x")


async def test_a_channel_that_redis_is_too_full_for_is_closed(
    redis: RedisServer, client: Client
) -> None:
    async with parties(RedisBroker(redis.url)) as (one,):
        window = Window(ChannelSpec(name="a", kind="site", size=1, max_bytes=1))
        client.config_set("maxmemory", 1)  # maybe before the connection begins
        try:
            with pytest.raises(BrokerUnavailable, match="OOM"):
                await one.broker.open(window)
        finally:
            client.config_set("maxmemory", 0)
        with pytest.raises(ChannelClosed):
            one.broker.append(window, b"x")


async def test_a_log_that_is_followed_no_more_while_it_is_read(redis: RedisServer) -> None:
    async with parties(RedisBroker(redis.url), RedisBroker(redis.url)) as (one, two):
        log = await one.make("a")
        window = Window(log.spec)
        async with anyio.create_task_group() as tasks:

            async def follow() -> None:
                with pytest.raises(ChannelClosed):
                    await two.broker.follow(window)

            tasks.start_soon(follow)
            while not tables(two)["followed"]:
                await anyio.lowlevel.checkpoint()
            two.broker.unfollow(window)
        first, second = Window(log.spec), Window(log.spec)
        await two.broker.follow(first)
        await two.broker.follow(second)  # in its place
        await stored(one, log, b"x")
        await two.until(lambda: second.top == 1)
        assert first.top == 0


async def test_a_server_that_can_never_serve_is_told_to_the_one_that_waits(
    redis: RedisServer, client: Client
) -> None:
    client.set(Keys().format, 99)
    broker = RedisBroker(redis.url)
    party = Party(broker)
    broker.prepare()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(broker.run)
        with pytest.raises(Unsuitable, match="found 99"):
            await broker.ready()
        sent = broker.append(Window(ChannelSpec(name="a", kind="site", size=1, max_bytes=1)), b"x")
        window = Window(ChannelSpec(name="b", kind="site", size=1, max_bytes=1))

        async def make() -> None:
            with pytest.raises(BrokerUnavailable, match="the server stops"):
                await broker.open(window)

        tasks.start_soon(make)
        await turns()
        broker.leave()
        await broker.hand_over()
        with pytest.raises(BrokerUnavailable, match="the server stops"):
            await position(window, sent)
        tasks.cancel_scope.cancel()
    assert tables(party)["waiting"] == 0
    client.delete(Keys().format)
    broker.prepare()
    async with party.running():
        await broker.ready()
        broker.leave()  # Redis is there, so all goes on
        assert (await stored(party, await party.make("c"), b"x")).offset == 1


def test_lines_of_a_kind_are_counted_for_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    notices = Notices(logging.getLogger("x"), clock.now)
    for number in range(3):
        notices.advise("change %s", "this")
        notices.warning("away: %s", number)
        notices.warning("slow: %s", number)
        for name in range(CHANNELS + 5):
            notices.lost(f"a{name}", 2, "why")
        notices.tell()
    lines = [record.message for record in caplog.records]
    assert lines[:3] == ["change this", "away: 0", "slow: 0"]
    assert lines[3] == "not stored: 2 messages of channel 'a0': why"
    assert lines[-1] == "not stored: 10 messages of channel '(others)': why"
    assert len(lines) == 3 + CHANNELS + 1
    caplog.clear()
    clock.advance(60)
    notices.tell()
    notices.warning("away: %s", "again")
    lines = [record.message for record in caplog.records]
    assert lines[0] == "not stored: 4 messages of channel 'a0': why"
    assert lines[-1] == "away: again (2 more like this since the last line)"
    caplog.clear()
    clock.advance(60)
    notices.tell()
    notices.lost("one", 1, "why")
    notices.tell()
    assert [record.message for record in caplog.records] == [
        "not stored: 1 message of channel 'one': why"
    ]


# Another server


async def test_a_promoted_replica_that_lagged_makes_every_reader_begin_anew(
    make_redis: MakeRedis,
) -> None:
    primary, replica = make_redis(with_port=True), make_redis(with_port=True)
    with primary.client() as first, replica.client() as second:
        second.replicaof("127.0.0.1", primary.port)
        async with RedisProxy(primary).run() as proxy:
            brokers = RedisBroker(proxy.url), RedisBroker(proxy.url)
            async with parties(*brokers) as (one, two):
                log = await one.make("a")
                other = await two.join("a")
                for data in (b"1", b"2", b"3"):
                    third = await stored(one, log, data)
                while not first.wait(1, 1000):
                    pass
                second.replicaof("NO", "ONE")
                fourth = await stored(one, log, b"4")
                await two.until(lambda: other.top == 4)
                proxy.server = replica
                proxy.reset()
                for party, window in ((one, log), (two, other)):  # nothing is published
                    await party.until(lambda w=window: w.epoch != third.epoch)  # type: ignore[misc]
                    await party.until(lambda w=window: w.top == 3)  # type: ignore[misc]
                assert log.epoch == other.epoch
                assert await two.broker.place(other, fourth) == Full()
                assert await two.broker.place(other, third) == Full()
                assert await two.broker.place(other, Last(2)) == Placed(1, other.epoch)
                assert await stored(two, other, b"5") == Position(log.epoch, 4)


async def test_a_probe_that_does_not_come_back_has_the_primary_found_anew(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probing, "PATIENCE", 0.1)
    clock = ManualClock()
    async with RedisProxy(redis).run() as proxy:
        broker = RedisBroker(proxy.url, clock=clock)
        async with parties(broker) as (one,):
            assert broker.last_probe == float("inf")
            await one.make("a")
            while not broker.healthy:
                await anyio.lowlevel.checkpoint()
            assert proxy.links == 1
            proxy.harm.lost = b"p"
            while proxy.links == 1:
                clock.advance(probing.EVERY)
                await anyio.lowlevel.checkpoint()
            proxy.harm.lost = None
            while not broker.healthy:
                clock.advance(0.1)
                await anyio.lowlevel.checkpoint()
    assert "a probe did not come back within 0.1 s" in caplog.text


async def test_a_subscription_that_redis_does_not_know_of_ends_the_connection(
    redis: RedisServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    async with RedisProxy(redis).run() as proxy:
        broker = RedisBroker(proxy.url, clock=clock)
        async with parties(broker) as (one,):
            await one.make("a")
            broker.inbox.topic += "-of-another-node"
            while proxy.links == 1:
                clock.advance(probing.EVERY)
                await anyio.lowlevel.checkpoint()
    assert "Redis does not know of this worker's subscriptions" in caplog.text


async def test_a_lost_frame_is_found_missing_where_nothing_follows(redis: RedisServer) -> None:
    clock = ManualClock()
    async with RedisProxy(redis).run() as proxy:
        brokers = RedisBroker(redis.url), RedisBroker(proxy.url, clock=clock)
        async with parties(*brokers) as (one, two):
            log = await one.make("a")
            other = await two.join("a")
            proxy.harm.lost = b"m"
            await stored(one, log, b"x")
            while not other.top:
                clock.advance(probing.EVERY)
                await anyio.lowlevel.checkpoint()
            assert (other.seen, proxy.links) == ([b"x"], 1)


# Full, slow, away


async def test_a_full_redis_refuses_messages_and_goes_on_to_be_read(
    redis: RedisServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    async with parties(RedisBroker(redis.url, clock=clock)) as (one,):
        log = await one.make("a")
        place = await stored(one, log, b"x")
        client.config_set("maxmemory", 1)
        try:
            for _ in range(3):
                with pytest.raises(BrokerUnavailable, match="OOM") as refused:
                    await stored(one, log, b"y")
                assert not refused.value.maybe_stored
            assert await one.broker.place(log, place) == Placed(1, log.epoch)
            assert await one.broker.recover(log, 0, 100) == [Message(1, b"x")]
            await one.broker.end(await one.join("a"), "ended")
        finally:
            client.config_set("maxmemory", 0)
        while "not stored: " not in caplog.text:
            clock.advance(1)
            await anyio.lowlevel.checkpoint()
    lines = [one.message for one in caplog.records if "not stored: " in one.message]
    assert len(lines) == 1
    assert lines[0].startswith("not stored: 3 messages of channel 'a': ")
    assert "OOM" in lines[0]


async def test_what_redis_does_not_take_in_time_is_given_up_and_counted(
    make_redis: MakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    redis = make_redis()
    clock = ManualClock()
    async with parties(RedisBroker(redis.url, clock=clock, timeout=0.2)) as (one,):
        log = await one.make("a", size=2000)
        await stored(one, log, b"x")
        redis.send(signal.SIGSTOP)
        first = one.broker.append(log, b"x")
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        rest = [one.broker.append(log, b"x") for _ in range(500)]
        early = one.broker.append(Window(log.spec), b"x")
        outcomes = []
        for _ in range(70):
            clock.advance(1)
            await anyio.lowlevel.checkpoint()
        for sent in (first, *rest, early):
            assert callable(sent)
            with pytest.raises(BrokerUnavailable, match="Redis was away for 60 s") as gone:
                await sent()
            outcomes.append(gone.value.maybe_stored)
        assert outcomes == [True, *(False for _ in rest), False]
        assert tables(one)["waiting"] == 0
        redis.send(signal.SIGCONT)
        while not isinstance(await tried(one, log), Position):
            clock.advance(1)
        await one.until(lambda: log.top >= 2)
        while tables(one)["lost"]:
            clock.advance(1)
            await anyio.lowlevel.checkpoint()
    lines = [one.message for one in caplog.records if one.levelname == "ERROR"]
    assert [line.partition(":")[2].partition(": the")[0] for line in lines] == [
        " 502 messages of channel 'a'"
    ]


async def tried(party: Party, window: Window) -> Position | BrokerUnavailable:
    try:
        return await stored(party, window, b"again")
    except BrokerUnavailable as error:
        return error


async def test_what_was_published_long_before_the_start_is_not_given_up(
    redis: RedisServer,
) -> None:
    clock = ManualClock()
    party = Party(RedisBroker(redis.url, clock=clock))
    window = Window(ChannelSpec(name="a", kind="site", size=9, max_bytes=99))
    waiting = party.broker.append(window, b"x")
    clock.advance(1000)
    async with party.running():
        await turns(20)
        clock.advance(2)
        await turns(20)
        await party.broker.open(window)
        assert (await position(window, waiting)).offset == 1


async def test_a_channel_is_opened_and_followed_however_often_the_connection_ends(
    redis: RedisServer,
) -> None:
    async with RedisProxy(redis).run() as proxy, parties(RedisBroker(proxy.url)) as (one,):
        for cut in range(1, 500, 50):
            proxy.harm.cut = cut
            window = await one.make(f"a{cut}")
            assert (await stored(one, window, b"x")).offset == 1
            await one.until(lambda w=window: w.top == 1)  # type: ignore[misc]
        assert proxy.links > 5


async def test_it_runs_again_in_another_loop(redis: RedisServer) -> None:
    party = Party(RedisBroker(redis.url))

    async def serve(name: str) -> None:
        async with party.running():
            window = await party.make(name)
            assert (await stored(party, window, b"x")).offset == 1
            party.broker.unfollow(window)

    for name in ("a", "b"):
        await anyio.to_thread.run_sync(lambda n=name: asyncio.run(serve(n)))  # type: ignore[misc]


@pytest.mark.parametrize("hurried", [False, True])
async def test_what_is_left_at_the_stop_is_told_once(
    make_redis: MakeRedis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    hurried: bool,
) -> None:
    monkeypatch.setattr("asgi_comet.brokers.redis.broker.PATIENCE_AT_STOP", 0.1)
    redis = make_redis()
    party = Party(RedisBroker(redis.url))
    async with party.running():
        window = await party.make("a")
        redis.send(signal.SIGSTOP)
        sent = [party.broker.append(window, b"x") for _ in range(300)]
        await anyio.lowlevel.checkpoint()
        if hurried:
            party.broker.draining = True
            with anyio.CancelScope() as scope:
                scope.cancel()
                await party.broker.hand_over()
    for one in sent:
        with pytest.raises(BrokerUnavailable, match="the server stops"):
            await position(window, one)
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        "300 messages were not stored at the stop"
    ]
    assert tables(party)["waiting"] == 0


# Bounds


async def test_windows_together_hold_so_many_bytes_at_most(redis: RedisServer) -> None:
    async with parties(RedisBroker(redis.url, window_bytes=1000)) as (one,):
        logs = [await one.make(name) for name in "abc"]
        for log in logs:
            for _ in range(3):
                await stored(one, log, b"x" * 100)
        logs[0].read_at = 7  # the others were never read
        for _ in range(4):
            place = await stored(one, logs[0], b"x" * 100)
        await one.until(lambda: logs[0].top == 7)
        assert [log.drops for log in logs] == [0, 1, 0]
        assert tables(one)["bytes"] == sum(log.held_bytes for log in logs) == 1000
        assert (logs[1].first, logs[1].top) == (4, 3)
        run = await one.broker.recover(logs[1], 0, 1000)
        assert run is not None
        assert [message.offset for message in run] == [1, 2, 3]
        assert await one.broker.place(logs[1], Last(2)) == Placed(1, logs[1].epoch)
        assert place.offset == 7


async def test_all_tables_are_empty_again(redis: RedisServer) -> None:
    async with parties(RedisBroker(redis.url), RedisBroker(redis.url)) as (one, two):
        logs = [await one.make(f"a{number}") for number in range(5)]
        others = [await two.join(f"a{number}") for number in range(5)]
        for log in logs:
            await stored(one, log, b"x")
        for log in logs[:3]:
            await one.broker.end(log, "ended")
        for other in others[:3]:
            await two.until(lambda w=other: w.closed is not None)  # type: ignore[misc]
        for party, windows in ((one, logs), (two, others)):
            for window in windows:
                party.broker.unfollow(window)
        del logs, others, log, other, window, windows
        await turns()  # what is under way comes to its end
        gc.collect()
        assert tables(one) == tables(two) == dict.fromkeys(tables(one), 0)


async def test_a_kind_that_is_not_carried_is_refused(redis: RedisServer) -> None:
    async with parties(RedisBroker(redis.url)) as (one,):
        window = Window(ChannelSpec(name="a", kind="process", size=1, max_bytes=1))
        for ask in (one.broker.open, one.broker.follow):
            with pytest.raises(InvalidDeclaration, match="kind site or newest on Redis, got kind"):
                await ask(window)
        assert tables(one)["followed"] == 0


async def test_a_start_that_is_cancelled_leaves_no_connection(
    redis: RedisServer, client: Client
) -> None:
    count = len(client.client_list())
    for count_of_turns in range(40):
        party = Party(RedisBroker(redis.url))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(party.broker.run)
            for _ in range(count_of_turns):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    gc.collect()  # a socket that was left open is an error
    while len(client.client_list()) > count:
        await anyio.lowlevel.checkpoint()


# Ahead, and races


async def test_a_client_that_comes_from_a_faster_worker_is_not_told_full(
    redis: RedisServer,
) -> None:
    async with (
        RedisProxy(redis).run() as proxy,
        parties(RedisBroker(redis.url), RedisBroker(proxy.url)) as (one, two),
    ):
        log = await one.make("a")
        other = await two.join("a")
        proxy.harm.lost = b"m"  # its frames never come
        for number in range(1, 50):
            place = await stored(one, log, b"%d" % number)
            assert await two.broker.place(other, place) == Placed(number, other.epoch)
            assert other.top == number
        await one.until(lambda: log.top == 49)
        assert other.seen == log.seen


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"timeout": 0}, "timeout to be above 0 and finite, got 0"),
        ({"timeout": math.inf}, "timeout to be above 0 and finite, got inf"),
        ({"patience": 300}, "patience to be above 0 and below 300 seconds, got 300"),
        ({"window_bytes": -1}, "window_bytes to be above 0, got -1"),
        ({"history_ttl": 0.0}, "history_ttl to be above 0 and finite, got 0.0"),
        ({"partitions": 0}, "partitions to be 1 to 4096, got 0"),
        ({"prefix": "a*"}, "prefix to be 1 to 100 characters .*, got 'a\\*'"),
    ],
)
def test_figures_are_checked(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^expected {expected}"):
        RedisBroker("redis://", **arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"timeout": "2"}, "timeout to be a number of seconds, got '2'"),
        ({"timeout": True}, "timeout to be a number of seconds, got True"),
        ({"patience": "60"}, "patience to be a number of seconds, got '60'"),
        ({"history_ttl": "1h"}, "history_ttl to be a number of seconds, got '1h'"),
        ({"window_bytes": "256MB"}, "window_bytes to be a whole number of bytes, got '256MB'"),
        ({"buffer_bytes": True}, "buffer_bytes to be a whole number of bytes, got True"),
        ({"durable": "yes"}, "durable to be True or False, got 'yes'"),
        ({"partitions": "64"}, "partitions to be a whole number, got '64'"),
        ({"partitions": 2.5}, "partitions to be a whole number, got 2.5"),
        ({"partitions": True}, "partitions to be a whole number, got True"),
        ({"prefix": 3}, "prefix to be a text, got 3"),
        ({"url": 7}, "url to be the URL of a Redis, got int"),
    ],
)
def test_the_types_of_figures_are_checked(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(TypeError, match=f"^expected {expected}"):
        RedisBroker(**{"url": "redis://", **arguments})


async def test_a_history_may_live_shorter_than_its_channel(
    redis: RedisServer, client: Client
) -> None:
    async with parties(RedisBroker(redis.url, history_ttl=100, partitions=2, prefix="p")) as (one,):
        window = await one.make("a")
        await stored(one, window, b"x")
        keys = Keys("p", 2).site("a")
        assert 90 < client.ttl(keys.log) <= 100
        assert client.ttl(keys.meta) > 1000


@pytest.mark.slow
async def test_races_of_followers_and_a_publisher(redis: RedisServer) -> None:
    """5,000 times on each event loop: what is followed while another publishes has no gap."""
    count, rounds = 200, 25
    async with parties(RedisBroker(redis.url), RedisBroker(redis.url)) as (one, two):
        logs = [await one.make(f"a{number}", size=1000) for number in range(count)]
        specs = [log.spec for log in logs]
        for turn in range(rounds):
            windows = [Window(spec) for spec in specs]
            sent = [one.broker.append(log, b"%d" % (2 * turn)) for log in logs]
            async with anyio.create_task_group() as tasks:
                for window in windows:
                    tasks.start_soon(two.broker.follow, window)
                await anyio.lowlevel.checkpoint()
                sent += [one.broker.append(log, b"%d" % (2 * turn + 1)) for log in logs]
            for log, stored_ in zip(logs + logs, sent, strict=True):
                await position(log, stored_)
            top = 2 * turn + 2
            for window in windows:
                await two.until(lambda w=window, t=top: w.top == t)  # type: ignore[misc]
                assert window.seen == [b"%d" % number for number in range(top)]
                two.broker.unfollow(window)


# What rarely happens


class Meddler(Party):
    """A worker that does something at the first message that comes for a window."""

    def __init__(self, broker: RedisBroker, meddle: Callable[[Any], None]) -> None:
        super().__init__(broker)
        self.meddle = meddle

    def received(self, log: Any, epoch: str, first: int, run: Any) -> Any:
        received = super().received(log, epoch, first, run)
        meddle, self.meddle = self.meddle, lambda _: None
        meddle(log)
        return received

    def moved(self, log: Any, epoch: str, first: int, began: int) -> Any:
        new = Window(log.spec)
        new.reset(epoch, first)
        return new


async def test_an_epoch_that_changes_between_two_pages_of_the_first_reading(
    redis: RedisServer, client: Client
) -> None:
    two = Meddler(RedisBroker(redis.url), lambda _: client.hset(KEYS.meta, "e", "other"))
    async with parties(RedisBroker(redis.url)) as (one,), running([two]):
        log = await one.make("a", size=1000)
        for stored_ in [one.broker.append(log, b"x") for _ in range(600)]:
            await position(log, stored_)
        other = await two.join("a")  # of which another window is the one to read now
        assert (await two.broker.place(other, Now())) == Placed(600, "other")


async def test_a_log_that_is_followed_no_more_at_its_first_page(redis: RedisServer) -> None:
    broker = RedisBroker(redis.url)
    two = Meddler(broker, broker.unfollow)
    async with parties(RedisBroker(redis.url)) as (one,), running([two]):
        log = await one.make("a")
        await stored(one, log, b"x")
        with pytest.raises(ChannelClosed):
            await two.join("a")
        assert tables(two)["followed"] == 0


async def test_what_is_asked_for_before_the_first_connection(make_redis: MakeRedis) -> None:
    redis = make_redis()
    redis.stop()
    async with parties(RedisBroker(redis.url)) as (one,):
        logs = [Window(ChannelSpec(name=name, kind="site", size=9, max_bytes=99)) for name in "abc"]

        async def dropped() -> None:
            with pytest.raises(ChannelClosed):
                await one.broker.follow(logs[1])

        async def cancelled() -> None:
            with scope:
                await one.broker.follow(logs[2])

        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            for log in logs:
                tasks.start_soon(one.broker.open, log)
            await turns()
            tasks.start_soon(one.broker.follow, logs[0])
            tasks.start_soon(dropped)
            tasks.start_soon(cancelled)
            await turns()
            one.broker.unfollow(logs[1])
            scope.cancel()
            redis.start()
        await stored(one, logs[0], b"x")
        await one.until(lambda: logs[0].top == 1)


async def test_a_follower_that_is_cancelled_while_its_page_is_under_way(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    async with parties(RedisBroker(redis.url, timeout=20)) as (one,):
        log = await one.make("a")
        spec = ChannelSpec(name="b", kind="site", size=9, max_bytes=99)
        redis.send(signal.SIGSTOP)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.broker.open, Window(spec))
            tasks.start_soon(one.broker.follow, Window(log.spec))
            await turns()
            tasks.cancel_scope.cancel()
        redis.send(signal.SIGCONT)
        assert (await stored(one, log, b"x")).offset == 1


async def test_a_log_that_is_followed_no_more_while_it_is_checked(make_redis: MakeRedis) -> None:
    redis = make_redis()
    clock = ManualClock()
    async with parties(RedisBroker(redis.url, clock=clock, timeout=20)) as (one,):
        log = await one.make("a")
        clock.advance(60)  # from now on nothing is heard of it
        for _ in range(5):
            await one.broker.find("a")
        redis.send(signal.SIGSTOP)
        clock.advance(60)
        await turns()
        one.broker.unfollow(log)
        redis.send(signal.SIGCONT)
        assert await one.broker.find("a") is not None
        assert log.closed is None


async def test_an_end_of_which_the_last_words_cannot_be_read_is_an_end(
    redis: RedisServer, client: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, parties(RedisBroker(proxy.url)) as (one,):
        for turn in range(25):
            log = await one.make(f"a{turn}")
            await stored(one, log, b"x")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.broker.end, log, "ended")
                await turns(turn)
                if turn % 2:
                    one.broker.unfollow(log)
                else:
                    proxy.reset()
            assert client.hget(SCRIPTS.keys.site(log.name).meta, "c") == b"ended"


async def test_an_end_that_redis_refuses_is_not_waited_for(
    redis: RedisServer, client: Client
) -> None:
    async with parties(RedisBroker(redis.url)) as (one,):
        log = await one.make("a", reclaim=True)
        client.hset(SCRIPTS.keys.site("a").meta, "x", "another:1")
        with anyio.fail_after(PATIENCE):
            await one.broker.end(log, "ended")
        assert log.closed is None
        assert await one.broker.find("a") is not None


async def test_a_window_that_is_larger_than_the_bound_is_dropped(redis: RedisServer) -> None:
    async with parties(RedisBroker(redis.url, window_bytes=100)) as (one,):
        log = await one.make("a")
        await stored(one, log, b"x" * 200)
        await one.until(lambda: log.drops == 1)
        assert await one.broker.recover(log, 0, 1000) == [Message(1, b"x" * 200)]


async def test_a_message_to_a_window_that_is_followed_no_more_opens_the_channel_again(
    redis: RedisServer, client: Client
) -> None:
    async with parties(RedisBroker(redis.url)) as (one,):
        log = await one.make("a")
        one.broker.unfollow(log)
        client.delete(KEYS.meta)
        assert (await stored(one, log, b"x")).offset == 1


async def test_a_key_of_another_program_is_not_overwritten(
    redis: RedisServer, client: Client
) -> None:
    async with parties(RedisBroker(redis.url)) as (one,):
        log = await one.make("a")
        client.set(KEYS.log, "mine")
        with pytest.raises(BrokerUnavailable, match="is not ours"):
            await stored(one, log, b"x")
        assert client.get(KEYS.log) == b"mine"


async def test_a_newest_channel_skips_what_it_has_missed(redis: RedisServer) -> None:
    async with RedisProxy(redis).run() as proxy:
        brokers = RedisBroker(redis.url), RedisBroker(proxy.url)
        async with parties(*brokers) as (one, two):
            spec = ChannelSpec(name="a", kind="newest", size=1, max_bytes=99, adopt=True)
            log, other = Window(spec), Window(spec)
            for party, window in ((one, log), (two, other)):
                await party.broker.open(window)
                await party.broker.follow(window)
            proxy.harm.lost = b"m"
            for number in range(5):
                place = await stored(one, log, b"%d" % number)
            assert await two.broker.place(other, place) == Placed(5, other.epoch)
            assert other.seen == [b"4"]


async def test_a_namesake_of_which_no_frame_came_is_another_channel(redis: RedisServer) -> None:
    async with RedisProxy(redis).run() as proxy:
        brokers = RedisBroker(redis.url), RedisBroker(proxy.url)
        async with parties(*brokers) as (one, two):
            log = await one.make("a")
            other = await two.join("a")
            proxy.harm.lost = b""
            await one.broker.end(log, "ended")
            await one.make("a")
            assert await two.broker.place(other, Now()) == Closed("ended")


async def test_what_a_replica_refuses_waits_for_a_primary(
    make_redis: MakeRedis, unused_port: int
) -> None:
    redis = make_redis()
    async with parties(RedisBroker(redis.url)) as (one,):
        log = await one.make("a")
        with redis.client() as client:
            client.replicaof("127.0.0.1", unused_port)
            sent = one.broker.append(log, b"x")
            assert isinstance(one.broker, RedisBroker)
            while one.broker.serving.connection is not None:
                await anyio.lowlevel.checkpoint()
            client.replicaof("NO", "ONE")
        assert (await position(log, sent)).offset == 1
        await one.until(lambda: log.seen == [b"x"])


async def test_an_end_that_is_under_way_is_given_up_if_the_server_stops(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    async with parties(RedisBroker(redis.url)) as (one,):
        log = await one.make("a")
        redis.send(signal.SIGSTOP)

        async def end() -> None:
            with pytest.raises(BrokerUnavailable, match="the server stops"):
                await one.broker.end(log, "ended")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            await turns()
            redis.stop()
            assert isinstance(one.broker, RedisBroker)
            while one.broker.serving.connection is not None:
                await anyio.lowlevel.checkpoint()
            one.broker.leave()


async def test_after_a_fork_nothing_waits_and_all_begins_anew(redis: RedisServer) -> None:
    party = Party(RedisBroker(redis.url))
    early = Window(ChannelSpec(name="a", kind="site", size=9, max_bytes=99))
    party.broker.append(early, b"of the process before")
    assert tables(party)["waiting"] == 1
    party.broker.forked()
    assert tables(party)["waiting"] == 0
    async with party.running():
        window = await party.make("a")
        assert (await stored(party, window, b"x")).offset == 1


async def test_a_connection_that_ends_while_channels_are_opened_again(
    redis: RedisServer, client: Client
) -> None:
    async with RedisProxy(redis).run() as proxy:
        clock = ManualClock()
        # The clock is faster than Redis: not so fast that the last message is given up.
        broker = RedisBroker(proxy.url, clock=clock, patience=299)
        async with parties(broker) as (one,):
            log = await one.make("a")
            cuts, cut = 0, 0

            async def emptied(cut: int | None) -> int:
                epoch, begun = log.epoch, proxy.passed
                client.flushall()
                proxy.harm.cut = cut
                proxy.reset()
                while log.epoch == epoch or client.hget(KEYS.meta, "e") is None:
                    clock.advance(0.1)
                    await turns()
                return proxy.passed - begun

            whole = await emptied(None)
            for cut in range(whole - 1000, whole, 8):
                links = proxy.links
                await emptied(cut)
                cuts += proxy.links > links + 1
            proxy.harm.cut = None
            assert cuts
            assert log.closed is None
            async with ticking(clock, 0.01):  # the last cut may be still to come
                place = await stored(one, log, b"x")
            assert place.offset == 1


async def test_channels_are_opened_again_though_redis_did_not_answer_at_first(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, opening, links = ManualClock(), Scripts.open, list[int]()
    async with RedisProxy(redis).run() as proxy:
        broker = RedisBroker(proxy.url, clock=clock, timeout=1.0)
        broker.only_publishes = True  # so that nothing but the announcement opens a channel again
        async with parties(broker):
            await broker.open(Window(ChannelSpec(name="a", kind="site", size=9, max_bytes=99)))

            def hold_back(*arguments: Any, **more: Any) -> Any:
                monkeypatch.setattr(Scripts, "open", opening)
                links.append(proxy.links)
                proxy.harm.deaf = True
                return opening(*arguments, **more)

            monkeypatch.setattr(Scripts, "open", hold_back)
            client.flushall()
            proxy.reset()
            while not links or proxy.links == links[0]:
                clock.advance(0.1)
                await anyio.lowlevel.checkpoint()
            proxy.harm.deaf = False  # for the next connection
            while broker.serving.connection is None:
                clock.advance(0.1)
                await anyio.lowlevel.checkpoint()
            assert client.hget(KEYS.meta, "e") is not None
