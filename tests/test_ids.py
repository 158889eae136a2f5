"""`publish(value, id=...)`: the same id is the same message."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from asgi_comet import (
    SITE,
    Channel,
    ChannelClosed,
    ChannelFull,
    Comet,
    InvalidMessage,
    Outcome,
)
from asgi_comet.brokers.ids import KEPT, LIMIT, MOST
from asgi_comet.testing import join, wait_for_listeners
from asgi_comet.testing._inspect import feed_of
from tests.kit.loop import outcome
from tests.kit.processes import open_in
from tests.kit.running import advance, make, make_clocked, running
from tests.kit.serving import Tab, events, serve
from tests.kit.stage import KEY, application
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


def values(channel: Channel[Any]) -> list[bytes]:
    run = feed_of(channel).read(0, feed_of(channel).top)
    assert run is not None
    return [message.data for message in run]


async def test_the_same_id_is_published_once_and_has_the_position_of_the_first() -> None:
    async with running() as (comet, _):
        channel: Channel[Any] = comet.create(scope=SITE, name="news")
        first = await channel.publish("a", id="order-77").stored()
        other = await channel.publish("b", id="order-78").stored()
        assert await channel.publish("a again", id="order-77").stored() == first
        assert (await channel.publish("c").stored()).offset == 3
        assert (first.offset, other.offset) == (1, 2)
        assert values(channel) == [b'"a"', b'"b"', b'"c"']


async def test_an_id_is_the_same_for_ten_minutes_and_on_one_channel() -> None:
    async with running() as (comet, clock):
        channel: Channel[Any] = comet.create(scope=SITE, name="news")
        beside: Channel[Any] = comet.create(scope=SITE, name="beside")
        channel.publish("a", id="x")
        beside.publish("a", id="x")
        await advance(clock, KEPT - 0.5)
        channel.publish("b", id="x")
        assert values(channel) == values(beside) == [b'"a"']
        await advance(clock, 1)
        channel.publish("c", id="x")
        assert values(channel) == [b'"a"', b'"c"']


def test_the_last_ten_thousand_ids_are_remembered() -> None:
    channel: Channel[Any] = make().create(scope=SITE, name="news", size=3 * LIMIT)
    for number in range(LIMIT):
        channel.publish(number, id=str(number))
    channel.publish("again", id="0")
    assert feed_of(channel).top == LIMIT
    channel.publish("new", id="new")
    channel.publish("again", id="0")
    assert feed_of(channel).top == LIMIT + 2


def test_threads_that_publish_the_same_id_publish_it_once() -> None:
    channel: Channel[Any] = make().create(scope=SITE, name="news")
    ready = threading.Barrier(8)

    def work() -> None:
        for number in range(200):
            ready.wait(20)
            channel.publish(number, id=str(number))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values(channel) == [b"%d" % number for number in range(200)]


def test_the_delivery_of_a_repetition_is_that_of_the_first() -> None:
    comet, _ = make_clocked()
    channel: Channel[Any] = comet.create(scope=SITE, name="news")
    with serve(application(comet)) as server:
        tab = Tab(server)
        channel.publish("a", id="x")
        _, event = tab.poll({"news": "last:1"})
        held = tab.hold({"news": event["position"]})  # which acknowledges it
        wait_for_listeners(channel, 1)
        assert outcome(comet, lambda: channel.publish("b", id="x")) is Outcome.SUCCESS
        channel.publish("c")
        assert [event["data"] for event in events(held.answer())] == ["c"]


async def test_a_process_channel_and_a_family_have_ids_too() -> None:
    async with running() as (comet, _):
        process, rooms = open_in(comet), comet.family("room:{id}")
        inbox: Channel[Any] = comet.create(scope=process, name="inbox")
        room = rooms.channel(id="7")
        for _ in range(2):
            inbox.publish("a", id="x")
            room.publish("a", id="x")
        rooms.publish("b", id="7")  # here a word
        assert values(inbox) == [b'"a"']
        assert values(room) == [b'"a"', b'"b"']


async def test_what_cannot_be_published_is_refused_whatever_its_id() -> None:
    async with running() as (comet, _):
        channel = comet.create(scope=SITE, name="news", type=int)
        channel.publish(1, id="x")
        bad: Any = "text"
        with pytest.raises(InvalidMessage):
            channel.publish(bad, id="x")
        channel.close()
        with pytest.raises(ChannelClosed):
            channel.publish(1, id="x")
        inbox: Channel[Any] = comet.create(scope=open_in(comet), name="inbox", size=1)
        inbox.publish(1, id="x")
        for _ in range(2):
            with pytest.raises(ChannelFull):
                inbox.publish(2, id="y")
        with pytest.raises(ChannelFull):
            inbox.publish(1, id="x")


async def test_ids_go_with_the_incarnation_of_the_channel() -> None:
    comet, clock = make_clocked()
    channel: Channel[Any] = comet.create(scope=SITE, name="news")
    channel.publish("a", id="x")
    async with running((comet, clock)):
        channel.publish("b", id="x")
        assert values(channel) == [b'"a"']  # published before the lifespan
    async with running((comet, clock)):
        channel.publish("c", id="x")
        assert values(channel) == [b'"c"']


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "shared"])
async def test_a_channel_with_a_source_may_be_published_to_with_an_id(shared: bool) -> None:
    comet = Comet(KEY, broker=join(1)[0] if shared else None)

    @comet.channel("news")
    async def news() -> AsyncIterator[str]:
        await anyio.sleep_forever()
        yield ""

    async with comet.lifespan():
        channel: Channel[Any] = news.channel()
        await wait_all_tasks_blocked()
        places = [await channel.publish("a", id=id_).stored() for id_ in "xyx"]
        assert [place.offset for place in places] == [1, 2, 1]
        assert values(channel) == [b'"a"', b'"a"']


LONGEST = "é" * MOST


def test_an_id_is_a_text_of_one_to_two_hundred_characters() -> None:
    channel: Channel[Any] = make().create(scope=SITE, name="news")
    channel.publish("a", id=LONGEST)
    channel.write("b", id=LONGEST)
    wrong: Any
    for wrong, error, told in (
        ("", ValueError, "expected id to have 1 to 200 characters, got 0"),
        (LONGEST + "x", ValueError, "expected id to have 1 to 200 characters, got 201"),
        ("\ud800", ValueError, r"expected id to have a UTF-8 form, got '\\ud800'"),
        (77, TypeError, "expected id to be text, got int"),
        (b"x", TypeError, "expected id to be text, got bytes"),
    ):
        with pytest.raises(error, match=told):
            channel.publish("c", id=wrong)
    assert values(channel) == [b'"a"']
