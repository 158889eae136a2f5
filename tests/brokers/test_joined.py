"""What the broker that joins workers in one process does besides the contract."""

from __future__ import annotations

import anyio
import pytest

from asgi_comet import BrokerUnavailable, ChannelClosed
from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.core.aged import Dated
from asgi_comet.core.messages import Now
from asgi_comet.testing import JoinedBroker, ManualClock, join, joined_outbox
from asgi_comet.testing.party import Party, people_of, position
from asgi_comet.testing.window import Window

pytestmark = pytest.mark.anyio


async def test_a_window_that_missed_too_much_begins_anew() -> None:
    one, two = (Party(broker) for broker in join(2))
    async with one.running(), two.running():
        log = await one.make("a", size=3)
        window = await two.join("a")
        joined_broker(two).disconnect()
        with pytest.raises(BrokerUnavailable, match="it is disconnected"):
            await two.broker.place(window, Now())
        for number in range(9):
            await position(log, one.broker.append(log, b"%d" % number))
        joined_broker(two).reconnect()
        await two.until(lambda: window.top == 9)
        assert (window.first, two.cuts, window.seen) == (7, 1, [b"6", b"7", b"8"])


async def test_what_waits_for_the_store_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_outbox, "WAITING", 2)
    (one,) = (Party(broker) for broker in join(1))
    async with one.running():
        log = await one.make("a")
        joined_broker(one).disconnect()
        stored = [one.broker.append(log, b"x") for _ in range(2)]
        with pytest.raises(BrokerUnavailable, match="2 messages wait to be stored") as refused:
            one.broker.append(log, b"x")
        assert not refused.value.maybe_stored
        joined_broker(one).reconnect()
        assert [(await position(log, place)).offset for place in stored] == [1, 2]


async def test_a_channel_is_opened_when_the_store_is_back() -> None:
    (one,) = (Party(broker) for broker in join(1))
    async with one.running(), anyio.create_task_group() as tasks:
        joined_broker(one).disconnect()
        made: list[Window] = []

        async def make() -> None:
            made.append(await one.make("a"))

        tasks.start_soon(make)
        await anyio.wait_all_tasks_blocked()
        assert made == []
        joined_broker(one).reconnect()
    assert [window.name for window in made] == ["a"]


async def test_operators_see_the_numbers_of_the_workers_and_each_loss_of_the_store() -> None:
    one, two = (Party(broker) for broker in join(2))
    assert [joined_broker(party).condition.number for party in (one, two)] == [0, 1]
    broker = joined_broker(two)
    for losses in (1, 2):
        broker.disconnect()
        broker.disconnect()
        assert (broker.condition.reconnects, broker.condition.errors) == (losses - 1, losses)
        broker.reconnect()
        assert (broker.condition.reconnects, broker.condition.errors) == (losses, losses)


async def test_a_frame_that_comes_late_disturbs_nobody() -> None:
    one, two = (Party(broker) for broker in join(2))
    async with one.running(), two.running():
        log = await one.make("a")
        other = await one.make("b")
        window, beside = await two.join("a"), await two.join("b")
        joined_broker(two).hold()
        await position(log, one.broker.append(log, b"late"))
        two.broker.unfollow(window)
        await position(other, one.broker.append(other, b"x"))
        joined_broker(two).let_go()
        await two.until(lambda: beside.top == 1)
        assert (window.seen, beside.seen) == ([], [b"x"])


async def test_of_another_epoch_nothing_is_recovered() -> None:
    one, two = (Party(broker) for broker in join(2))
    async with one.running(), two.running():
        log = await one.make("a")
        await position(log, one.broker.append(log, b"x"))
        window = await two.join("a")
        joined_broker(one).store.renew("a")
        assert await two.broker.recover(window, 0, 100) is None


async def test_a_channel_that_the_store_does_not_have_is_not_recovered() -> None:
    (one,) = (Party(broker) for broker in join(1))
    async with one.running():
        log = Window(ChannelSpec(name="a", kind="site", size=3, max_bytes=100))
        assert await one.broker.recover(log, 0, 100) is None


async def test_workers_that_share_no_people_are_connected_again() -> None:
    one, two = (Party(broker) for broker in join(2, people=False))
    async with one.running(), two.running():
        log = await one.make("a")
        window = await two.join("a")
        joined_broker(two).disconnect()
        await position(log, one.broker.append(log, b"x"))
        joined_broker(two).reconnect()
        await two.until(lambda: window.seen == [b"x"])


async def test_a_source_that_is_released_is_asked_no_more() -> None:
    one, two = (Party(broker) for broker in join(2))
    async with one.running(), two.running():
        await people_of(one).open("s", "p")
        log = await one.make_own("p", "~a", kind="unlimited", sourced=True)
        other = await two.make("b")
        window = await one.join("b")
        one.broker.bid(log)
        await one.until(lambda: log.owned == 1)
        joined_broker(one).hold()
        two.broker.want(log, 3)
        one.broker.release(log, clean=True)
        await position(other, two.broker.append(other, b"after"))
        joined_broker(one).let_go()
        await one.until(lambda: window.top == 1)
        assert log.wanted == 0


