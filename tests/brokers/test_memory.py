from __future__ import annotations

import threading
from typing import Any

import pytest

from asgi_comet import ChannelClosed, ChannelFull, Comet
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.memory import MemoryBroker
from asgi_comet.clock import MonotonicClock
from asgi_comet.directory import Directory
from asgi_comet.fanout import Fanout
from asgi_comet.feeds import Feed, Kind
from asgi_comet.history import History
from asgi_comet.messages import Message
from asgi_comet.threads import LoopThread
from tests.conftest import KEY

pytestmark = pytest.mark.anyio


def make_feed(kind: Kind = Kind.SITE, size: int = 3) -> Feed:
    return Feed("f", kind, History(size=size, max_bytes=100), Directory(threading.Lock()))


def make() -> tuple[MemoryBroker, Fanout]:
    fanout = Fanout(LoopThread(), MonotonicClock())
    return MemoryBroker(fanout), fanout


def test_a_broker_says_all_that_the_interface_asks() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Broker()  # type: ignore[abstract]  # that is what is tested
    assert isinstance(make()[0], Broker)


@pytest.mark.parametrize("broker", [None, ""])
def test_it_is_what_a_comet_has(broker: str | None) -> None:
    assert isinstance(Comet(KEY, broker=broker)._hub.broker, MemoryBroker)


def test_another_broker_is_refused_and_its_password_is_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"broker=None, .* got a str; .* later version") as caught:
        Comet(KEY, broker="redis://:password@localhost")
    assert "password" not in str(caught.value)
    broker: Any = make()[0]
    with pytest.raises(ValueError, match="got a MemoryBroker"):
        Comet(KEY, broker=broker)


def test_an_append_tells_its_offset_at_once_and_offsets_are_dense() -> None:
    broker, _ = make()
    feed = make_feed()
    assert [broker.append(feed, b"%d" % number) for number in range(5)] == [1, 2, 3, 4, 5]
    assert feed.history.after(2) == [Message(3, b"2"), Message(4, b"3"), Message(5, b"4")]


def test_appends_of_many_threads_have_each_its_offset_in_the_order_of_its_caller() -> None:
    broker, _ = make()
    feed, found = make_feed(size=4000), list[list[object]]()

    def work() -> None:
        found.append([broker.append(feed, b"x") for _ in range(500)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(offsets == sorted(offsets, key=int.__index__) for offsets in found)  # type: ignore[arg-type]  # all are int
    assert {offset for offsets in found for offset in offsets} == set(range(1, 4001))


def test_an_ended_channel_takes_nothing() -> None:
    broker, fanout = make()
    feed = make_feed()
    fanout.close(feed, "failed")
    with pytest.raises(ChannelClosed, match="'f', which has failed"):
        broker.append(feed, b"x")
    assert feed.history.top == 0


def test_a_process_channel_that_nobody_reads_is_full_at_n_plus_one() -> None:
    broker, _ = make()
    feed = make_feed(Kind.PROCESS)
    assert [broker.append(feed, b"x") for _ in range(3)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(ChannelFull, match="'f'"):
            broker.append(feed, b"x")
    assert feed.closed == "full"


async def test_there_is_no_other_worker_to_ask() -> None:
    broker, _ = make()
    feed = make_feed()
    for _ in range(5):
        broker.append(feed, b"x")
    assert await broker.recover(feed, 1, 1000) is None
    assert await broker.find("f") is None
    assert await broker.find_process("p") is None


def test_a_source_on_demand_is_asked_and_others_are_not() -> None:
    broker, _ = make()
    feed, asked = make_feed(Kind.UNLIMITED), list[int]()
    broker.want(feed, 1)
    feed.want = asked.append
    broker.want(feed, 7)
    assert asked == [7]
