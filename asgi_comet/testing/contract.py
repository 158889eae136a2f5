"""The contract of brokers: a test suite for authors of brokers.

Write a test class that makes brokers on one store, and run it with pytest:

    class TestMine(SharedBrokerContract):
        def make(self, count):
            store = my_store()
            return [MyBroker(store) for _ in range(count)]

Each test has a `Party` for each worker: a broker that runs, and windows on logs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import ChannelSpec, Closed, Fenced, Full, Placed, Stored, Unknown
from asgi_comet.core.messages import First, Last, Message, Now
from asgi_comet.errors import ChannelClosed, CometError, NonUniqueChannelName
from asgi_comet.position import Position
from asgi_comet.testing.party import Party, gather, position
from asgi_comet.testing.window import Window

__all__ = ["BrokerContract", "SharedBrokerContract"]


class BrokerContract:
    """The tests of every broker. Implement `make` in a subclass."""

    shared: bool = False
    """Whether several brokers can share one store."""

    @abstractmethod
    def make(self, count: int) -> list[Broker]:
        """Return brokers on one new store."""

    @asynccontextmanager
    async def parties(self, count: int) -> AsyncIterator[list[Party]]:
        """Run that many workers; only one if the broker is not shared."""
        async with gather(self.make(count if self.shared else 1)) as parties:
            yield parties

    async def test_offsets_are_dense_and_in_the_order_of_the_caller(self) -> None:
        async with self.parties(1) as (one,):
            log = await one.make("a")
            found = [one.broker.append(log, b"%d" % number) for number in range(50)]
            positions = [await position(log, stored) for stored in found]
            assert [place.offset for place in positions] == list(range(1, 51))
            await one.until(lambda: log.top == 50)
            assert {place.epoch for place in positions} == {log.epoch}
            assert log.seen == [b"%d" % number for number in range(50)]

    async def test_appends_of_many_threads_are_stored_each_once(self) -> None:
        async with self.parties(1) as (one,):
            log = await one.make("a", size=4000)
            found: list[list[Stored]] = []

            def work(writer: int) -> None:
                text = b"%d:%d"
                found.append(
                    [one.broker.append(log, text % (writer, number)) for number in range(100)]
                )

            async with anyio.create_task_group() as tasks:
                for writer in range(8):
                    tasks.start_soon(anyio.to_thread.run_sync, work, writer)
            offsets = [[(await position(log, stored)).offset for stored in run] for run in found]
            assert all(run == sorted(run) for run in offsets)
            assert sorted(offset for run in offsets for offset in run) == list(range(1, 801))
            await one.until(lambda: log.top == 800)
            for writer in range(8):
                mine = [data for data in log.seen if data.startswith(b"%d:" % writer)]
                assert mine == [b"%d:%d" % (writer, number) for number in range(100)]

    async def test_the_same_id_is_the_same_message(self) -> None:
        async with self.parties(2) as parties:
            logs = [await parties[0].make("a")]
            logs += [await party.join("a") for party in parties[1:]]
            for log, party in zip(logs, parties, strict=True):
                for id_ in ("x", "y", "x"):
                    stored = party.broker.append(log, id_.encode(), id=id_)
                    place = await position(log, stored)
                    assert place.offset == (1 if id_ == "x" else 2)
            await parties[-1].until(lambda: logs[-1].top == 2)
            assert logs[-1].seen == [b"x", b"y"]

    async def test_every_follower_gets_every_message(self) -> None:
        async with self.parties(3) as parties:
            logs = [await parties[0].make("a")]
            logs += [await party.join("a") for party in parties[1:]]
            for number in range(60):
                writer = number % len(parties)
                stored = parties[writer].broker.append(logs[writer], b"%d" % number)
                await position(logs[writer], stored)
            for log, party in zip(logs, parties, strict=True):
                await party.until(lambda log=log: log.top == 60)  # type: ignore[misc]  # its own
                assert log.seen == [b"%d" % number for number in range(60)]
                assert log.epoch == logs[0].epoch

    async def test_who_follows_later_has_what_is_held(self) -> None:
        async with self.parties(2) as parties:
            log = await parties[0].make("a", size=3)
            for number in range(5):
                await position(log, parties[0].broker.append(log, b"%d" % number))
            if not self.shared:
                assert (log.first, log.top) == (3, 5)
                return
            late = await parties[1].join("a")
            assert (late.first, late.top) == (3, 5)
            assert late.seen == [b"2", b"3", b"4"]
            assert await parties[1].broker.recover(late, 1, 1000) is None
            run = await parties[1].broker.recover(late, 3, 1000)
            assert run == [Message(4, b"3"), Message(5, b"4")]
            run = await parties[1].broker.recover(late, 2, 1)
            assert run == [Message(3, b"2")]  # one at least

    async def test_only_the_broker_knows_what_is_beyond_a_window(self) -> None:
        async with self.parties(2) as parties:
            log = await parties[0].make("a", size=3)
            other = await parties[-1].join("a") if self.shared else log
            place = await position(log, parties[0].broker.append(log, b"x"))
            ask = parties[-1].broker.place
            assert await ask(other, place) == Placed(1, place.epoch)
            assert await ask(other, Position(place.epoch, 0)) == Placed(0, place.epoch)
            assert await ask(other, Position(place.epoch, 2)) == Full()
            assert await ask(other, Position("other", 1)) == Full()
            assert await ask(other, Now()) == Placed(1, place.epoch)
            assert await ask(other, Last(5)) == Placed(0, place.epoch)
            assert await ask(other, First()) == Placed(0, place.epoch)

    async def test_what_there_is_not_is_unknown(self) -> None:
        async with self.parties(1) as (one,):
            assert await one.broker.find("nothing") is None
            if self.shared:
                window = Window(ChannelSpec(name="nothing", kind="site", size=1, max_bytes=1))
                assert await one.broker.place(window, Now()) == Unknown()
                with pytest.raises(CometError):
                    await one.broker.follow(window)

    async def test_a_broker_belongs_to_one_worker(self) -> None:
        (broker,) = self.make(1)
        Party(broker)
        with pytest.raises(ValueError, match="its own"):
            Party(broker)

    async def test_a_question_is_answered_by_this_worker_too(self) -> None:
        async with self.parties(1) as (one,):
            await one.broker.ready()
            assert await one.broker.ask_all("who is there?", 20) == ["who is there?"]


class SharedBrokerContract(BrokerContract):
    """The tests of a broker that several workers share."""

    shared = True

    async def test_all_workers_answer_a_question_and_the_right_one(self) -> None:
        async with self.parties(3) as parties:
            for party in parties:
                await party.broker.ready()
            found: list[list[str]] = []

            async def ask(party: Party, question: str) -> None:
                found.append(await party.broker.ask_all(question, 20))

            async with anyio.create_task_group() as tasks:
                for number in range(9):
                    tasks.start_soon(ask, parties[number % 3], f"question {number}")
            assert sorted(found) == [[f"question {number}"] * 3 for number in range(9)]

    async def test_a_name_is_taken_once_and_adopted_where_all_make_it(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make("a")
            with pytest.raises(NonUniqueChannelName):
                await two.make("a")
            mine = await one.make("b", adopt=True)
            await position(mine, one.broker.append(mine, b"x"))
            theirs = await two.make("b", adopt=True)
            assert theirs.seen == [b"x"]
            assert theirs.epoch == mine.epoch
            await one.broker.end(log, "ended")
            again = await two.make("a")
            assert again.epoch != log.epoch
            assert again.seen == []

    async def test_all_workers_agree_on_the_age_of_messages(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make("a", max_age=3600)
            await position(log, one.broker.append(log, b"1 2"))
            other = await two.join("a")
            await position(log, one.broker.append(log, b"3"))
            await two.until(lambda: other.top == 2)
            assert other.spec.max_age == 3600
            assert (other.first, other.seen, log.seen) == (1, [b"1 2", b"3"], [b"1 2", b"3"])
            run = await two.broker.recover(other, 0, 100)
            assert [message.data for message in run or ()] == [b"1 2", b"3"]
            spec = await two.broker.find("a")
            assert spec == other.spec
            await one.make("b")
            spec = await two.broker.find("b")
            assert spec is not None
            assert spec.max_age is None

    async def test_what_is_published_before_a_channel_is_opened_is_stored_then(self) -> None:
        async with self.parties(1) as (one,):
            window = Window(ChannelSpec(name="a", kind="site", size=9, max_bytes=99))
            stored = [one.broker.append(window, data) for data in (b"x", b"y")]
            for _ in range(10):
                await anyio.lowlevel.checkpoint()  # the broker has its turn
            await one.broker.open(window)
            assert [(await position(window, place)).offset for place in stored] == [1, 2]
            await one.broker.follow(window)
            await one.broker.follow(window)  # it is followed
            assert window.seen == [b"x", b"y"]

    async def test_a_channel_that_is_only_to_be_adopted_is_not_made(self) -> None:
        async with self.parties(2) as (one, two):
            spec = ChannelSpec(name="a", kind="site", size=9, max_bytes=99, adopt=True)
            window = Window(spec)
            with pytest.raises(ChannelClosed):
                await one.broker.open(window, make=False)
            assert await one.broker.find("a") is None
            opened = await two.broker.open(Window(spec))
            assert await one.broker.open(Window(spec), make=False) == opened

    async def test_the_properties_of_a_channel_are_found_by_every_worker(self) -> None:
        async with self.parties(2) as (one, two):
            for adopt, guard in ((True, "module:may_enter"), (False, "")):
                spec = ChannelSpec(
                    name=f"a {guard}", kind="site", size=9, max_bytes=99, adopt=adopt, guard=guard
                )
                await one.broker.open(Window(spec))
                assert await two.broker.find(spec.name) == spec
            assert await two.broker.find("b") is None

    async def test_an_end_is_told_after_the_last_message(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make("a")
            other = await two.join("a")
            one.broker.append(log, b"last words")
            await one.broker.end(log, "failed")
            await one.broker.end(log, "ended")  # it has ended
            await two.until(lambda: other.closed is not None)
            assert (other.closed, other.seen) == ("failed", [b"last words"])
            assert await two.broker.find("a") == replace(log.spec, closed="failed")
            assert await two.broker.place(other, Now()) == Closed("failed")
            with pytest.raises(ChannelClosed):
                await position(other, two.broker.append(other, b"too late"))

    async def test_what_is_held_of_a_channel_that_has_ended_is_read_by_every_worker(self) -> None:
        async with self.parties(3) as (one, two, three):
            log = await one.make("a")
            joined = await two.join("a")
            for data in (b"1", b"2", b"last words"):
                await position(log, one.broker.append(log, data))
            await one.broker.end(log, "failed")
            await two.until(lambda: joined.closed is not None)
            late = await three.join("a")  # which did not follow
            await three.until(lambda: late.closed is not None)
            for window, party in ((joined, two), (late, three)):
                assert (window.closed, window.seen) == ("failed", [b"1", b"2", b"last words"])
                place = party.broker.place
                assert await place(window, Position(log.epoch, 1)) == Placed(1, log.epoch)
                assert await place(window, Position(log.epoch, 3)) == Closed("failed")
                assert await place(window, Position("another", 1)) == Full()
                run = await party.broker.recover(window, 1, 1000)
                assert run == [Message(2, b"2"), Message(3, b"last words")]
                with pytest.raises(ChannelClosed) as caught:
                    await position(window, party.broker.append(window, b"too late"))
                assert caught.value.reason == "failed"
            again = await three.make("a")
            assert (again.seen, again.closed) == ([], None)

    async def test_who_follows_no_more_gets_no_more(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make("a")
            other = await two.join("a")
            two.broker.unfollow(other)
            await position(log, one.broker.append(log, b"x"))
            again = Window(other.spec)
            await two.broker.follow(again)
            assert (other.seen, again.seen) == ([], [b"x"])

    # Ownership

    async def test_one_worker_owns_a_channel_and_the_next_one_takes_over(self) -> None:
        async with self.parties(3) as parties:
            logs = [await party.make("a", adopt=True, sourced=True) for party in parties]
            for party, log in zip(parties, logs, strict=True):
                party.broker.bid(log)
            order: list[Window] = []
            for _ in parties:
                (owner,) = await self.owners(parties, [log for log in logs if log not in order])
                order.append(owner)
                broker = parties[logs.index(owner)].broker
                stored = broker.append(owner, b"%d" % len(order), sourced=True)
                place = await position(owner, stored)
                assert place == Position(logs[0].epoch, len(order))
                broker.release(owner, clean=True)
                with pytest.raises(Fenced):
                    broker.append(owner, b"late", sourced=True)
            for log, party in zip(logs, parties, strict=True):
                await party.until(lambda log=log: log.top == 3)  # type: ignore[misc]  # its own
                assert log.seen == [b"1", b"2", b"3"]
            assert [log.owned for log in logs] == [1, 1, 1]

    async def owners(self, parties: list[Party], logs: list[Window]) -> list[Window]:
        """Wait until one of the logs is owned; return all those that are."""
        windows = {id(log) for log in logs}

        def owned() -> list[Window]:
            return [log for log in logs if log.owned > log.disowned and id(log) in windows]

        async with anyio.create_task_group() as tasks:

            async def wait(party: Party) -> None:
                await party.until(lambda: bool(owned()))
                tasks.cancel_scope.cancel()

            for party in parties:
                tasks.start_soon(wait, party)
        return owned()

    async def test_an_owner_that_does_not_stop_in_order_may_have_lost_messages(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make("a", adopt=True, sourced=True)
            other = await two.make("a", adopt=True, sourced=True)
            one.broker.bid(log)
            await one.until(lambda: log.owned == 1)
            before = log.epoch
            two.broker.bid(other)
            one.broker.release(log, clean=False)
            await two.until(lambda: other.owned == 1)
            await two.until(lambda: other.epoch != before)

    async def test_a_source_that_continues_keeps_the_epoch_in_any_case(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make("a", adopt=True, sourced=True)
            other = await two.make("a", adopt=True, sourced=True)
            one.broker.bid(log, continues=True)
            await one.until(lambda: log.owned == 1)
            await position(log, one.broker.append(log, b"x", sourced=True))
            two.broker.bid(other, continues=True)
            one.broker.release(log, clean=False)
            await two.until(lambda: other.owned == 1)
            assert other.newest_owned == Message(1, b"x")
            place = await position(other, two.broker.append(other, b"y", sourced=True))
            assert place == Position(log.epoch, 2)

    async def test_a_source_that_failed_renews_the_epoch_for_all(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make("a", adopt=True, sourced=True)
            other = await two.join("a")
            one.broker.bid(log)
            await one.until(lambda: log.owned == 1)
            before = log.epoch
            one.broker.append(log, b"x", sourced=True)
            one.broker.renew(log)
            one.broker.append(log, b"y", sourced=True)
            for window, party in ((log, one), (other, two)):
                await party.until(lambda window=window: window.top == 2)  # type: ignore[misc]
                assert window.epoch != before
