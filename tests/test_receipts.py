from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from asgi_comet import ClientProcess, Notification, NotRunning, Receipt
from asgi_comet._runtime import fairness
from asgi_comet.brokers.logs import Stored
from asgi_comet.channels.feed import Feed
from asgi_comet.position import Position
from asgi_comet.testing._inspect import awaited, client_of, inside
from asgi_comet.testing._inspect_notifiers import notifiers, record, subscriptions
from tests.kit.notifying import House, housing
from tests.kit.running import advance, make

pytestmark = pytest.mark.anyio


class Waiting:
    """A receipt that is waited for in a task of its own."""

    def __init__(self) -> None:
        self.receipt: Receipt | None = None
        self.scope = anyio.CancelScope()

    async def run(self, notification: Notification, seconds: float) -> None:
        with self.scope:
            self.receipt = await notification.received(timeout=seconds)

    def names(self, house: House) -> tuple[str, str, str]:
        """Who is in it, by the letters of its users."""
        assert self.receipt is not None
        found = self.receipt
        return (
            name(found.acknowledged, house),
            name(found.silent, house),
            name(found.missing, house),
        )


def name(processes: tuple[ClientProcess, ...], house: House) -> str:
    return "".join(sorted(n for n, tab in house.tabs.items() if tab in processes))


@asynccontextmanager
async def waiting(notification: Notification, seconds: float = 30.0) -> AsyncIterator[Waiting]:
    async with anyio.create_task_group() as group:
        found = Waiting()
        group.start_soon(found.run, notification, seconds)
        await wait_all_tasks_blocked()
        yield found
        await wait_all_tasks_blocked()
        found.scope.cancel()


def feed_of(house: House, name: str, channel: str = "~n") -> Feed:
    feed = client_of(house.tabs[name]).place.directory.find(channel)
    assert feed is not None
    return feed


def acknowledge(house: House, names: str, offset: int = 1) -> None:
    for one in names:
        feed = feed_of(house, one)
        feed.mark_sent(offset)
        feed.acknowledge(offset)


def check_nobody_waits(house: House, names: str) -> None:
    assert len(inside(house.comet).timers) == 0
    for subscription in subscriptions(notifiers(house.comet)["n"]).values():
        assert subscription.waits == set()
    for one in names:
        assert awaited(feed_of(house, one)) == 0


async def test_it_is_there_once_everybody_has_acknowledged() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a", "b")
        async with waiting(notifier.notify(1, "x")) as found:
            acknowledge(house, "a")
            await wait_all_tasks_blocked()
            assert found.receipt is None
            acknowledge(house, "b")
            await wait_all_tasks_blocked()
            assert found.names(house) == ("ab", "", "")
            assert isinstance(found.receipt, Receipt)
            assert found.receipt.acknowledged == (house.tabs["a"], house.tabs["b"])
            for tab in house.tabs.values():
                tab.connect()  # so that it does not expire
            check_nobody_waits(house, "ab")


async def test_acknowledged_before_anybody_asked_is_acknowledged() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")
        sent = notifier.notify(1, "x")
        assert await sent == 1
        acknowledge(house, "a")
        for _ in range(2):
            assert await sent.received() == Receipt((house.tabs["a"],), (), ())


async def test_after_the_timeout_the_silent_and_the_missing_are_told_apart() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, *"abcde")
        assert await notifier.notify(1, "before") == 5
        acknowledge(house, "ac")
        async with waiting(notifier.notify(1, "x"), seconds=5) as found:
            acknowledge(house, "a", 2)  # has it
            feed_of(house, "b").mark_sent(2)  # never acknowledges
            feed_of(house, "c").mark_sent(2)  # did acknowledge before, and not this
            feed_of(house, "d").mark_sent(1)  # this was never sent
            await advance(house.clock, 4.9)
            assert found.receipt is None
            await advance(house.clock, 0.3)
            assert found.names(house) == ("a", "b", "cde")


async def test_a_connection_that_breaks_settles_nothing_for_the_client_may_resume() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")
        async with waiting(notifier.notify(1, "x")) as found:
            feed = feed_of(house, "a")
            feed.mark_sent(1)
            for how in (feed.outcomes.lose, feed.outcomes.excuse):
                how("its connection")
            feed.outcomes.leave("its connection", 0)
            await wait_all_tasks_blocked()
            assert found.receipt is None
            acknowledge(house, "a")
            await wait_all_tasks_blocked()
            assert found.names(house) == ("a", "", "")


async def test_a_process_that_closes_is_not_waited_for() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, *"abc")
        sent = notifier.notify(1, "x")
        assert await sent == 3
        acknowledge(house, "a")
        house.tabs["a"].close()
        feed_of_c = feed_of(house, "c")
        async with waiting(sent) as found:
            house.tabs["b"].close()
            await wait_all_tasks_blocked()
            assert found.receipt is None
            feed_of_c.mark_sent(1)
            house.tabs["c"].close()
            await wait_all_tasks_blocked()
            assert found.names(house) == ("a", "c", "b")
        assert await sent.received() == found.receipt


