"""The contract of brokers for channels of client processes, which one connection reads.

Write a test class as for `testing.contract`.
"""

from __future__ import annotations

import pytest

from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.logs import Closed, Full, Placed, Unknown
from asgi_comet.brokers.people import Found
from asgi_comet.core.messages import NEXT_INCARNATION, First, Now
from asgi_comet.errors import ChannelClosed, ChannelFull, NonUniqueChannelName, ProcessClosed
from asgi_comet.position import Position
from asgi_comet.testing.party import gather, people_of, position
from asgi_comet.testing.reading_contract import PROCESS, SESSION, A, ReadingContract
from asgi_comet.testing.window import Window

__all__ = ["OwnContract"]


class OwnContract(ReadingContract):
    """The tests of own channels: those of `ReadingContract`, too."""

    # Names

    async def test_a_name_is_taken_once_in_its_process(self) -> None:
        async with self.parties(2) as (one, two):
            await people_of(one).open(SESSION, "AAother")
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
                await people_of(two).reported(PROCESS)
            assert window.closed is None

    async def test_a_worker_without_the_reader_takes_an_acknowledgement(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A, size=3)
            await self.read(two, 1, First())
            await self.publish(one, log, b"1", b"2", b"3")
            one.broker.acknowledge(log, 2)
            await people_of(one).reported(PROCESS)
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
                people_of(two).acknowledge(PROCESS, {A: at})
            await people_of(two).reported(PROCESS)
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
                await people_of(two).reported(PROCESS)
                two.broker.skip(window, 1, upto)
                two.broker.acknowledge(window, 5)
                await people_of(two).reported(PROCESS)
                known = Progress(log.epoch, 5, 5, (2, 4))
                assert await one.broker.acknowledged(log) == known
            assert (await self.claim(one, 2, places[4])).progress == known
            one.broker.acknowledge(log, 8)
            one.broker.skip(log, 5, 7)  # the report was slower than the reader
            await people_of(one).reported(PROCESS)
            two.broker.skip(window, 5, 9)  # there is no such message
            await people_of(two).reported(PROCESS)
            assert await two.broker.acknowledged(window) == Progress(log.epoch, 8, 8, (2, 7))

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
            await people_of(two).reported(PROCESS)
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
        first, last = self.make(2)
        async with gather([first]) as (one,):
            await people_of(one).open(SESSION, PROCESS)
            async with gather([last]) as (other,):
                await other.make_own(PROCESS, A, sourced=True)
                window = await self.read(one, 1, First())
            await one.until(lambda: window.closed == "failed")

    # Not for others

    async def test_a_site_channel_is_never_an_own_one(self) -> None:
        async with self.parties(2) as (one, two):
            log = await one.make_own(PROCESS, A)
            await self.publish(one, log, b"secret")
            for name in (A, f"{PROCESS}~a", f"~{PROCESS}~a", f"~{PROCESS}~~a"):
                assert await two.broker.find(name) is None
