"""What the broker on Redis does when connections end, or Redis does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from asgi_comet import BrokerUnavailable
from asgi_comet.brokers.logs import ChannelSpec, Unsuitable
from asgi_comet.brokers.redis.address import parse_address
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.brokers.redis.calls import Call, Group, Item, Log
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.dialing import dial
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.replicas import Replica
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.core.messages import Now
from asgi_comet.position import Position
from asgi_comet.testing.party import Party, position
from asgi_comet.testing.window import Window
from tests.kit.redis import Client, RedisServer, run
from tests.kit.redis_proxy import RedisProxy

pytestmark = pytest.mark.anyio

SCRIPTS = Scripts(Keys())


@asynccontextmanager
async def parties(*urls: str, **arguments: Any) -> AsyncIterator[list[Party]]:
    found = [Party(RedisBroker(url, **arguments)) for url in urls]
    async with anyio.create_task_group() as tasks:
        stop = anyio.Event()

        async def serve(party: Party) -> None:
            async with party.running():
                await stop.wait()

        for party in found:
            tasks.start_soon(serve, party)
        yield found
        stop.set()


async def test_connections_that_are_cut_anywhere_lose_and_double_nothing(
    redis: RedisServer, client: Client
) -> None:
    choose = random.Random(3)
    async with RedisProxy(redis).run() as proxy, parties(proxy.url, redis.url) as (one, two):
        log = await two.make("a", size=10_000)
        other = await one.join("a")
        sent: list[Any] = []
        links = 0
        while proxy.links < 12:
            writer, window = ((one, other), (two, log))[len(sent) % 2]
            sent.append(writer.broker.append(window, b"%d" % len(sent)))
            if proxy.links != links:
                links, proxy.harm.cut = proxy.links, choose.randrange(1, 20_000)
            await position(log, sent[max(len(sent) - 20, 0)])
        proxy.harm.cut = None
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        positions = [await position(log, stored) for stored in sent]
        assert sorted(place.offset for place in positions) == list(range(1, len(sent) + 1))
        for party, window in ((one, other), (two, log)):
            await party.until(lambda w=window: w.top == len(sent))  # type: ignore[misc]
        expected = [b""] * len(sent)
        for number, place in enumerate(positions):
            expected[place.offset - 1] = b"%d" % number
        assert log.seen == other.seen == expected
        assert other.epoch == log.epoch


async def test_a_frame_that_was_lost_is_read_before_the_next_is_taken_in(
    redis: RedisServer, client: Client
) -> None:
    async with parties(redis.url) as (one,):
        window = await one.make("a")
        log = Log(SCRIPTS.keys.site("a"), "S", making_of(client), 100, 2**20)
        for number in range(1, 10):
            lost = SCRIPTS.append("lost", number, [Group(log, [Item(b"lost %d" % number)])])
            quiet = [b"RPUSHX" if part == "PUBLISH" else part for part in lost.command]
            run(client, Call(tuple(quiet), lost.read, lost.script))
            run(client, SCRIPTS.append("told", number, [Group(log, [Item(b"told %d" % number)])]))
            await one.until(lambda n=number: window.top == 2 * n)  # type: ignore[misc]
        assert window.seen == [
            b"%s %d" % (how, number) for number in range(1, 10) for how in (b"lost", b"told")
        ]
        assert one.cuts == 0


def making_of(client: Client) -> str:
    record = run(client, SCRIPTS.find(SCRIPTS.keys.site("a")))
    return str(record.making)


async def test_another_epoch_is_read_when_its_frame_comes(
    redis: RedisServer, client: Client
) -> None:
    async with parties(redis.url) as (one,):
        window = await one.make("a")
        await position(window, one.broker.append(window, b"x"))
        log = Log(SCRIPTS.keys.site("a"), "S", making_of(client), 100, 2**20)
        run(client, SCRIPTS.renew(log, "renewed"))
        await one.until(lambda: window.epoch == "renewed" and window.top == 1)
        client.hset(SCRIPTS.keys.lineage, mapping={"id": "other", "run": "other"})
        stored = await position(window, one.broker.append(window, b"y"))
        await one.until(lambda: window.epoch == stored.epoch and window.top == 2)
        assert stored.epoch != "renewed"


async def test_a_window_that_missed_too_much_begins_anew(redis: RedisServer) -> None:
    async with RedisProxy(redis).run() as proxy, parties(redis.url, proxy.url) as (one, two):
        log = await one.make("a", size=3)
        other = await two.join("a")
        proxy.harm.mute = True
        for number in range(9):
            await position(log, one.broker.append(log, b"%d" % number))
        proxy.harm.cut, proxy.harm.mute = 0, False
        await position(log, one.broker.append(log, b"9"))  # its frame ends the connection
        proxy.harm.cut = None
        await two.until(lambda: other.top == 10)
        assert (other.first, two.cuts, other.seen) == (8, 1, [b"7", b"8", b"9"])


@pytest.mark.parametrize("durable", [True, False])
async def test_readers_are_told_when_redis_was_started_again(
    make_redis: Callable[..., RedisServer], durable: bool
) -> None:
    redis = make_redis("--appendonly", "yes", "--appendfsync", "always")
    async with parties(redis.url, durable=durable) as (one,):
        log = await one.make("a")
        before = await position(log, one.broker.append(log, b"x"))
        redis.stop()
        stored = one.broker.append(log, b"y")
        redis.start()
        after = await position(log, stored)
        assert after.offset == 2
        assert (after.epoch == before.epoch) is durable
        await one.until(lambda: log.top == 2)
        assert log.epoch == after.epoch


async def test_without_redis_questions_fail_and_messages_wait(
    make_redis: Callable[..., RedisServer],
) -> None:
    redis = make_redis()
    async with parties(redis.url, timeout=0.1, buffer_bytes=2) as (one,):
        log = await one.make("a")
        redis.stop()
        kept = [one.broker.append(log, b"x") for _ in range(2)]
        with pytest.raises(BrokerUnavailable, match=r"buffer is full: .* 2 of 2 bytes, and one"):
            one.broker.append(log, b"x")
        with pytest.raises(BrokerUnavailable):
            await one.broker.place(log, Now())
        with pytest.raises(BrokerUnavailable, match=r"buffer is full: .* 2 of 2 bytes, and one"):
            one.broker.append(Window(log.spec), b"x")
        redis.start()
        again = [await position(log, stored) for stored in kept]  # it was started empty
        assert again == [Position(again[0].epoch, 1), Position(again[0].epoch, 2)]
        await one.until(lambda: log.epoch == again[0].epoch and log.top == 2)


async def test_the_password_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    broker = RedisBroker("redis://:secret@127.0.0.1:1", timeout=0.1)
    async with anyio.create_task_group() as tasks:
        party = Party(broker)
        tasks.start_soon(broker.run)
        with pytest.raises(BrokerUnavailable, match="no connection to redis") as refused:
            await party.join("a")
        tasks.cancel_scope.cancel()
    assert "secret" not in f"{broker!r} {refused.value} {caplog.text}"
    assert "***" in caplog.text


async def test_who_asks_while_a_page_is_under_way_gets_what_was_stored_since(
    redis: RedisServer, client: Client
) -> None:
    log = Log(SCRIPTS.keys.site("a"), "S", "-", 100, 2**20)
    run(client, SCRIPTS.open(log, "e"))
    run(client, SCRIPTS.follow(log.keys, Now()))  # Redis knows the script
    party = Party(RedisBroker(redis.url))
    window = Window(ChannelSpec(name="a", kind="site", size=100, max_bytes=2**20))
    replica = Replica(window, log.keys, party, SCRIPTS, lambda *_: False)
    connection = Connection(await dial(parse_address(redis.url), 20.0), lambda *_: None)
    task = asyncio.create_task(connection.run())
    seen: list[int] = []
    replica.catch_up(connection, lambda _: seen.append(window.top))
    await asyncio.sleep(0)  # it is written
    client.ping()  # and read by Redis
    run(client, SCRIPTS.append("W", 1, [Group(log, [Item(b"x")])]))
    replica.catch_up(connection, lambda _: seen.append(window.top))
    await connection.send(Call(("PING",), bytes))
    await connection.send(Call(("PING",), bytes))
    assert seen == [1, 1]
    replica.catch_up(connection, lambda error: seen.append(-1 if error else 0))
    connection.close("cut")
    with pytest.raises(BrokerUnavailable):
        await task
    assert seen == [1, 1, -1]


def test_trio_is_refused_in_one_sentence() -> None:
    with pytest.raises(Unsuitable, match=r"expected asyncio or uvloop .*, got trio"):
        anyio.run(RedisBroker("redis://").run, backend="trio")
