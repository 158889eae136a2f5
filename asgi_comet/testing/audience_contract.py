"""The contract of brokers for notifiers: which client processes listen, and messages to many.

Write a test class as for `testing.people_contract`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from asgi_comet.brokers.audience import Audience, Listening, Progress
from asgi_comet.brokers.base import Broker
from asgi_comet.core.messages import First
from asgi_comet.errors import ChannelClosed, ProcessClosed
from asgi_comet.position import Position
from asgi_comet.testing.party import Party, gather, new_id, people_of
from asgi_comet.testing.people_contract import ANN
from asgi_comet.testing.window import Window

__all__ = ["AudienceContract", "audience_of"]

NEWS, KEY = "news", '["a b", 1]'


def audience_of(party: Party) -> Audience:
    """Return the audience of a worker."""
    return people_of(party).audience


async def listeners(party: Party, key: str = KEY, notifier: str = NEWS) -> list[Listening]:
    """Return all client processes that listen on a key, each as often as it was returned."""
    parts = audience_of(party).listeners(notifier, key)
    return [one async for part in parts for one in part]


class Tab:
    """A client process with its channel of a notifier.

    Args:
        session: The session.
        process: The client process.

    Attributes:
        log: The window of the worker that has made the channel.
    """

    log: Window

    def __init__(self, session: str, process: str) -> None:
        self.session: str = session
        self.process: str = process

    async def make(self, party: Party, notifier: str = NEWS, size: int = 100) -> Window:
        """Make the channel of a notifier, as every worker does."""
        self.log = await party.make_own(self.process, f"~{notifier}", size=size, adopt=True)
        return self.log

    async def listen(self, party: Party, *keys: str, notifier: str = NEWS) -> None:
        """Listen on keys."""
        for key in keys or (KEY,):
            await audience_of(party).listen(self.process, notifier, key)

    async def read(self, party: Party, reader: int = 1, notifier: str = NEWS) -> Window:
        """Read the channel of a notifier from its first message on."""
        name = f"~{notifier}"
        claim = people_of(party).claim
        found = (await claim(self.session, self.process, reader, {name: First()}))[name]
        assert isinstance(found.window, Window)
        return found.window


class AudienceContract:
    """The tests of a broker that knows who listens. Implement `make` in a subclass."""

    count: int = 3
    """How many workers there are."""

    @abstractmethod
    def make(self, count: int) -> list[Broker]:
        """Return brokers on one new store."""

    @asynccontextmanager
    async def workers(self) -> AsyncIterator[list[Party]]:
        """Run the workers."""
        with anyio.fail_after(60):
            async with gather(self.make(self.count)) as parties:
                for party in parties:
                    await people_of(party).visit([])  # once the worker has joined the others
                yield parties

    @asynccontextmanager
    async def two(self) -> AsyncIterator[tuple[Party, Party]]:
        """Run the workers, of which the test uses the first one and the last one."""
        async with self.workers() as parties:
            yield parties[0], parties[-1]

    async def open(self, party: Party, session: str = "", *, size: int = 100) -> Tab:
        """Open a client process that listens on a key."""
        tab = await self.open_silent(party, session, size=size)
        await tab.listen(party)
        return tab

    async def open_silent(self, party: Party, session: str = "", *, size: int = 100) -> Tab:
        """Open a client process with a channel."""
        session = session or new_id()
        tab = Tab(session, await people_of(party).open(session, new_id(session)))
        await tab.make(party, size=size)
        return tab

    async def tell(self, party: Party, data: bytes, *tabs: Tab) -> Sequence[Position | None]:
        """Append one message to the channels of client processes."""
        return await audience_of(party).tell(f"~{NEWS}", [tab.process for tab in tabs], data)

    # Listening

    async def test_every_worker_knows_the_listeners_of_all(self) -> None:
        async with self.workers() as parties:
            tabs = [await self.open(party) for party in parties]
            expected = {Listening(tab.process, tab.session, None) for tab in tabs}
            for party in parties:
                found = await listeners(party)
                assert len(found) == len(tabs)
                assert set(found) == expected

    async def test_a_key_of_a_notifier_is_no_other_key(self) -> None:
        async with self.two() as (one, other):
            tab = await self.open(one)
            await tab.make(one, "other")
            await tab.listen(one, '"x"', notifier="other")
            await tab.listen(one, '"é 1"', "1")
            for key, notifier in (('"x"', NEWS), (KEY, "other"), ("10", NEWS)):
                assert await listeners(other, key, notifier) == []
            for key, notifier in ((KEY, NEWS), ("1", NEWS), ('"é 1"', NEWS), ('"x"', "other")):
                (found,) = await listeners(other, key, notifier)
                assert found.process == tab.process

    async def test_to_listen_twice_is_to_listen_once(self) -> None:
        async with self.workers() as parties:
            one, other = parties[0], parties[-1]
            tab = await self.open(one)
            for party in parties:
                await tab.listen(party)
            assert len(await listeners(other)) == 1
            for _ in range(2):
                await audience_of(other).unlisten(tab.process, NEWS, KEY)
                assert await listeners(one) == []
            await tab.listen(other)
            assert len(await listeners(one)) == 1

    async def test_a_listener_has_the_present_session_and_user(self) -> None:
        async with self.two() as (one, other):
            tab = await self.open(one)
            new = new_id(tab.session)
            await people_of(one).move(tab.session, new, user=ANN, keep=True)
            assert await listeners(other) == [Listening(tab.process, new, ANN)]

    async def test_a_closed_process_neither_listens_nor_begins_to(self) -> None:
        async with self.workers() as parties:
            one, other = parties[0], parties[-1]
            tab = await self.open(one)
            await people_of(other).close(tab.session, tab.process)
            for party in parties:
                assert await listeners(party) == []
                with pytest.raises(ProcessClosed):
                    await tab.listen(party)
            await audience_of(one).unlisten(tab.process, NEWS, KEY)
            with pytest.raises(ProcessClosed):
                await audience_of(one).listen(new_id(), NEWS, KEY)

    async def test_a_process_listens_by_a_live_channel(self) -> None:
        async with self.two() as (one, other):
            session = new_id()
            tab = Tab(session, await people_of(one).open(session, new_id(session)))
            with pytest.raises(ChannelClosed):
                await tab.listen(other)
            log = await tab.make(one)
            await tab.listen(other)
            await one.broker.end(log, "ended")
            with pytest.raises(ChannelClosed):
                await tab.listen(other)

    # Messages

    async def test_a_message_reaches_readers_of_every_worker(self) -> None:
        async with self.workers() as parties:
            tabs = [await self.open(party) for party in parties * 2]
            windows = [await tab.read(party) for tab, party in zip(tabs, parties * 2, strict=True)]
            unread = await self.open(parties[0])
            for number in range(30):
                party = parties[number % self.count]
                told = await self.tell(party, b"%d" % number, *tabs, unread)
                assert [at.offset for at in told if at] == [number + 1] * (len(tabs) + 1)
            expected = [b"%d" % number for number in range(30)]
            for window, party in zip(windows, parties * 2, strict=True):
                await party.until(lambda x=window: x.top == 30)  # type: ignore[misc]
                assert window.seen == expected
                assert window.epoch in {at.epoch for at in told if at}
            assert (await unread.read(parties[-1])).seen == expected

    async def test_messages_of_one_worker_are_stored_in_the_order_of_the_calls(self) -> None:
        async with self.two() as (one, other):
            first, second = [await self.open(one, size=1000) for _ in range(2)]
            window = await first.read(other)
            async with anyio.create_task_group() as tasks:

                async def tell(begun: anyio.Event, number: int, *tabs: Tab) -> None:
                    begun.set()
                    await self.tell(one, b"%d" % number, *tabs)

                for number in range(0, 300, 3):
                    for count, told in ((0, [first, second]), (2, [first])):
                        begun = anyio.Event()
                        tasks.start_soon(tell, begun, number + count, *told)
                        await begun.wait()
                        if count == 0:
                            one.broker.append(first.log, b"%d" % (number + 1))
            await other.until(lambda: window.top == 300)
            assert window.seen == [b"%d" % number for number in range(300)]
            assert (await second.read(other)).seen == [b"%d" % n for n in range(0, 300, 3)]

    async def test_messages_to_one_each_are_stored_in_their_order(self) -> None:
        async with self.two() as (one, other):
            tabs = [await self.open(one, size=1000) for _ in range(3)]
            closed = await self.open(one)
            await people_of(one).close(closed.session, closed.process)
            windows = [await tab.read(other) for tab in tabs]
            every = [tab.process for tab in (*tabs, closed)] * 200
            messages = [(process, b"%d" % number) for number, process in enumerate(every)]
            told = await audience_of(one).tell_each(f"~{NEWS}", messages)
            assert told[3::4] == [None] * 200
            offsets = [at.offset for at in told if isinstance(at, Position)]
            assert offsets == [1 + number // 3 for number in range(600)]
            for number, window in enumerate(windows):
                await other.until(lambda x=window: x.top == 200)  # type: ignore[misc]
                assert window.seen == [b"%d" % index for index in range(number, 800, 4)]

    async def test_large_messages_arrive_whole(self) -> None:
        async with self.two() as (one, other):
            tabs = [await self.open(one) for _ in range(3)]
            windows = [await tab.read(other) for tab in tabs]
            messages = [b"%d:\n 1 2\n" % size + b"x" * size for size in (1, 10_000, 400_000)]
            async with anyio.create_task_group() as tasks:
                for data in messages:
                    tasks.start_soon(self.tell, one, data, *tabs)
                    await anyio.lowlevel.checkpoint()
            for window in windows:
                await other.until(lambda x=window: x.top == 3)  # type: ignore[misc]
                assert window.seen == messages

    async def test_what_there_is_no_channel_for_is_told_nobody(self) -> None:
        async with self.two() as (one, other):
            live, closed, ended = [await self.open(one) for _ in range(3)]
            session = new_id()
            none = Tab(session, await people_of(one).open(session, new_id(session)))
            await people_of(one).close(closed.session, closed.process)
            await one.broker.end(ended.log, "ended")
            told = await self.tell(other, b"1", closed, live, none, ended)
            assert [at and at.offset for at in told] == [None, 1, None, None]
            assert [one.process for one in await listeners(other)] == [live.process]
            assert await audience_of(other).tell(f"~{NEWS}", [], b"1") == []

    async def test_a_full_channel_ends_and_its_keys_are_forgotten(self) -> None:
        async with self.two() as (one, other):
            tab = await self.open(one, size=3)
            await tab.make(one, "other")
            await tab.listen(one, notifier="other")
            await tab.listen(one, "2", "3")
            for number in range(3):
                (told,) = await self.tell(other, b"%d" % number, tab)
                assert told is not None
                assert told.offset == number + 1
            window = await tab.read(other)
            assert await self.tell(one, b"4", tab) == [None]
            await other.until(lambda: window.closed == "full")
            assert await self.tell(other, b"5", tab) == [None]
            for key in (KEY, "2", "3"):
                assert await listeners(other, key) == []
            assert len(await listeners(other, notifier="other")) == 1
            with pytest.raises(ChannelClosed):
                await tab.listen(other)
            one.people.windows.clear()
            await tab.make(one, size=3)
            await tab.listen(other, "2")
            (told,) = await self.tell(other, b"6", tab)
            assert told is not None
            assert told.offset == 1
            assert await listeners(one) == await listeners(one, "3") == []
            assert len(await listeners(one, "2")) == 1

    async def test_what_was_sent_makes_room(self) -> None:
        async with self.two() as (one, other):
            tab = await self.open(one, size=3)
            window = await tab.read(other)
            for number in range(30):
                (told,) = await self.tell(one, b"%d" % number, tab)
                assert told is not None
                await other.until(lambda n=number: window.top == n + 1)  # type: ignore[misc]
                other.broker.mark_sent(window, window.top)
                await self._progress(other, tab, window.top)
            assert window.closed is None

    async def test_a_channel_that_is_filled_too_slowly_is_full(self) -> None:
        async with self.two() as (one, other):
            tab = await self.open(one)
            window = await tab.read(other)
            await audience_of(one).overflow(f"~{NEWS}", tab.process)
            await other.until(lambda: window.closed == "full")
            assert await self.tell(other, b"1", tab) == [None]
            assert await listeners(other) == []
            await audience_of(other).overflow(f"~{NEWS}", tab.process)
            await audience_of(other).overflow(f"~{NEWS}", new_id())

    async def test_the_progress_of_each_client_is_known_to_all(self) -> None:
        async with self.two() as (one, other):
            tab, unread = [await self.open(one) for _ in range(2)]
            (told, *_) = [await self.tell(one, b"%d" % number, tab, unread) for number in range(3)]
            assert told[0] is not None
            assert told[1] is not None
            epoch = told[0].epoch
            processes = [tab.process, new_id(), unread.process]
            before = await audience_of(other).progress(f"~{NEWS}", processes)
            assert before == [Progress(epoch, 0, 0), None, Progress(told[1].epoch, 0, 0)]
            window = await tab.read(other)
            other.broker.mark_sent(window, 3)
            assert (await self._progress(one, tab, 3)).acknowledged == 0
            other.broker.acknowledge(window, 2)
            while (await self._progress(other, tab, 3)).acknowledged < 2:
                pass
            assert (await self._progress(other, tab, 3)).acknowledged == 2
            assert await audience_of(one).progress(f"~{NEWS}", [tab.process]) == [
                Progress(epoch, 3, 2)
            ]
            other.broker.skip(window, 2, 3)
            other.broker.acknowledge(window, 3)
            while (await self._progress(one, tab, 3)).acknowledged < 3:
                pass
            assert await self._progress(one, tab, 3) == Progress(epoch, 3, 3, (2, 3))

    async def _progress(self, party: Party, tab: Tab, sent: int) -> Progress:
        """Return the progress, once the store knows what was sent."""
        while True:
            (found,) = await audience_of(party).progress(f"~{NEWS}", [tab.process])
            assert found is not None
            if found.sent >= sent:
                return found

    # Many

    async def test_many_listeners_are_each_told_once(self) -> None:
        count = 700
        async with self.workers() as parties:
            one, other = parties[0], parties[-1]
            tabs: list[Tab] = []

            async def open_(party: Party) -> None:
                tabs.append(await self.open(party))

            async with anyio.create_task_group() as tasks:
                for number in range(count):
                    tasks.start_soon(open_, parties[number % self.count])
            windows = [await tab.read(other) for tab in tabs[:50]]
            found = await listeners(other)
            assert len(found) == count
            assert {item.process for item in found} == {tab.process for tab in tabs}
            told = await audience_of(one).tell(f"~{NEWS}", [i.process for i in found], b"1")
            assert [at and at.offset for at in told] == [1] * count
            for window in windows:
                await other.until(lambda x=window: x.top == 1)  # type: ignore[misc]
                assert window.seen == [b"1"]

    async def test_those_that_listen_all_the_time_are_returned_while_others_come_and_go(
        self,
    ) -> None:
        async with self.two() as (one, other):
            staying = {(await self.open(one)).process for _ in range(150)}
            passing = [await self.open_silent(one) for _ in range(20)]
            stop = False

            async def come_and_go() -> None:
                while not stop:
                    for tab in passing:
                        await tab.listen(one)
                    for tab in passing:
                        await audience_of(one).unlisten(tab.process, NEWS, KEY)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(come_and_go)
                for _ in range(20):
                    found = [item.process for item in await listeners(other)]
                    assert len(found) == len(set(found))
                    assert staying <= set(found)
                stop = True
            assert {item.process for item in await listeners(other)} == staying
