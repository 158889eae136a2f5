"""The client processes of which this worker has connections or state.

Owns the table of these client processes, which Redis is told of on each new connection, and again
every minute. Must not know how a client process closes, nor which workers are told.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import NoReturn

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.people import SessionState
from asgi_comet.brokers.redis import lua
from asgi_comet.brokers.redis.asking import Asking
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.control_scripts import ControlScripts
from asgi_comet.brokers.redis.entries import Change
from asgi_comet.brokers.redis.foreign import passing_over
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.people_calls import Announced
from asgi_comet.brokers.redis.people_replies import Closed, Entered, Moved
from asgi_comet.brokers.redis.people_scripts import Held, PeopleScripts
from asgi_comet.brokers.redis.scripts import load
from asgi_comet.brokers.redis.serving import Beginning

__all__ = ["Presence"]

TOUCH = 60.0  # seconds between two postponements of the deadlines
MOST = 500  # client processes in one call
NOTED = 10_000  # sessions whose state a worker remembers
HOUR = 60  # of these
LEFT = 60.0  # seconds after its last connection, in which a lost client process is opened again


@dataclass(slots=True)
class _Copy:
    """A client process of this worker.

    Attributes:
        session: The session.
        worker: The id under which the worker has reported it.
        connected: Whether the worker has a connection.
        held: Whether the worker keeps state.
        left: When the last connection ended, or the copy was made.
        told: Whether Redis has confirmed that the worker has left.
        dropping: Whether Redis has not confirmed that the worker keeps no state.
        buried: The count of `Heartbeat.losses` up to which Redis has forgotten dead workers; -1
            if any may be left.
    """

    session: str
    worker: str
    connected: bool = False
    held: bool = False
    left: float = 0.0
    told: bool = True
    dropping: bool = False
    buried: int = -1


class Presence:
    """The client processes of one worker.

    Args:
        people: The scripts of people.
        control: The scripts of the index of users.
        asking: Runs scripts.
        heartbeat: Has the id of the worker.
        clock: The clock.

    Attributes:
        on_closed: Called with each client process that has closed.
        on_forgotten: Called with each client process that this worker forgets.
        on_moved: Called with the former and the present id of a session, if this worker has not
            heard of the present id.
    """

    def __init__(
        self,
        people: PeopleScripts,
        control: ControlScripts,
        asking: Asking,
        heartbeat: Heartbeat,
        clock: Clock,
    ) -> None:
        self.on_closed: Callable[[str], None] = _ignore
        self.on_forgotten: Callable[[str], None] = _ignore
        self.on_moved: Callable[[str, str], Awaitable[None]] = _ignore_move
        self._people = people
        self._control = control
        self._asking = asking
        self._heartbeat = heartbeat
        self._clock = clock
        self._connection: Connection | None = None
        self._copies: dict[str, _Copy] = {}
        self._of: dict[str, set[str]] = {}  # by session
        self._doubts: list[tuple[str, _Copy, Held]] = []
        self._work = asyncio.Event()
        self._notes: OrderedDict[str, SessionState] = OrderedDict()  # the last used last

    def __len__(self) -> int:
        return len(self._copies)

    def __contains__(self, process: str) -> bool:
        return process in self._copies

    # What this worker knows of sessions

    def note(self, state: SessionState) -> None:
        """Remember the state of a session, for the case that Redis loses it."""
        self._notes[state.id] = state
        self._notes.move_to_end(state.id)
        while len(self._notes) > NOTED + len(self._of):
            id_, oldest = self._notes.popitem(last=False)
            if id_ in self._of:
                self._notes[id_] = oldest  # as the last one

    def note_opened(self, session: str) -> None:
        """Remember a session in which this worker has opened a client process, also a new one."""
        self.note(self._notes.get(session, SessionState(id=session)))

    def note_default(self, session: str, process: str) -> None:
        """Remember the new default process of a session."""
        state = self._notes.get(session, SessionState(id=session))
        self.note(replace(state, default=process, defaults=state.defaults + 1))

    def move(self, change: Change) -> None:
        """Give client processes the present id of their session."""
        before = self._notes.pop(change.session, SessionState(id=change.session))
        default = before.default
        self.note(SessionState(id=change.new, user=change.user, default=default, kept=change.keep))
        for process in self._of.pop(change.session, ()):
            self._copies[process].session = change.new
            self._of.setdefault(change.new, set()).add(process)

    # Reports of this worker

    def enter(self, session: str, process: str, *, tell: bool = True) -> None:
        """Record a connection of a client process.

        Args:
            session: The session.
            process: The client process.
            tell: Whether Redis is to be told; else it knows.
        """
        copy = self._add(session, process)
        copy.connected, copy.told = True, True
        if tell and self._connection is not None:
            self._send_enter(self._connection, process, copy)

    def leave(self, process: str, idle: float) -> None:
        """Record that the last connection of a client process ended `idle` seconds ago."""
        copy = self._copies.get(process)
        if copy is None:
            return
        copy.connected, copy.told, copy.left = False, False, self._clock.now() - idle
        if self._connection is not None:
            self._send_leave(self._connection, process, copy)

    def hold(self, session: str, process: str) -> bool:
        """Record that this worker keeps state of a client process, which Redis is told next.

        Returns whether this was recorded before.
        """
        copy = self._add(session, process)
        before, copy.held, copy.dropping = copy.held, True, False
        return before

    def drop(self, process: str) -> None:
        """Record that this worker has forgotten a client process."""
        copy = self._copies.get(process)
        if copy is None:
            return
        copy.held, copy.dropping = False, True
        if self._connection is not None:
            self._send_drop(self._connection, process, copy)

    def forget(self, process: str) -> bool:
        """Forget a client process that has closed; return whether this worker had it."""
        copy = self._copies.pop(process, None)
        if copy is None:
            return False
        self._strike(copy.session, process)
        self.on_forgotten(process)
        return True

    def _add(self, session: str, process: str) -> _Copy:
        copy = self._copies.get(process)
        if copy is None:
            copy = self._copies[process] = _Copy(session, self._heartbeat.worker)
            copy.left = self._clock.now()
        elif copy.session != session:  # this worker is told of the change in a moment
            self._strike(copy.session, process)
            copy.session = session
        self._of.setdefault(session, set()).add(process)
        return copy

    def _strike(self, session: str, process: str) -> None:
        self._of[session].discard(process)
        if not self._of[session]:
            del self._of[session]

    def _purge(self, process: str, copy: _Copy) -> None:
        """Forget a client process of which this worker has had nothing for a while."""
        idle = self._clock.now() - copy.left
        used = copy.connected or copy.held or copy.dropping or not copy.told
        if not used and idle >= LEFT:
            self.forget(process)

    # Calls

    def _send_enter(self, connection: Connection, process: str, copy: _Copy) -> None:
        keys = self._people.keys
        call = self._people.enter(
            keys.session(copy.session), keys.process(process), self._heartbeat.worker
        )
        connection.send(call).add_done_callback(partial(self._doubt, process, copy))

    def _send_leave(self, connection: Connection, process: str, copy: _Copy) -> None:
        keys = self._people.keys.process(process)
        call = self._people.leave(keys, copy.worker, self._idle(copy), self._heartbeat.census)

        def confirm(reply: asyncio.Future[bool]) -> None:
            if reply.exception() is None:
                copy.told = not copy.connected

        connection.send(call).add_done_callback(confirm)

    def _send_drop(self, connection: Connection, process: str, copy: _Copy) -> None:
        def confirm(reply: asyncio.Future[bool]) -> None:
            copy.dropping = copy.dropping and reply.exception() is not None

        call = self._people.drop(self._people.keys.process(process), copy.worker)
        connection.send(call).add_done_callback(confirm)

    def _doubt(self, process: str, copy: _Copy, reply: asyncio.Future[Held]) -> None:
        """Look later at an answer that this worker's copy is not right."""
        if reply.exception() is None and not isinstance(reply.result(), Entered):
            self._doubts.append((process, copy, reply.result()))
            self._work.set()

    # A connection

    async def begin(self, beginning: Beginning) -> None:
        """Report all client processes on a new connection; open those again that are lost."""
        connection = self._connection = beginning.connection
        # A call for which a script must be loaded first runs after later calls, as of `hold`.
        connection.send(load(lua.ANNOUNCE))
        copies = list(self._copies.items())
        for begin in range(0, len(copies), MOST):
            for process, copy in copies[begin : begin + MOST]:
                self._report(connection, process, copy, lost=beginning.renewed)
            await connection.send(Call(("PING",), bool))  # after the answers to all these

    def _report(self, connection: Connection, process: str, copy: _Copy, *, lost: bool) -> None:
        worker, keys = self._heartbeat.worker, self._people.keys.process(process)
        copy.buried = -1  # a worker may have died while this one was away
        if copy.worker != worker:  # the other workers have taken this one for dead
            connection.send(self._people.forget(keys, copy.worker))
            copy.worker = worker
        if lost and copy.session in self._notes:
            self._announce(connection, process, copy)
        elif copy.connected:
            self._send_enter(connection, process, copy)
        if copy.held:
            session = self._people.keys.session(copy.session)
            asked = connection.send(self._people.hold(session, keys, worker))
            asked.add_done_callback(partial(self._doubt, process, copy))
        if copy.dropping:
            self._send_drop(connection, process, copy)
        if not copy.told:
            self._send_leave(connection, process, copy)

    def _announce(self, connection: Connection, process: str, copy: _Copy) -> None:
        note, keys = self._notes[copy.session], self._people.keys
        announced = Announced(
            worker=copy.worker,
            connected=copy.connected,
            held=copy.held,
            idle=0 if copy.connected else self._idle(copy),
            user=None if note.user is None else note.user.encode(),
            default=note.default == process,
            defaults=note.defaults,
            kept=note.kept,
            followed=note.followed,
        )
        call = self._people.announce(keys.session(copy.session), keys.process(process), announced)
        connection.send(call).add_done_callback(partial(self._doubt, process, copy))
        if announced.user is not None:
            connection.send(self._control.index(announced.user, copy.session))

    def _idle(self, copy: _Copy) -> int:
        return max(int((self._clock.now() - copy.left) * 1000), 0)

    async def settle(self, connection: Connection) -> NoReturn:
        """Report client processes that have closed, or whose session this worker has wrong."""
        work = self._work = asyncio.Event()
        await self._asking.ready()
        while True:
            doubts, self._doubts = self._doubts, []
            if doubts and await self._asking.is_sure(connection):
                for one in (one for one in doubts if self._copies.get(one[0]) is one[1]):
                    await self._correct(*one)
            await work.wait()
            work.clear()

    async def _correct(self, process: str, copy: _Copy, answer: Held) -> None:
        if isinstance(answer, Closed):
            self.on_closed(process)
        elif isinstance(answer, Moved) and answer.session != copy.session:
            await self.on_moved(copy.session, answer.session)

    async def touch(self, connection: Connection) -> NoReturn:
        """Postpone the deadlines of connected client processes, until the connection ends."""
        for number in count(1):
            await self._clock.sleep_until(self._clock.now() + TOUCH)
            for process, copy in list(self._copies.items()):
                self._purge(process, copy)
            for partition, processes in self._divide():
                for begin in range(0, len(processes), MOST):
                    with passing_over(partition):
                        await self._touch(connection, partition, processes[begin : begin + MOST])
            if number % HOUR == 0:
                self._keep_indexes(connection)
        raise AssertionError  # pragma: no cover - the loop has no end

    def _divide(self) -> Iterable[tuple[int, list[str]]]:
        """Return the connected client processes by partition."""
        divided: dict[int, list[str]] = {}
        for process, copy in self._copies.items():
            if copy.connected:
                divided.setdefault(self._people.keys.partition_of(process), []).append(process)
        return divided.items()

    async def _touch(self, connection: Connection, partition: int, some: Sequence[str]) -> None:
        copies = {process: self._copies[process] for process in some if process in self._copies}
        for process in await connection.send(self._people.touch(partition, list(copies))):
            self._doubts.append((process, copies[process], Closed()))
            self._work.set()
        await self._bury(connection, copies)

    async def _bury(self, connection: Connection, copies: Mapping[str, _Copy]) -> None:
        """Have Redis forget the workers that have died, once for each client process."""
        losses, census = self._heartbeat.losses, self._heartbeat.census
        left = [process for process, copy in copies.items() if copy.buried != losses]
        if left:
            await connection.send(self._people.bury(left, census))
            for process in left:
                copies[process].buried = losses

    def _keep_indexes(self, connection: Connection) -> None:
        """Let the indexes of users last, which end if they are not used for a month."""
        users = {note.user for session in self._of if (note := self._notes.get(session))}
        for user in users - {None}:
            connection.send(self._control.keep_index((user or "").encode()))

    def depart(self, connection: Connection) -> None:
        """Report that this worker stops, which has no connections any more."""
        worker = self._heartbeat.worker
        for process, copy in self._copies.items():
            keys = self._people.keys.process(process)
            idle = 0 if copy.connected else self._idle(copy)
            connection.send(self._people.leave(keys, worker, idle, self._heartbeat.census))
            if copy.held:
                connection.send(self._people.drop(keys, worker))
        self._copies.clear()
        self._of.clear()


def _ignore(process: str) -> None:
    """Do nothing."""


async def _ignore_move(session: str, new: str) -> None:
    """Do nothing."""
