from __future__ import annotations

import threading
from typing import Any

import pytest

from asgi_comet import ChannelClosed, ChannelFull, Comet
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.ids import LIMIT, Ids
from asgi_comet.brokers.logs import ChannelSpec, Full, Opened, Placed
from asgi_comet.brokers.memory import MemoryBroker
from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.kind import Kind
from asgi_comet.core.history import History
from asgi_comet.core.messages import Message, Now
from asgi_comet.position import Position
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import inside
from asgi_comet.testing.window import Window
from tests.kit.stage import KEY

pytestmark = pytest.mark.anyio


def make_feed(kind: Kind = Kind.SITE, size: int = 3) -> Feed:
    return Feed("f", kind, History(size=size, max_bytes=100), Directory(threading.Lock()))


def make() -> tuple[MemoryBroker, Comet]:
    broker = MemoryBroker()
    return broker, Comet(KEY, broker=broker)


def test_a_broker_says_all_that_the_interface_asks() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Broker()  # type: ignore[abstract]  # that is what is tested
    assert isinstance(make()[0], Broker)


@pytest.mark.parametrize("broker", [None, ""])
def test_it_is_what_a_comet_has(broker: str | None) -> None:
    assert isinstance(inside(Comet(KEY, broker=broker)).broker, MemoryBroker)


def test_a_broker_belongs_to_one_comet() -> None:
    broker, comet = make()
    assert inside(comet).broker is broker
    with pytest.raises(ValueError, match="its own for each Comet, got a MemoryBroker that belongs"):
        Comet(KEY, broker=broker)
    with pytest.raises(RuntimeError, match="expected a broker of a Comet"):
        MemoryBroker().append(make_feed(), b"x", id="a")


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
    broker, comet = make()
    feed = make_feed()
    inside(comet).fanout.close(feed, "failed")
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
    assert await broker.place(feed, Position(feed.epoch, 9)) == Full()
    assert await broker.place(feed, Now()) == Placed(5, feed.epoch)


async def test_the_same_id_is_the_same_message() -> None:
    clock = ManualClock()
    broker = MemoryBroker()
    Comet(KEY, broker=broker, clock=clock)
    feed = make_feed(size=10)
    assert [broker.append(feed, b"x", id=id_) for id_ in ("a", "b", "a")] == [1, 2, 1]
    other = make_feed()
    assert broker.append(other, b"x", id="a") == 1
    clock.advance(599.9)
    assert broker.append(feed, b"x", id="a") == 1
    clock.advance(0.2)
    assert broker.append(feed, b"x", id="a") == 3


def test_ids_are_bounded() -> None:
    ids = Ids()
    for number in range(LIMIT + 1):
        ids.note(str(number), number, 0.0)
    assert len(ids) == LIMIT
    assert ids.find("0", 1.0) is None
    assert ids.find("1", 1.0) == 1
    assert ids.find("1", 1000.0) is None
    assert len(ids) == 0


def test_a_source_on_demand_is_asked_and_others_are_not() -> None:
    broker, _ = make()
    feed, asked = make_feed(Kind.UNLIMITED), list[int]()
    broker.want(feed, 1)
    feed.demand = asked.append
    broker.want(feed, 7)
    assert asked == [7]


async def test_one_worker_waits_for_nothing() -> None:
    broker, _ = make()
    feed = make_feed()
    broker.append(feed, b"x")
    assert await broker.open(feed) == Opened(feed.epoch, 1, 1)
    broker.acknowledge(feed, 1)
    assert broker.workers == 1
    broker.mark_sent(feed, 1)
    broker.skip(feed, 0, 1)
    assert await broker.acknowledged(feed) is None
    broker.unfollow(feed)
    await broker.follow(feed)
    await broker.end(feed, "ended")
    await broker.run()
    await broker.hand_over()
    assert (broker.shared, broker.people) == (False, None)


def test_a_log_of_nobody_here_is_refused() -> None:
    broker, _ = make()
    window: Any = Window(ChannelSpec(name="a", kind="site", size=1, max_bytes=1))
    with pytest.raises(TypeError, match="a log of this worker, got Window"):
        broker.append(window, b"x")
    window.closed = "ended"
    with pytest.raises(ChannelClosed):
        broker.append(window, b"x")
