"""Channels with `max_age` on Redis: Redis decides, and windows follow on their own clocks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest

from asgi_comet import SITE, Channel, Comet, Settings
from asgi_comet.brokers.logs import Full, Placed
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.core.messages import Message
from asgi_comet.position import Position
from asgi_comet.testing import ManualClock
from asgi_comet.testing.party import Party, position
from asgi_comet.testing.window import Window
from tests.kit.clients import Client as Page
from tests.kit.clients import PollClient, SseClient, WebSocketClient
from tests.kit.redis import Client, RedisServer
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY, application

pytestmark = pytest.mark.anyio

HOUR = 3600
KEYS = Keys().site("chat")


@asynccontextmanager
async def run(*parties: Party) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        stop = anyio.Event()

        async def serve(party: Party) -> None:
            async with party.running():
                await stop.wait()

        for party in parties:
            tasks.start_soon(serve, party)
        yield
        stop.set()


def grow_old(client: Client, count: int, seconds: int) -> None:
    """Have Redis take the oldest messages for that old."""
    for number, row in enumerate(client.lrange(KEYS.log, 0, count - 1)):
        at, _, data = row.partition(b" ")
        client.lset(KEYS.log, number, b"%d %s" % (int(at) - seconds * 1000, data))


async def publish(party: Party, window: Window, *texts: str) -> list[Position]:
    stored = [party.broker.append(window, text.encode()) for text in texts]
    return [await position(window, place) for place in stored]


async def test_a_message_that_is_too_old_is_dropped_wherever_it_is_asked_for(
    redis: RedisServer, client: Client
) -> None:
    one, two, three = (Party(RedisBroker(redis.url)) for _ in range(3))
    async with run(one, two, three):
        log = await one.make("chat", max_age=HOUR)
        first, second, third = await publish(one, log, "a", "b", "c")
        window = await two.join("chat")
        assert window.seen == [b"a", b"b", b"c"]
        grow_old(client, 2, HOUR + 60)
        assert await two.broker.place(window, first) == Full()
        assert await two.broker.recover(window, 0, 100) is None
        assert await two.broker.recover(window, first.offset, 100) is None
        assert await two.broker.place(window, second) == Placed(2, window.epoch)
        assert await two.broker.recover(window, 2, 100) == [Message(3, b"c")]
        late = await three.join("chat")
        assert (late.first, late.top, late.seen) == (3, 3, [b"c"])
        grow_old(client, 1, HOUR + 60)
        await publish(one, log, "d")
        await three.until(lambda: late.top == 4)
        assert client.lrange(KEYS.log, 0, -1)[0].endswith(b" d")
        assert await three.broker.place(late, second) == Full()
        assert await three.broker.place(late, third) == Placed(3, late.epoch)


async def test_a_window_drops_by_its_own_clock_and_redis_has_the_last_word(
    redis: RedisServer,
) -> None:
    clock = ManualClock()
    one, two = Party(RedisBroker(redis.url)), Party(RedisBroker(redis.url), clock)
    async with run(one, two):
        log = await one.make("chat", max_age=HOUR)
        window = await two.join("chat")
        await publish(one, log, "a")
        await two.until(lambda: window.top == 1)
        clock.advance(HOUR / 2)
        await publish(one, log, "b")
        await two.until(lambda: window.top == 2)
        clock.advance(HOUR / 2)
        assert window.first == 1  # an hour after its frame came
        clock.advance(1)
        assert window.first == 2
        assert await two.broker.recover(window, 0, 1) == [Message(1, b"a")]  # by the clock of Redis


async def test_messages_that_a_window_begins_with_keep_their_age(
    redis: RedisServer, client: Client
) -> None:
    clock = ManualClock()
    one, two = Party(RedisBroker(redis.url)), Party(RedisBroker(redis.url), clock)
    async with run(one, two):
        log = await one.make("chat", max_age=HOUR)
        await publish(one, log, "a", "b")
        grow_old(client, 1, HOUR // 2)
        window = await two.join("chat")
        clock.advance(HOUR / 2 - 600)
        assert window.first == 1
        clock.advance(601)
        assert window.first == 2
        clock.advance(HOUR / 2)
        assert window.first == 3


async def test_an_age_below_a_millisecond_is_one(redis: RedisServer, client: Client) -> None:
    one = Party(RedisBroker(redis.url))
    async with run(one):
        await one.make("chat", max_age=0.0001)
        assert client.hget(KEYS.meta, "A") == b"1"


# Over real servers


@contextmanager
def worker(redis: RedisServer, clock: ManualClock) -> Iterator[tuple[Channel[Any], Address]]:
    settings = Settings(jitter=0)
    comet = Comet(KEY, broker=RedisBroker(redis.url), settings=settings, clock=clock)
    chat: Channel[Any] = comet.create(scope=SITE, name="chat", max_age=HOUR)
    with serve(application(comet)) as address:
        yield chat, address


def ask(page: Page, position: str) -> tuple[str | None, Any]:
    """Come back with a position; return the error or the value that the page is told first."""
    page.begin({"chat": position})
    event = page.next()
    page.cut()
    return event.get("error"), event.get("data")


@pytest.mark.parametrize("page", [PollClient, SseClient, WebSocketClient])
def test_a_page_that_was_away_for_too_long_is_told_full_by_every_worker(
    redis: RedisServer, client: Client, page: Callable[[None, Address], Page]
) -> None:
    clock = ManualClock()
    with worker(redis, clock) as (chat, address):
        reader = page(None, address)
        (begun,) = reader.follow({"chat": "now"})
        places = [begun["position"]]
        for text in ("a", "b", "c"):
            chat.publish(text)
            assert reader.data(1) == [text]
            places.append(reader.positions["chat"])
        reader.cut()
        assert ask(reader, places[0]) == (None, "a")
        grow_old(client, 2, HOUR + 60)
        with worker(redis, ManualClock()) as (_, other):
            behind = page(None, other)
            assert ask(behind, places[1]) == ("full", None)
            assert ask(behind, places[2]) == (None, "c")
        clock.advance(HOUR + 1)  # here all are too old, and Redis still holds one
        assert ask(reader, places[1]) == ("full", None)
        assert ask(reader, places[2]) == (None, "c")
