"""Own channels of client processes, which one connection in all workers reads.

Owns which connection of this worker reads which client process, and which windows follow: a claim
fills them, and frames in the inbox of the worker go on. Must not know sessions, how a window
repairs itself, nor how a connection is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NoReturn, TypeVar

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.base import Host
from asgi_comet.brokers.logs import Closed, Placed, Unknown
from asgi_comet.brokers.people import Found, Moved
from asgi_comet.brokers.redis import people_replies
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.keys import ChannelKeys
from asgi_comet.brokers.redis.people_replies import Claimed, Missing, OwnPage, Replaced
from asgi_comet.brokers.redis.people_scripts import PeopleScripts, Reader
from asgi_comet.brokers.redis.replicas import Replica
from asgi_comet.brokers.redis.replies import Record, Reply
from asgi_comet.brokers.redis.serving import Beginning, Serving
from asgi_comet.brokers.redis.windows import OwnWindows
from asgi_comet.core.messages import NEXT_INCARNATION, Position, Start
from asgi_comet.errors import ProcessClosed

__all__ = ["Claims"]

T = TypeVar("T")

KEPT = 30.0  # seconds that windows go on without a connection, for a client that polls comes back
TICK = 5.0  # seconds between two looks at these windows
AGAIN = 500  # claims that are repeated at once
MOST_STATE = 2**20  # bytes of the state of the registration protocol

Answer = Claimed | Replaced | people_replies.Closed | people_replies.Moved
Asked = list[tuple[str, ChannelKeys, Start]]


class _Reading:
    """One client process whose own channels a connection of this worker reads, or has read.

    Attributes:
        session: The session of the connection.
        reader: The connection, as Redis knows it.
        local: The connection, as this worker knows it: a later one, if that came without a claim.
        came: Between which times of Redis the latter came, if it came without a claim.
        active: Whether the connection still reads.
        replicas: The windows, by name.
        expected: Names without a channel, for which the connection waits.
        late: Whether a channel of such a name came and went without notice.
        since: When the connection stopped reading.
    """

    __slots__ = (
        "active",
        "came",
        "expected",
        "late",
        "local",
        "reader",
        "replicas",
        "session",
        "since",
    )

    def __init__(self, session: str, reader: Reader) -> None:
        self.session: str = session
        self.reader: Reader = reader
        self.local: int = reader.number
        self.came: tuple[float, float] | None = None
        self.active: bool = True
        self.replicas: dict[str, Replica] = {}
        self.expected: set[str] = set()
        self.late: bool = False
        self.since: float = 0.0


class Claims:
    """The readers of own channels in this worker. Call in the loop's thread.

    Args:
        host: The worker, which is told of client processes that are read elsewhere.
        scripts: The scripts.
        find: Returns the call that reads the record of a channel.
        serving: The connection.
        windows: The windows on own channels.
        worker: Returns the id of this worker.
        clock: The clock.

    Attributes:
        sure: Returns whether this worker has been told of every change.
        tell_time: Returns between which times of Redis a time of the event loop was.
        check_loss: Raises `BrokerUnavailable` if Redis may have lost a missing client process.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of the broker
        self,
        host: Host,
        scripts: PeopleScripts,
        find: Callable[[ChannelKeys], Call[Record | None]],
        serving: Serving,
        windows: OwnWindows,
        worker: Callable[[], str],
        clock: Clock,
    ) -> None:
        self._host = host
        self._scripts = scripts
        self._find = find
        self._serving = serving
        self._windows = windows
        self._worker = worker
        self._clock = clock
        self._connection: Connection | None = None
        self._readings: dict[str, _Reading] = {}  # by client process
        self._idle: dict[str, _Reading] = {}  # without a connection, the longest first
        self._processes: dict[int, str] = {}  # by the number of the reader
        self._asking: set[int] = set()  # readers whose claims are under way
        self.sure: Callable[[], bool] = lambda: False
        self.tell_time: Callable[[float], tuple[float, float]] = lambda at: (at, at)
        self.check_loss: Callable[[], Awaitable[None]] = serving.up

    def __len__(self) -> int:
        return len(self._readings)

    async def claim(
        self, session: str, process: str, reader: int, starts: Mapping[str, Start]
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
        known = self._go_on(session, process, reader, starts)
        if known is not None:
            return known
        came = asyncio.get_running_loop().time()
        read = self._find_active(process, reader) is not None
        connection = await self._serving.connected()
        reading = self._find_active(process, reader)
        if read and reading is None:  # replaced meanwhile
            return _nothing(starts)
        if reading is not None:
            reading.session, reading.reader = session, replace(reading.reader, again=True)
        else:
            claimed = Reader(self._worker(), reader, came=self.tell_time(came))
            reading = _Reading(session, claimed)
        return await self._claim(connection, process, reading, starts)

    async def _claim(
        self,
        connection: Connection,
        process: str,
        reading: _Reading,
        starts: Mapping[str, Start],
    ) -> dict[str, Found]:
        reader, is_new = reading.local, self._readings.get(process) is not reading
        keys, found = self._scripts.keys.process(process), dict[str, Found]()
        asked = [(name, keys.channel(name[1:]), start) for name, start in starts.items()]

        def take(answer: Answer) -> None:
            if isinstance(answer, Claimed):
                found.update(self._begin(connection, process, reading, asked, answer))
            elif isinstance(answer, Replaced):
                self._lose(process, reading)
                found.update(_nothing(starts))

        self._asking.add(reader)
        try:
            answer = await self._ask(connection, process, reading, asked, take)
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

    def _go_on(
        self, session: str, process: str, reader: int, starts: Mapping[str, Start]
    ) -> dict[str, Found] | None:
        """Let a connection read after one of this worker that has left, if the windows suffice."""
        reading = self._readings.get(process)
        if reading is None or reading.active or reading.session != session or reading.expected:
            return None
        if not starts or starts.keys() != reading.replicas.keys() or not self.sure():
            return None
        found: dict[str, Found] = {}
        for name, start in starts.items():
            log = reading.replicas[name].log
            if not isinstance(start, Position) or not reading.replicas[name].proves(start):
                return None
            found[name] = Found(log, Placed(start.offset, start.epoch))
        for name, start in starts.items():
            assert isinstance(start, Position)  # noqa: S101 - for the type checker
            self._windows.acknowledge(reading.replicas[name].log, start.offset)
        self._idle.pop(process, None)
        reading.active, reading.local = True, reader
        reading.came = self.tell_time(asyncio.get_running_loop().time())
        return found

    def _find_active(self, process: str, reader: int) -> _Reading | None:
        """Return what a connection reads, if it reads."""
        reading = self._readings.get(process)
        reads = reading is not None and reading.active and reading.local == reader
        return reading if reads else None

    def unclaim(self, process: str, reader: int) -> None:
        """Report that a connection reads no more; its windows go on for a while. Idempotent."""
        self._asking.discard(reader)
        reading = self._find_active(process, reader)
        if reading is not None:
            self._retire(process, reading)

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
        keys, claimed = self._scripts.keys.process(process), Reader(self._worker(), reader)
        reading = self._readings.get(process)
        if reading is not None and reading.local == reader:
            claimed = reading.reader
        return await self._serving.ask(self._scripts.save(keys, claimed, state))

    def _ask(
        self,
        connection: Connection,
        process: str,
        reading: _Reading,
        asked: Asked,
        take: Callable[[Answer], None],
    ) -> asyncio.Future[Answer]:
        """Send a claim, whose answer is taken in order with the frames."""
        keys = self._scripts.keys
        named = [(channel, start) for _, channel, start in asked]
        call = self._scripts.claim(
            keys.session(reading.session), keys.process(process), reading.reader, named
        )
        return connection.send(_taking(call, take))

    def _begin(
        self,
        connection: Connection,
        process: str,
        reading: _Reading,
        asked: Asked,
        claimed: Claimed,
    ) -> dict[str, Found]:
        """Let a connection read from now on, in place of any other."""
        before, reads = self._readings.get(process), reading.reader.number in self._asking
        if before is not None and before.reader.number == reading.reader.number:
            reading, before = before, None  # the same connection asks for more
            reads = reads or reading.active
        self._readings[process] = reading
        self._idle.pop(process, None)
        reading.active = True
        self._processes[reading.reader.number] = process
        found = {}
        for (name, keys, start), one in zip(asked, claimed.pages, strict=True):
            found[name] = self._begin_one(connection, reading, name, keys, start, one)
        if before is not None:
            self._replace(process, before, reading)
        if not reads:  # the caller has gone meanwhile
            self._retire(process, reading)
        return found

    def _begin_one(
        self,
        connection: Connection,
        reading: _Reading,
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
        self._keep(reading, name, replica)
        if more and replica is not None and isinstance(start, Position):
            self._windows.acknowledge(replica.log, start.offset)
        return found

    def _keep(self, reading: _Reading, name: str, replica: Replica | None) -> None:
        if replica is None or replica.stopped:
            reading.replicas.pop(name, None)
        else:
            reading.replicas[name] = replica

    def _replace(self, process: str, before: _Reading, reading: _Reading) -> None:
        """Forget a connection of this worker in whose place another one reads."""
        self._processes.pop(before.reader.number, None)
        for name, replica in list(before.replicas.items()):
            if reading.replicas.get(name) is not replica:
                self._windows.drop(replica)
        if before.active:
            self._host.people.replaced(process, before.local)

    def _retire(self, process: str, reading: _Reading) -> None:
        reading.active, reading.since = False, self._clock.now()
        self._idle[process] = reading

    def _lose(self, process: str, reading: _Reading) -> None:
        """Tell a connection that another one reads, which came later."""
        if self._readings.get(process) is reading:
            self._drop(process, reading)
        else:
            self._host.people.replaced(process, reading.local)

    def _drop(self, process: str, reading: _Reading) -> None:
        """Forget a client process that is read elsewhere, or not at all. Idempotent."""
        self._readings.pop(process, None)
        self._idle.pop(process, None)
        self._processes.pop(reading.reader.number, None)
        for replica in list(reading.replicas.values()):
            self._windows.drop(replica)
        if reading.active:
            reading.active = False
            self._host.people.replaced(process, reading.local)

    def forget(self, replica: Replica) -> None:
        """Forget a window that is filled no more."""
        keys = replica.keys
        reading = self._readings.get(keys.owner)
        if reading is not None and reading.replicas.get(keys.shown) is replica:
            del reading.replicas[keys.shown]

    # Frames

    def take_replaced(self, frame: bytes) -> None:
        """Take a frame that reports that another worker reads a client process.

        A connection that came later, but without a claim, claims now.
        """
        number, _, latest = frame.rpartition(b":")[2].partition(b" ")
        process = self._processes.get(int(number))
        if process is None:
            return
        reading, connection = self._readings[process], self._connection
        came, reading.came = reading.came, None
        if reading.active and came and came[0] > int(latest) and connection is not None:
            self._take_over(connection, process, reading, came)
        else:
            self._drop(process, reading)

    def _take_over(
        self,
        connection: Connection,
        process: str,
        reading: _Reading,
        came: tuple[float, float],
    ) -> None:
        """Claim for a connection that came without a claim.

        The first call replaces the other reader, and the second one reads from the windows on: as
        a second claim of this connection it does not acknowledge what the windows have.
        """
        self._processes.pop(reading.reader.number)
        reading.reader = Reader(self._worker(), reading.local, came=came)
        self._processes[reading.local] = process
        self._ask(connection, process, reading, [], _ignore)
        reading.reader = replace(reading.reader, again=True)
        asked = self._ask_from_here(connection, process, reading)
        asked.add_done_callback(partial(self._claimed, process, reading))

    def _claimed(self, process: str, reading: _Reading, answer: asyncio.Future[Answer]) -> None:
        self._check(process, reading, answer.exception() or answer.result())

    def take_made(self, keys: ChannelKeys) -> None:
        """Take the report that a channel was made for which a connection may wait."""
        reading = self._readings.get(keys.owner)
        connection = self._connection
        if reading is None or connection is None or keys.shown not in reading.expected:
            return
        connection.send(_taking(self._find(keys), partial(self._join, connection, keys)))

    def _join(self, connection: Connection, keys: ChannelKeys, record: Record | None) -> None:
        reading = self._readings.get(keys.owner)
        if reading is None or not reading.active or keys.shown not in reading.expected:
            return
        if record is not None:  # else it has gone already
            reading.expected.discard(keys.shown)
            self._keep(reading, keys.shown, self._windows.join(connection, keys, record))

    # Connections

    async def begin(self, beginning: Beginning) -> None:
        """Claim again on a new connection, for each connection that reads."""
        connection = self._connection = beginning.connection
        for idle in list(self._idle.items()):
            self._drop(*idle)
        readings = list(self._readings.items())
        for first in range(0, len(readings), AGAIN):
            part = readings[first : first + AGAIN]
            asked = [self._ask_again(connection, *one) for one in part]
            for one, answer in zip(
                part, await asyncio.gather(*asked, return_exceptions=True), strict=True
            ):
                self._check(*one, answer)

    def _ask_again(
        self, connection: Connection, process: str, reading: _Reading
    ) -> asyncio.Future[Answer]:
        former = reading.reader
        worker = self._worker()
        reading.reader = replace(former, worker=worker, again=True, formerly=former.worker)
        return self._ask_from_here(connection, process, reading)

    def _ask_from_here(
        self, connection: Connection, process: str, reading: _Reading
    ) -> asyncio.Future[Answer]:
        """Send a claim from where the windows are."""
        keys = self._scripts.keys.process(process)
        asked: Asked = [
            (name, one.keys, Position(one.log.epoch, one.log.top))
            for name, one in reading.replicas.items()
        ]
        asked += [(name, keys.channel(name[1:]), NEXT_INCARNATION) for name in reading.expected]
        take = partial(self._resume, connection, reading, asked)
        return self._ask(connection, process, reading, asked, take)

    def _resume(
        self, connection: Connection, reading: _Reading, asked: Asked, answer: Answer
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

    def _check(self, process: str, reading: _Reading, answer: Answer | BaseException) -> None:
        """End a connection that reads no longer; the client comes back, and is told why."""
        reads = isinstance(answer, Claimed) and not reading.late
        # The connection has ended: claimed again on the next one.
        lost = isinstance(answer, BaseException) and not isinstance(answer, ReplyError)
        if reads or lost or self._readings.get(process) is not reading:
            return
        self._drop(process, reading)
        if isinstance(answer, people_replies.Closed):
            self._host.people.closed(process)

    async def run(self, connection: Connection) -> NoReturn:
        """Drop the windows of clients that have not come back, as long as a connection lasts."""
        del connection
        while True:
            await self._clock.sleep_until(self._clock.now() + TICK)
            over = self._clock.now() - KEPT
            for process, reading in list(self._idle.items()):
                if reading.since > over:
                    break
                self._drop(process, reading)


def _nothing(starts: Mapping[str, Start]) -> dict[str, Found]:
    """Return what a connection gets in whose place another one reads."""
    return dict.fromkeys(starts, Found(None, Unknown()))


def _ignore(_: Answer) -> None:
    """Leave an answer to the next call, which is answered alike."""


def _lacks(asked: Asked, answer: Answer) -> bool:
    """Return whether there is no trace of a channel that the client has read."""
    pairs = zip(asked, _pages_of(answer), strict=False)
    return any(
        one == Missing(past=False) and isinstance(start, Position) and start != NEXT_INCARNATION
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

    return replace(call, read=read)