async def test_a_worker_that_stops_fails_only_the_channels_whose_sources_it_reads() -> None:
    one, two = (Party(broker) for broker in join(2))
    async with one.running():
        await people_of(one).open("s", "p")
        async with two.running():
            await two.make_own("p", "~a", sourced=True)
            two.broker.bid(await two.make_own("p", "~b"))
        store = joined_broker(one).store
        assert [store.why_closed(f"p\n{name}") for name in ("~a", "~b")] == ["failed", None]


async def test_a_window_on_a_channel_that_has_ended_gets_nothing_of_a_namesake() -> None:
    one, two = (Party(broker) for broker in join(2))
    async with one.running(), two.running():
        log = await one.make("a")
        window = await two.join("a")
        joined_broker(two).hold()
        await position(log, one.broker.append(log, b"last words"))
        await one.broker.end(log, "failed")
        namesake = await one.make("a")
        await position(namesake, one.broker.append(namesake, b"another"))
        joined_broker(two).let_go()
        await two.until(lambda: window.closed is not None)
        assert (window.closed, window.epoch) == ("failed", log.epoch)
        assert window.seen == [b"last words"]
        with pytest.raises(ChannelClosed, match="which has failed"):
            await position(window, two.broker.append(window, b"late"))
        assert namesake.seen == [b"another"]


async def test_the_source_of_an_own_channel_begins_another_epoch_without_a_window() -> None:
    (one,) = (Party(broker) for broker in join(1))
    async with one.running():
        await people_of(one).open("s", "p")
        log = await one.make_own("p", "~a", kind="unlimited", sourced=True)
        one.broker.bid(log)
        await one.until(lambda: log.owned == 1)
        former = await position(log, one.broker.append(log, b"x", sourced=True))
        one.broker.renew(log)
        assert log.epoch != former.epoch
        stored = await position(log, one.broker.append(log, b"y", sourced=True))
        assert (stored.epoch, log.seen[-1:]) == (log.epoch, [b"y"])


async def test_a_message_that_is_too_old_is_dropped_in_the_store() -> None:
    clock = ManualClock()
    one, two, three = (Party(broker, clock) for broker in join(3))
    async with one.running(), two.running(), three.running():
        log = await one.make("a", max_age=60)
        await position(log, one.broker.append(log, b"x"))
        clock.advance(40)
        await position(log, one.broker.append(log, b"y"))
        window = await two.join("a")
        assert window.seen == [b"x", b"y"]
        clock.advance(21)
        assert await two.broker.recover(window, 0, 100) is None
        run = await two.broker.recover(window, 1, 100)
        assert [message.data for message in run or ()] == [b"y"]
        assert window.first == 2
        assert (await three.join("a")).seen == [b"y"]
        joined_broker(one).store.renew("a")
        await position(log, one.broker.append(log, b"z"))
        await two.until(lambda: window.top == 3)
        assert await two.broker.recover(window, 2, 100) == [Dated(3, b"z", 61)]
        clock.advance(61)
        assert await two.broker.recover(window, 2, 100) is None
        assert window.first == 4


async def test_a_bid_may_be_withdrawn_twice_and_before_the_worker_follows() -> None:
    one, two = (Party(broker) for broker in join(2))
    async with one.running(), two.running():
        log = await one.make("a", adopt=True, sourced=True)
        other = await two.make("a", adopt=True, sourced=True)
        one.broker.bid(log)
        two.broker.bid(other)
        two.broker.unfollow(other)
        for _ in range(2):
            one.broker.release(log, clean=True)  # now the other worker owns what it does not follow
        await anyio.wait_all_tasks_blocked()
        one.broker.bid(log)
        two.broker.release(other, clean=True)
        await one.until(lambda: log.owned > 0)
        assert other.owned == 0
        await position(log, one.broker.append(log, b"x", sourced=True))


async def test_a_member_ends_with_the_last_worker_that_follows() -> None:
    one, two = (Party(broker) for broker in join(2))
    async with one.running(), two.running():
        log = await one.make("a", adopt=True, reclaim=True)
        other = await two.join("a")
        assert not one.broker.retire(log, 0)
        assert await one.broker.find("a") is not None
        one.broker.unfollow(log)
        assert not two.broker.retire(other, 0)
        spec = await one.broker.find("a")
        assert spec is not None
        assert spec.closed == "ended"
        await two.until(lambda: other.closed == "ended")


def joined_broker(party: Party) -> JoinedBroker:
    assert isinstance(party.broker, JoinedBroker)
    return party.broker
