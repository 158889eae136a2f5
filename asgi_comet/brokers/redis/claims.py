"""Own channels of client processes, which one connection in all workers reads.

Owns how a connection of this worker becomes the reader, and stays it on a new connection to Redis:
a claim fills its windows, and frames in the inbox of the worker go on. Must not know sessions, how
a window repairs itself, nor how a connection is made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

from asgi_comet.brokers.logs import Closed, Unknown
from asgi_comet.brokers.people import Arrival, Found, Moved
from asgi_comet.brokers.redis import people_replies
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.keys import ChannelKeys
from asgi_comet.brokers.redis.people_calls import Reader
from asgi_comet.brokers.redis.people_replies import Claimed, Missing, OwnPage, Replaced
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.readings import Reading, Readings
from asgi_comet.brokers.redis.replies import Record, Reply
from asgi_comet.brokers.redis.serving import Beginning, Serving
from asgi_comet.brokers.redis.windows import OwnWindows
from asgi_comet.core.messages import NEXT_INCARNATION, Start
from asgi_comet.errors import ProcessClosed
from asgi_comet.position import Position

__all__ = ["Claims"]

T = TypeVar("T")

AGAIN = 500  # claims that are repeated at once
MOST_STATE = 2**20  # bytes of the state of the registration protocol

Answer = Claimed | Replaced | people_replies.Closed | people_replies.Moved
Asked = list[tuple[str, ChannelKeys, Start]]


class Claims:
    """The readers of own channels in this worker. Call in the loop's thread.

    Args:
        readings: The client processes that connections of this worker read.
        scripts: The scripts.
        find: Returns the call that reads the record of a channel.
        serving: The connection.
        windows: The windows on own channels.
        heartbeat: Knows the id of this worker, and the time of Redis.

    Attributes:
        sure: Returns whether this worker has been told of every change.
        check_loss: Raises `BrokerUnavailable` if Redis may have lost a missing client process.
    """

    def __init__(
        self,
        readings: Readings,
        scripts: PeopleScripts,
        find: Callable[[ChannelKeys], Call[Record | None]],
        serving: Serving,
        windows: OwnWindows,
        heartbeat: Heartbeat,
    ) -> None:
        self.readings: Readings = readings
        self._scripts = scripts
        self._find = find
        self._serving = serving
        self._windows = windows
        self._heartbeat = heartbeat
        self._connection: Connection | None = None
        self._asking: set[int] = set()  # readers whose claims are under way
        self.sure: Callable[[], bool] = lambda: False
        self.check_loss: Callable[[], Awaitable[None]] = serving.up

    async def claim(
        self,
        session: str,
        process: str,
        reader: int,
        starts: Mapping[str, Start],
        arrival: Arrival | None,
    ) -> dict[str, Found]:
        """Let a connection of this worker read own channels, see `People.claim`.

        A client that polls and comes back to this worker needs no claim: the worker has not been
        told of another reader, so its windows have all messages.

        A channel that is full begins with `Full`, and the worker was told of its end before.

        Raises:
            BrokerUnavailable: Redis did not answer, or may have lost the process.
            Moved: The process is of another session.
            ProcessClosed: The process has closed.
        """
        came = time.monotonic() if arrival is None else arrival.came
        if self.sure():
            known = self.readings.go_on(
                session, process, reader, self._heartbeat.time.tell(came), starts
            )
            if known is not None:
                return known
        read = self.readings.find_active(process, reader) is not None
        if arrival is not None and not read:
            await arrival.confirm()
        connection = await self._serving.connected()
        reading = self.readings.find_active(process, reader)
        if read and reading is None:  # replaced meanwhile
            return _nothing(starts)
        if reading is not None:
            reading.session, reading.reader = session, reading.reader._replace(again=True)
        else:
            claimed = Reader(self._heartbeat.worker, reader, came=self._heartbeat.time.tell(came))
            reading = Reading(session, self._scripts.keys.process(process), claimed)
        return await self._claim(connection, process, reading, starts)

    async def _claim(
        self,
        connection: Connection,
        process: str,
        reading: Reading,
        starts: Mapping[str, Start],
    ) -> dict[str, Found]:
        reader, is_new = reading.local, self.readings.find(process) is not reading
        found = dict[str, Found]()
        asked = [(name, reading.keys.channel(name[1:]), start) for name, start in starts.items()]

        def take(answer: Answer) -> None:
            if isinstance(answer, Claimed):
                found.update(self._begin(connection, process, reading, asked, answer))
            elif isinstance(answer, Replaced):
                self.readings.lose(process, reading)
                found.update(_nothing(starts))

        self._asking.add(reader)
        try:
            answer = await self._ask(connection, reading, asked, take)
            await self._check_found(asked, answer)
        except BaseException:
            if is_new:  # the caller does not know the connection as the reader
                self.unclaim(process, reader)
            raise
        finally:
            self._asking.discard(reader)
        match answer:
            case people_replies.Moved(other):
                raise Moved(other)
            case people_replies.Closed():
                raise ProcessClosed(process)
            case _:
                return found

    async def _check_found(self, asked: Asked, answer: Answer) -> None:
        """Raise `BrokerUnavailable` if Redis may have lost what is missing."""
        if isinstance(answer, people_replies.Closed) or _lacks(asked, answer):
            await self.check_loss()

    def unclaim(self, process: str, reader: int) -> None:
        """Report that a connection reads no more; its windows go on for a while. Idempotent."""
        self._asking.discard(reader)
        reading = self.readings.find_active(process, reader)
        if reading is not None:
            self.readings.retire(process, reading)

    async def load(self, process: str) -> bytes | None:
        """Return the state of the registration protocol; `None` if there is none."""
        return await self._serving.ask(self._scripts.load(self._scripts.keys.process(process)))

    async def save(self, process: str, reader: int, state: bytes) -> bool:
        """Store the state of the registration protocol if a reader still reads; return whether.

        Raises:
            ValueError: The state is too large.
        """
        if len(state) > MOST_STATE:
            raise ValueError(f"expected at most {MOST_STATE} bytes of state, got {len(state)}")
        keys, claimed = self._scripts.keys.process(process), Reader(self._heartbeat.worker, reader)
        reading = self.readings.find(process)
        if reading is not None and reading.local == reader:
            claimed = reading.reader
        return await self._serving.ask(self._scripts.save(keys, claimed, state))

    def _ask(
        self,
        connection: Connection,
        reading: Reading,
        asked: Asked,
        take: Callable[[Answer], None],
    ) -> asyncio.Future[Answer]:
        """Send a claim, whose answer is taken in order with the frames."""
        session = self._scripts.keys.session(reading.session)
        named = [(channel, start) for _, channel, start in asked]
        call = self._scripts.claim(session, reading.keys, reading.reader, named)
        return connection.send(_taking(call, take))

    def _begin(
        self,
        connection: Connection,
        process: str,
        reading: Reading,
        asked: Asked,
        claimed: Claimed,
    ) -> dict[str, Found]:
        """Let a connection read from now on, in place of any other."""
        before, reads = self.readings.find(process), reading.reader.number in self._asking
        if before is not None and before.reader.number == reading.reader.number:
            reading, before = before, None  # the same connection asks for more
            reads = reads or reading.active
        self.readings.begin(process, reading)
        found = {}
        for (name, keys, start), one in zip(asked, claimed.pages, strict=True):
            found[name] = self._begin_one(connection, reading, name, keys, start, one)
        if before is not None:
            self.readings.replace(process, before, reading)
        if not reads:  # the caller has gone meanwhile
            self.readings.retire(process, reading)
        return found

    def _begin_one(
        self,
        connection: Connection,
        reading: Reading,
        name: str,
        keys: ChannelKeys,
        start: Start,
        one: OwnPage | Missing,
    ) -> Found:
        if isinstance(one, Missing):
            if not one.past:
                reading.expected.add(name)
            return Found(None, Closed("ended") if one.past else Unknown())
        reading.expected.discard(name)
        more = reading.reader.again  # such a claim acknowledges nothing
        got = one.page.after or 0 if isinstance(start, Position) and not more else 0
        replica, found = self._windows.begin(connection, keys, one, got=got)
        reading.keep(name, replica)
        if more and replica is not None and isinstance(start, Position):
            self._windows.acknowledge(replica.log, start.offset)
        return found

    # Frames

    def take_replaced(self, frame: bytes) -> None:
        """Take a frame that reports that another worker reads a client process.

        A connection that came later, but without a claim, claims now.
        """
        number, _, latest = frame.rpartition(b":")[2].partition(b" ")
        found = self.readings.find_by_number(int(number))
        if found is None:
            return
        (process, reading), connection = found, self._connection
        came, reading.came = reading.came, None
        if reading.active and came and came[0] > int(latest) and connection is not None:
            self._take_over(connection, process, reading, came)
        else:
            self.readings.drop(process, reading)

    def _take_over(
        self,
        connection: Connection,
        process: str,
        reading: Reading,
        came: tuple[float, float],
    ) -> None:
        """Claim for a connection that came without a claim.

        The first call replaces the other reader, and the second one reads from the windows on: as
        a second claim of this connection it does not acknowledge what the windows have.
        """
        self.readings.rename(
            process, reading, Reader(self._heartbeat.worker, reading.local, came=came)
        )
        self._ask(connection, reading, [], _ignore)
        reading.reader = reading.reader._replace(again=True)
        asked = self._ask_from_here(connection, reading)
        asked.add_done_callback(partial(self._claimed, process, reading))

    def _claimed(self, process: str, reading: Reading, answer: asyncio.Future[Answer]) -> None:
        self._check(process, reading, answer.exception() or answer.result())

    def take_made(self, keys: ChannelKeys) -> None:
        """Take the report that a channel was made for which a connection may wait."""
        reading = self.readings.find(keys.owner)
        connection = self._connection
        if reading is None or connection is None or keys.shown not in reading.expected:
            return
        connection.send(_taking(self._find(keys), partial(self._join, connection, keys)))

    def _join(self, connection: Connection, keys: ChannelKeys, record: Record | None) -> None:
        reading = self.readings.find(keys.owner)
        if reading is None or not reading.active or keys.shown not in reading.expected:
            return
        if record is not None:  # else it has gone already
            reading.expected.discard(keys.shown)
            reading.keep(keys.shown, self._windows.join(connection, keys, record))

    # Connections

    async def begin(self, beginning: Beginning) -> None:
        """Claim again on a new connection, for each connection that reads."""
        connection = self._connection = beginning.connection
        self.readings.drop_idle()
        readings = self.readings.all()
        for first in range(0, len(readings), AGAIN):
            part = readings[first : first + AGAIN]
            asked = [self._ask_again(connection, reading) for _, reading in part]
            for one, answer in zip(
                part, await asyncio.gather(*asked, return_exceptions=True), strict=True
            ):
                self._check(*one, answer)

    def _ask_again(self, connection: Connection, reading: Reading) -> asyncio.Future[Answer]:
        former = reading.reader
        worker = self._heartbeat.worker
        reading.reader = former._replace(worker=worker, again=True, formerly=former.worker)
        return self._ask_from_here(connection, reading)

    def _ask_from_here(self, connection: Connection, reading: Reading) -> asyncio.Future[Answer]:
        """Send a claim from where the windows are."""
        asked: Asked = [
            (name, one.keys, Position(one.log.epoch, one.log.top))
            for name, one in reading.replicas.items()
        ]
        asked += [
            (name, reading.keys.channel(name[1:]), NEXT_INCARNATION) for name in reading.expected
        ]
        take = partial(self._resume, connection, reading, asked)
        return self._ask(connection, reading, asked, take)

    def _resume(
        self, connection: Connection, reading: Reading, asked: Asked, answer: Answer
    ) -> None:
        """Go on with the windows of a connection that still reads."""
        for (name, keys, start), one in zip(asked, _pages_of(answer), strict=False):
            replica = reading.replicas.get(name)
            if replica is None:
                reading.late |= one == Missing(past=True)
                self._begin_one(connection, reading, name, keys, start, one)
            elif isinstance(one, Missing):
                replica.catch_up(connection)  # opens the channel again if Redis has lost it
            else:
                self._windows.resume(connection, replica, one.page)

    def _check(self, process: str, reading: Reading, answer: Answer | BaseException) -> None:
        """End a connection that reads no longer; the client comes back, and is told why."""
        reads = isinstance(answer, Claimed) and not reading.late
        # The connection has ended: claimed again on the next one.
        lost = isinstance(answer, BaseException) and not isinstance(answer, ReplyError)
        if reads or lost or self.readings.find(process) is not reading:
            return
        if isinstance(answer, people_replies.Closed):
            self.readings.close(process, reading)
        else:
            self.readings.drop(process, reading)


def _nothing(starts: Mapping[str, Start]) -> dict[str, Found]:
    """Return what a connection gets in whose place another one reads."""
    return dict.fromkeys(starts, Found(None, Unknown()))


def _ignore(_: Answer) -> None:
    """Leave an answer to the next call, which is answered alike."""


def _lacks(asked: Asked, answer: Answer) -> bool:
    """Return whether there is no trace of a channel that the client has read."""
    pairs = zip(asked, _pages_of(answer), strict=False)
    return any(
        isinstance(one, Missing)
        and not one.past
        and isinstance(start, Position)
        and start != NEXT_INCARNATION
        for (_, _, start), one in pairs
    )


def _pages_of(answer: object) -> tuple[OwnPage | Missing, ...]:
    return answer.pages if isinstance(answer, Claimed) else ()


def _taking(call: Call[T], take: Callable[[T], None]) -> Call[T]:
    """Return a call whose value is taken as soon as it arrives, in order with the frames."""

    def read(reply: Reply) -> T:
        value = call.read(reply)
        take(value)
        return value

    return Call(call.command, read, call.script, call.channel)