async def test_those_it_could_not_be_prepared_or_published_for_are_missing() -> None:
    def prepare(user: Any, value: Any) -> Any:
        if user == "a":
            raise LookupError
        return None if user == "b" else value

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, *"abcd")
        feed = feed_of(house, "d")
        notifier.listen(1, house.tabs["d"]).close()
        sent = notifier.notify(1, "x")
        assert await sent == 1
        assert feed.closed == "ended"
        acknowledge(house, "c")
        receipt = await sent.received()
        assert name(receipt.acknowledged, house) == "c"
        assert name(receipt.missing, house) == "ad"  # it was not meant for b


async def test_it_waits_until_it_is_published_but_not_longer_than_asked() -> None:
    go_on = anyio.Event()

    async def prepare(user: Any, value: Any) -> Any:
        await go_on.wait()
        return value

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, "a")
        sent = notifier.notify(1, "x")
        async with waiting(sent, seconds=5) as found:
            await advance(house.clock, 5.2)
            assert found.receipt == Receipt((), (), ())
        async with waiting(sent, seconds=5) as found:
            go_on.set()
            await wait_all_tasks_blocked()
            assert found.receipt is None
            acknowledge(house, "a")
            await wait_all_tasks_blocked()
            assert found.names(house) == ("a", "", "")


async def test_a_server_that_stops_ends_the_wait() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")
        async with waiting(notifier.notify(1, "x")) as found:
            inside(house.comet).timers.shut_down()
            await wait_all_tasks_blocked()
            assert found.names(house) == ("", "", "a")


async def test_of_nobody_it_is_empty_at_once() -> None:
    async with housing() as house:
        sent = house.comet.notifier("n", key=int).notify(1, "x")
        assert await sent.received() == Receipt((), (), ())
        assert await sent == 0


async def test_a_cancelled_wait_leaves_nothing_and_changes_nothing() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")
        for tab in house.tabs.values():
            client_of(tab).connect()  # so that it does not expire
        sent = notifier.notify(1, "x")
        async with waiting(sent):
            assert awaited(feed_of(house, "a")) == 1
        check_nobody_waits(house, "a")
        acknowledge(house, "a")
        assert (await sent.received()).acknowledged == (house.tabs["a"],)


async def test_the_loop_turns_while_many_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "STRETCH", -1)
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, *"abc")
        sent = notifier.notify(1, "x")
        async with waiting(sent) as found:
            acknowledge(house, "abc")
            await wait_all_tasks_blocked()
            assert found.names(house) == ("abc", "", "")


def test_it_can_only_be_waited_for_while_the_lifespan_runs() -> None:
    notifier = make().notifier("n", key=int)

    async def wait() -> None:
        await notifier.notify(1, "x").received()

    with pytest.raises(NotRunning):
        anyio.run(wait)


async def test_a_notification_that_nobody_keeps_takes_note_of_nothing() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")
        dropped, kept = notifier.notify(1, "x"), notifier.notify(1, "y")
        gone = weakref.ref(dropped)
        del dropped
        gc.collect()
        assert gone() is None
        assert await kept == 1
        assert house.values("a") == ["x", "y"]


async def test_a_process_that_closes_right_after_it_was_published_did_get_it() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a", "b")
        there = [subscriptions(notifier)[client_of(house.tabs[name])] for name in "ab"]
        sent = notifier.notify(2, "nobody")
        record(sent, there[0], 1)
        for subscription in there:
            record(sent, subscription, None)  # as in another thread
        assert await sent == 1


async def test_a_broker_may_tell_later_where_a_message_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with housing() as house:
        append = inside(house.comet).broker.append

        def append_later(feed: Feed, data: bytes, **_: Any) -> Stored:
            offset = append(feed, data)
            assert isinstance(offset, int)

            async def stored() -> Position:
                await anyio.lowlevel.checkpoint()
                return Position(feed.epoch, offset)

            return stored

        monkeypatch.setattr(inside(house.comet).broker, "append", append_later)
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")
        async with waiting(notifier.notify(1, "x")) as found:
            acknowledge(house, "a")
            await wait_all_tasks_blocked()
            assert found.names(house) == ("a", "", "")


async def test_a_client_that_was_told_to_skip_the_message_is_missing_at_once() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a", "b")
        sent = notifier.notify(1, "x")
        async with waiting(sent) as found:
            for name in "ab":
                feed_of(house, name).mark_sent(1)
            feed_of(house, "a").skip(1)
            acknowledge(house, "b")
            await wait_all_tasks_blocked()
            assert found.names(house) == ("b", "", "a")
        acknowledge(house, "a")
        async with waiting(sent) as found:
            assert found.names(house) == ("b", "", "a")
        later = notifier.notify(1, "y")
        assert await later == 2
        acknowledge(house, "ab", 2)
        async with waiting(later) as found:
            assert found.names(house) == ("ab", "", "")
