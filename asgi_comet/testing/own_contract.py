"""The contract of brokers for channels of client processes, which one connection reads.

Write a test class as for `testing.contract`, and add how a client process is opened.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
import anyio.lowlevel
import pytest

from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import Closed, Full, Placed, Unknown
from asgi_comet.brokers.people import Found, Moved
from asgi_comet.core.messages import (
    NEXT_INCARNATION,
    First,
    Last,
    Message,
    Now,
    Position,
    Start,
)
from asgi_comet.errors import ChannelClosed, ChannelFull, NonUniqueChannelName, ProcessClosed
from asgi_comet.testing.party import Party, gather, position
from asgi_comet.testing.window import Window

__all__ = ["Claiming", "OwnContract"]

SESSION, PROCESS = "AAsession", "AAprocess"
A = "~a"


class Claiming(Protocol):
    """The part of `People` that reads own channels."""

    async def claim(
        self, session: str, process: str, reader: int, starts: Mapping[str, Start]
    ) -> dict[str, Found]:
        """Let a connection read own channels."""

    def unclaim(self, process: str, reader: int) -> None:
        """Report that a connection reads no more."""

    def acknowledge(self, process: str, positions: Mapping[str, Position]) -> None:
        """Record that a client process has messages of channels without a window here."""

    async def load(self, process: str) -> bytes | None:
        """Return the state of the registration protocol."""

    async def save(self, process: str, reader: int, state: bytes) -> bool:
        """Store the state of the registration protocol if a reader still reads."""


class OwnContract:
    """The tests of own channels. Implement the three abstract methods in a subclass."""

    @abstractmethod
    def make(self, count: int) -> list[Broker]:
        """Return brokers on one new store."""

    @abstractmethod
    def claiming(self, broker: Broker) -> Claiming:
        """Return the readers of own channels of a worker."""

    @abstractmethod
    async def open_process(self, broker: Broker, session: str, process: str) -> None:
        """Open a client process in a session."""

    @asynccontextmanager
    async def parties(self, count: int) -> AsyncIterator[list[Party]]:
        """Run workers, of which the first has opened a client process."""
        async with gather(self.make(count)) as parties:
            await self.open_process(parties[0].broker, SESSION, PROCESS)
            yield parties

    async def claim(self, party: Party, reader: int, start: Start, name: str = A) -> Found:
        """Let a connection read one own channel."""
        claim = self.claiming(party.broker).claim
        return (await claim(SESSION, PROCESS, reader, {name: start}))[name]

    async def read(self, party: Party, reader: int, start: Start, name: str = A) -> Window:
        """Let a connection read one own channel that there is; return the window."""
        found = await self.claim(party, reader, start, name)
        assert isinstance(found.window, Window)
        return found.window

    async def publish(self, party: Party, log: Window, *data: bytes) -> list[Position]:
        """Publish messages, and wait until they are stored."""
        stored = [party.broker.append(log, one) for one in data]
        return [await position(log, one) for one in stored]

    async def held(self, party: Party, reader: int, start: Start = First()) -> list[bytes]:  # noqa: B008 - a constant
        """Return the messages that a new reader gets."""
        found = await self.claim(party, reader, start)
        assert isinstance(found.start, Placed), found
        window, after = found.window, found.start.after
        assert isinstance(window, Window)
        count = window.top - after
        return window.seen[-count:] if count else []

    # Messages

    @pytest.mark.parametrize("count", [1, 3])
    async def test_the_reader_gets_every_message_of_every_worker(self, count: int) -> None:
        async with self.parties(count) as parties:
            logs = [await party.make_own(PROCESS, A, adopt=True) for party in parties]
            window = await self.read(parties[-1], 1, First())
            for number in range(60):
                party, log = parties[number % count], logs[number % count]
                await self.publish(party, log, b"%d" % number)
            await parties[-1].until(lambda: window.top == 60)
            assert window.seen == [b"%d" % number for number in range(60)]
            assert {log.epoch for log in logs if log.top == 60} == {window.epoch}
            assert [log.top for log in logs[:-1]] == [0] * (count - 1)

    @pytest.mark.parametrize("count", [1, 3])
    async def test_a_claim_begins_where_the_reader_asks(self, count: int) -> None:
        async with self.parties(count) as parties:
            log = await parties[0].make_own(PROCESS, A)
            places = await self.publish(parties[0], log, b"1", b"2", b"3", b"4")
            epoch = places[0].epoch
            reader = parties[-1]
            assert (await self.claim(reader, 1, Now())).start == Placed(4, epoch)
            assert (await self.claim(reader, 2, Last(3))).start == Placed(1, epoch)
            assert (await self.claim(reader, 3, First())).start == Placed(0, epoch)
            found = await self.claim(reader, 4, NEXT_INCARNATION)
            assert found.start == Placed(0, epoch)
            assert isinstance(found.window, Window)
            assert (found.window.first, found.window.top) == (1, 4)
            assert found.window.seen[-4:] == [b"1", b"2", b"3", b"4"]
            assert (await self.claim(reader, 5, Position(epoch, 5))).start == Full()
            found = await self.claim(reader, 6, Position("other", 1))
            assert (found.start, found.window is not None) == (Full(), True)
            assert isinstance(found.window, Window)
            assert (found.window.epoch, found.window.top) == (epoch, 4)

    @pytest.mark.parametrize("count", [1, 3])
    async def test_a_position_acknowledges_in_all_workers(self, count: int) -> None:
        async with self.parties(count) as parties:
            log = await parties[0].make_own(PROCESS, A)
            places = await self.publish(parties[0], log, b"1", b"2", b"3")
            assert await self.held(parties[-1], 1, places[1]) == [b"3"]
            assert await self.held(parties[0], 2) == [b"3"]
            found = await self.claim(parties[-1], 3, places[0])
            assert found.start == Full()

    @pytest.mark.parametrize("count", [1, 3])
    async def test_a_client_that_changes_the_worker_gets_each_message_once(
        self, count: int
    ) -> None:
        async with self.parties(count) as parties:
            log = await parties[0].make_own(PROCESS, A)
            start: Start = NEXT_INCARNATION
            got: list[bytes] = []
            for number in range(30):
                party = parties[number % count]
                found = await self.claim(party, number, start)
                window, place = found.window, found.start
                assert isinstance(window, Window)
                assert isinstance(place, Placed)
                await self.publish(parties[0], log, b"%d a" % number, b"%d b" % number)
                await party.until(lambda w=window, n=number: w.top == 2 * n + 2)  # type: ignore[misc]  # its own
                got += window.seen[place.after - window.top :]
                start = Position(window.epoch, window.top)
                self.claiming(party.broker).unclaim(PROCESS, number)
            assert got == [b"%d %c" % (number, one) for number in range(30) for one in b"ab"]

    @pytest.mark.parametrize("count", [1, 3])
    async def test_more_messages_than_one_answer_holds_are_read_to_the_end(
        self, count: int
    ) -> None:
        async with self.parties(count) as parties:
            log = await parties[0].make_own(PROCESS, A, size=2000)
            data = [b"%d" % number for number in range(1500)]
            await self.publish(parties[0], log, *data)
            window = await self.read(parties[-1], 1, First())
            await parties[-1].until(lambda: window.top == 1500)
            assert window.seen[-1500:] == data

    async def test_messages_that_the_window_lacks_are_recovered(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A)
            places = await self.publish(one, log, b"1", b"2", b"3")
            window = await self.read(two, 1, Now())
            run = await two.broker.recover(window, 0, 1000)
            assert run == [Message(1, b"1"), Message(2, b"2"), Message(3, b"3")]
            assert await two.broker.place(window, places[0]) == Placed(1, places[0].epoch)
            assert await two.broker.place(window, Position("other", 0)) == Full()

    # Readers

    async def test_the_newest_connection_of_all_workers_reads(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A)
            mine = await self.read(one, 1, First())
            theirs = await self.read(two, 1, First())
            await one.until(lambda: one.people.readers == [(PROCESS, 1)])
            await self.publish(one, log, b"x")
            await two.until(lambda: theirs.top == 1)
            assert (mine.seen, theirs.seen) == ([], [b"x"])
            again = await self.read(one, 2, First())
            assert again.seen == [b"x"]
            await two.until(lambda: two.people.readers == [(PROCESS, 1)])

    async def test_the_newest_connection_of_one_worker_reads(self) -> None:
        async with self.parties(1) as (one,):
            log = await one.make_own(PROCESS, A)
            window = await self.read(one, 1, First())
            await self.publish(one, log, b"x")
            assert await self.read(one, 2, First()) is window
            assert one.people.readers == [(PROCESS, 1)]
            await self.publish(one, log, b"y")
            await one.until(lambda: window.top == 2)
            assert window.seen == [b"x", b"y"]

    async def test_a_connection_asks_for_more_channels(self) -> None:
        async with self.parties(2) as (one, two):
            first, second = [await one.make_own(PROCESS, name) for name in (A, "~b c")]
            windows = [await self.read(two, 1, First(), name) for name in (A, "~b c")]
            await self.publish(one, first, b"1")
            await self.publish(one, second, b"2")
            await two.until(lambda: [log.top for log in windows] == [1, 1])
            assert [log.seen for log in windows] == [[b"1"], [b"2"]]
            assert two.people.readers == []

    async def test_the_windows_of_a_connection_that_has_gone_go_on_for_a_while(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A)
            window = await self.read(two, 1, First())
            for _ in range(2):
                self.claiming(two.broker).unclaim(PROCESS, 1)
            await self.publish(one, log, b"x")
            await two.until(lambda: window.top == 1)
            await self.claim(one, 1, First())
            await self.publish(one, log, b"y")
            assert await self.held(two, 2) == [b"x", b"y"]
            assert two.people.readers == []

    async def test_only_the_session_of_an_open_process_reads(self) -> None:
        async with self.parties(1) as (one,):
            claim = self.claiming(one.broker).claim
            with pytest.raises(Moved) as caught:
                await claim("AAother", PROCESS, 1, {A: First()})
            assert caught.value.session == SESSION
            with pytest.raises(ProcessClosed):
                await claim(SESSION, "AAunknown", 2, {A: First()})
            assert await claim(SESSION, PROCESS, 3, {}) == {}

    async def test_the_state_of_the_registration_protocol_is_of_the_reader(self) -> None:
        async with self.parties(2) as (one, two):
            mine, theirs = self.claiming(one.broker), self.claiming(two.broker)
            await mine.claim(SESSION, PROCESS, 1, {})
            assert await mine.load(PROCESS) is None
            assert await mine.save(PROCESS, 1, b"state")
            assert await theirs.load(PROCESS) == b"state"
            await theirs.claim(SESSION, PROCESS, 1, {})
            assert not await mine.save(PROCESS, 1, b"late")
            assert await theirs.save(PROCESS, 1, b"new")
            assert await mine.load(PROCESS) == b"new"

    # Names

    async def test_a_name_is_taken_once_in_its_process(self) -> None:
        async with self.parties(2) as (one, two):
            await self.open_process(one.broker, SESSION, "AAother")
            log = await one.make_own(PROCESS, A)
            await one.make_own("AAother", A)
            with pytest.raises(NonUniqueChannelName):
                await two.make_own(PROCESS, A)
            mine = await one.make_own(PROCESS, "~b", adopt=True)
            theirs = await two.make_own(PROCESS, "~b", adopt=True)
            assert await self.publish(one, mine, b"1") == [Position(mine.epoch, 1)]
            assert await self.publish(two, theirs, b"2") == [Position(mine.epoch, 2)]
            await one.broker.end(log, "ended")
            again = await two.make_own(PROCESS, A)
            assert again.epoch != log.epoch
            with pytest.raises(ChannelClosed):
                await self.publish(one, log, b"late")

    async def test_a_closed_process_gets_no_channel(self) -> None:
        async with self.parties(1) as (one,):
            with pytest.raises(ProcessClosed):
                await one.make_own("AAunknown", A)

    @pytest.mark.parametrize("count", [1, 3])
    async def test_a_reader_waits_for_a_channel_that_is_made_later(self, count: int) -> None:
        async with self.parties(count) as parties:
            reader = parties[-1]
            found = await self.claim(reader, 1, Now(), "~later")
            assert found == Found(None, Unknown())
            log = await parties[0].make_own(PROCESS, "~later")
            await self.publish(parties[0], log, b"1", b"2")
            windows = reader.people.windows
            await reader.until(lambda: (PROCESS, "~later") in windows)
            window = windows[PROCESS, "~later"]
            await reader.until(lambda: window.top == 2)
            assert window.seen == [b"1", b"2"]
            await self.publish(parties[0], log, b"3")
            await reader.until(lambda: window.top == 3)

    async def test_a_channel_for_which_no_connection_waits_has_no_window(self) -> None:
        async with self.parties(2) as (one, two):
            await self.claim(two, 1, Now(), "~other")
            await one.make_own(PROCESS, A)
            await one.make_own(PROCESS, "~other")
            await two.until(lambda: (PROCESS, "~other") in two.people.windows)
            assert (PROCESS, A) not in two.people.windows

    async def test_a_reader_that_waited_too_long_for_a_channel_is_told_of_its_end(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A)
            await self.publish(one, log, b"1")
            await one.broker.end(log, "failed")
            found = await self.claim(two, 1, NEXT_INCARNATION)
            assert isinstance(found.window, Window)
            assert isinstance(found.start, Placed)  # its messages are held for a while
            window = found.window
            await two.until(lambda: window.closed == "failed")
            assert window.seen == [b"1"]
            found = await self.claim(two, 2, Position(log.epoch, 1))
            assert found.start == Closed("failed")

    async def test_an_end_is_told_to_the_reader_after_the_last_message(self) -> None:
        async with self.parties(3) as (one, two, three):
            log = await one.make_own(PROCESS, A, adopt=True)
            other = await three.make_own(PROCESS, A, adopt=True)
            window = await self.read(two, 1, First())
            one.broker.append(log, b"last words")
            await one.broker.end(log, "ended")
            await two.until(lambda: window.closed is not None)
            assert (window.closed, window.seen) == ("ended", [b"last words"])
            with pytest.raises(ChannelClosed):
                await self.publish(three, other, b"late")
            await three.until(lambda: other.closed == "ended")

    async def test_another_channel_of_the_name_has_another_window(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A)
            window = await self.read(two, 1, First())
            await self.publish(one, log, b"old")
            await one.broker.end(log, "ended")
            new = await one.make_own(PROCESS, A)
            await self.publish(one, new, b"new")
            again = await self.read(two, 2, First())
            assert again is not window
            assert (window.closed, again.closed, again.seen) == ("ended", None, [b"new"])
            await self.read(one, 1, First())
            await one.broker.end(new, "ended")
            newest = await one.make_own(PROCESS, A)
            await self.publish(one, newest, b"newest")
            window = await self.read(two, 3, First())
            assert (again.closed, window.seen) == ("ended", [b"newest"])

    # Full

    async def test_a_channel_without_a_reader_holds_as_many_as_it_may(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A, size=3)
            await self.publish(one, log, b"1", b"2", b"3")
            window = await self.read(two, 1, First())
            with pytest.raises(ChannelFull):
                await self.publish(one, log, b"4")
            await two.until(lambda: window.closed == "full")
            await one.until(lambda: log.closed == "full")
            with pytest.raises(ChannelFull):
                one.broker.append(log, b"5")
            found = await self.claim(two, 2, Position(log.epoch, 3))
            assert found.start == Full()
            assert (await self.claim(two, 3, Now())).start == Full()

    async def test_what_was_acknowledged_makes_room(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A, size=3)
            window = await self.read(two, 1, First())
            for number in range(5):
                await self.publish(one, log, b"1", b"2", b"3")
                await two.until(lambda top=3 * number + 3: window.top == top)  # type: ignore[misc]
                two.broker.acknowledge(window, window.top)
                two.broker.acknowledge(window, window.top)
                await self.settled(two)
            assert window.closed is None

    async def test_a_worker_without_the_reader_takes_an_acknowledgement(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A, size=3)
            await self.read(two, 1, First())
            await self.publish(one, log, b"1", b"2", b"3")
            one.broker.acknowledge(log, 2)
            await self.settled(one)
            await self.publish(one, log, b"4", b"5")
            assert await self.held(two, 2) == [b"3", b"4", b"5"]

    async def test_a_worker_without_a_window_takes_an_acknowledgement(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A)
            *_, newest = await self.publish(one, log, b"1", b"2", b"3")
            log.reset(newest.epoch, 1)
            assert await one.broker.acknowledged(log) == Progress(newest.epoch, 0, 0)
            second, outdated = Position(newest.epoch, 2), Position("outdated", 3)
            for at in (second, outdated):
                self.claiming(two.broker).acknowledge(PROCESS, {A: at})
            await self.settled(two)
            assert await one.broker.acknowledged(log) == Progress(newest.epoch, 2, 2)
            assert await self.held(two, 1) == [b"3"]

    async def test_what_the_reader_skips_is_known_to_all_workers(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A)
            window = await self.read(two, 1, First())
            places = await self.publish(one, log, *[b"x"] * 8)
            await two.until(lambda: window.top == 8)
            for upto in (4, 3):  # the first one is for good
                two.broker.acknowledge(window, 2)
                await self.settled(two)
                two.broker.skip(window, 1, upto)
                two.broker.acknowledge(window, 5)
                await self.settled(two)
                known = Progress(log.epoch, 5, 5, (2, 4))
                assert await one.broker.acknowledged(log) == known
            assert (await self.claim(one, 2, places[4])).progress == known
            one.broker.acknowledge(log, 8)
            one.broker.skip(log, 5, 7)  # the report was slower than the reader
            await self.settled(one)
            two.broker.skip(window, 5, 9)  # there is no such message
            await self.settled(two)
            assert await two.broker.acknowledged(window) == Progress(log.epoch, 8, 8, (2, 7))

    async def settled(self, party: Party) -> None:
        """Return when the store has what this worker has reported before."""
        for _ in range(2):
            await anyio.lowlevel.checkpoint()
        for _ in range(2):  # the broker may send a call again
            await self.claiming(party.broker).load(PROCESS)

    async def test_a_reader_in_good_health_is_never_told_full(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A, size=100)
            window = await self.read(two, 1, First())
            for number in range(200):
                await self.publish(one, log, *[b"%d" % one_ for one_ in range(25)])
                await two.until(lambda top=25 * number + 25: window.top == top)  # type: ignore[misc]
                two.broker.mark_sent(window, window.top)
            assert (window.closed, len(window.seen)) == (None, 5000)

    async def test_what_was_never_sent_is_not_displaced(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A, size=4)
            window = await self.read(two, 1, First())
            await self.publish(one, log, b"1", b"2")
            await two.until(lambda: window.top == 2)
            two.broker.mark_sent(window, 2)
            await self.settled(two)
            await self.publish(one, log, b"3", b"4", b"5", b"6")
            with pytest.raises(ChannelFull):
                await self.publish(one, log, b"7")

    # Sources

    async def test_a_reader_asks_the_worker_with_the_source(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A, kind="unlimited", size=4, sourced=True)
            window = await self.read(two, 1, First())
            two.broker.want(window, 4)
            await one.until(lambda: log.wanted == 4)
            for number in range(4):
                stored = one.broker.append(log, b"%d" % number, sourced=True)
                await position(log, stored)
                assert (log.first, log.top) == (1, number + 1)  # its own window counts them
            await two.until(lambda: window.top == 4)
            two.broker.acknowledge(window, 2)
            two.broker.want(window, 6)
            await one.until(lambda: log.wanted == 6)

    async def test_the_source_of_a_worker_that_stops_has_failed(self) -> None:
        async with self.parties(1) as (one,):
            async with self.stopping(one) as other:
                await other.make_own(PROCESS, A, sourced=True)
                window = await self.read(one, 1, First())
            await one.until(lambda: window.closed == "failed")

    @asynccontextmanager
    async def stopping(self, party: Party) -> AsyncIterator[Party]:
        """Run one more worker on the store of another."""
        other = Party(self.another(party.broker))
        async with other.running():
            await anyio.lowlevel.checkpoint()  # the broker begins
            yield other

    @abstractmethod
    def another(self, broker: Broker) -> Broker:
        """Return one more broker on the store of another."""

    # Not for others

    async def test_a_site_channel_is_never_an_own_one(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A)
            await self.publish(one, log, b"secret")
            for name in (A, f"{PROCESS}~a", f"~{PROCESS}~a", f"~{PROCESS}~~a"):
                assert await two.broker.find(name) is None
