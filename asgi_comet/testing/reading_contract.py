"""The contract of brokers for the readers of own channels: which connection reads, from where on.

`OwnContract` adds how such a channel is made and ends.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import Full, Placed, Unknown
from asgi_comet.brokers.people import Found, Moved
from asgi_comet.core.messages import NEXT_INCARNATION, First, Last, Message, Now, Start
from asgi_comet.errors import ProcessClosed
from asgi_comet.position import Position
from asgi_comet.testing.party import Party, gather, people_of, position
from asgi_comet.testing.window import Window

__all__ = ["PROCESS", "SESSION", "A", "At", "ReadingContract"]

SESSION, PROCESS = "AAsession", "AAprocess"
A = "~a"
EARLIER = 60.0  # seconds, more than any two workers differ about a time


@dataclass
class At:
    """The arrival of a connection.

    Attributes:
        came: See `Arrival`.
        gone: Whether the client has disconnected.
    """

    came: float
    gone: bool = False

    async def confirm(self) -> None:
        """Raise an error if the client has disconnected."""
        if self.gone:
            raise ConnectionError


class ReadingContract:
    """The tests of readers. Implement `make` in a subclass."""

    @abstractmethod
    def make(self, count: int) -> list[Broker]:
        """Return brokers on one new store."""

    @asynccontextmanager
    async def parties(self, count: int) -> AsyncIterator[list[Party]]:
        """Run workers, of which the first has opened a client process."""
        async with gather(self.make(count)) as parties:
            await people_of(parties[0]).open(SESSION, PROCESS)
            yield parties

    async def claim(self, party: Party, reader: int, start: Start, name: str = A) -> Found:
        """Let a connection read one own channel."""
        claim = people_of(party).claim
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
                people_of(party).unclaim(PROCESS, number)
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
                people_of(two).unclaim(PROCESS, 1)
            await self.publish(one, log, b"x")
            await two.until(lambda: window.top == 1)
            await self.claim(one, 1, First())
            await self.publish(one, log, b"y")
            assert await self.held(two, 2) == [b"x", b"y"]
            assert two.people.readers == []

    @pytest.mark.parametrize("count", [1, 2])
    async def test_the_connection_that_came_last_reads(self, count: int) -> None:
        async with self.parties(count) as parties:
            one, two = parties[0], parties[-1]
            mine, theirs = people_of(one), people_of(two)
            await one.make_own(PROCESS, A)
            now, nothing = time.monotonic(), {A: Found(None, Unknown())}
            starts: dict[str, Start] = {A: First()}
            await mine.claim(SESSION, PROCESS, 1, starts, At(now))
            assert await theirs.claim(SESSION, PROCESS, 2, starts, At(now - EARLIER)) == nothing
            await two.until(lambda: two.people.readers == [(PROCESS, 2)])
            assert await mine.save(PROCESS, 1, b"of the one that came last")
            found = await mine.claim(SESSION, PROCESS, 1, starts, At(now - 2 * EARLIER))
            assert found != nothing  # it reads already
            await theirs.claim(SESSION, PROCESS, 3, starts)
            assert await mine.claim(SESSION, PROCESS, 4, starts, At(now - EARLIER)) == nothing
            assert await theirs.save(PROCESS, 3, b"of the one that came now")

    async def test_a_connection_whose_client_has_gone_claims_nothing(self) -> None:
        async with self.parties(1) as (one,):
            await one.make_own(PROCESS, A)
            claiming, gone = people_of(one), At(time.monotonic(), gone=True)
            with pytest.raises(ConnectionError):
                await claiming.claim(SESSION, PROCESS, 1, {A: First()}, gone)
            assert not await claiming.save(PROCESS, 1, b"state")
            await claiming.claim(SESSION, PROCESS, 2, {A: First()})
            found = await claiming.claim(SESSION, PROCESS, 2, {"~b": First()}, gone)
            assert found == {"~b": Found(None, Unknown())}  # it read before it went
            assert one.people.readers == []
            assert await claiming.save(PROCESS, 2, b"state")

    async def test_only_the_session_of_an_open_process_reads(self) -> None:
        async with self.parties(1) as (one,):
            claim = people_of(one).claim
            with pytest.raises(Moved) as caught:
                await claim("AAother", PROCESS, 1, {A: First()})
            assert caught.value.session == SESSION
            with pytest.raises(ProcessClosed):
                await claim(SESSION, "AAunknown", 2, {A: First()})
            assert await claim(SESSION, PROCESS, 3, {}) == {}

    async def test_the_state_of_the_registration_protocol_is_of_the_reader(self) -> None:
        async with self.parties(2) as (one, two):
            mine, theirs = people_of(one), people_of(two)
            await mine.claim(SESSION, PROCESS, 1, {})
            assert await mine.load(PROCESS) is None
            assert await mine.save(PROCESS, 1, b"state")
            assert await theirs.load(PROCESS) == b"state"
            await theirs.claim(SESSION, PROCESS, 1, {})
            assert not await mine.save(PROCESS, 1, b"late")
            assert await theirs.save(PROCESS, 1, b"new")
            assert await mine.load(PROCESS) == b"new"
