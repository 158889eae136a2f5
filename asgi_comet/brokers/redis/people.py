"""Sessions and client processes on Redis, which any worker serves.

Owns the parts of this store, and the steps and tasks of each connection that the parts need. Must
not know the form of commands and replies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.audience import Audience
from asgi_comet.brokers.base import Host
from asgi_comet.brokers.people import Arrival, Found, Moved, People, SessionState, Visited
from asgi_comet.brokers.redis import people_replies as answers
from asgi_comet.brokers.redis.asking import Asking
from asgi_comet.brokers.redis.attending import Attending
from asgi_comet.brokers.redis.audience import RedisAudience
from asgi_comet.brokers.redis.audience_scripts import AudienceScripts
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.closing import Ending
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.control import Control
from asgi_comet.brokers.redis.control_scripts import ControlScripts
from asgi_comet.brokers.redis.entries import Change, Entry, Told
from asgi_comet.brokers.redis.farewells import Farewells
from asgi_comet.brokers.redis.flusher import Flusher
from asgi_comet.brokers.redis.heard import REPEATED, Lately
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.lasting import Lasting
from asgi_comet.brokers.redis.moving import Moving
from asgi_comet.brokers.redis.own import OwnChannels
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.presence import Presence
from asgi_comet.brokers.redis.probing import Inbox
from asgi_comet.brokers.redis.replies import Reply
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import Beginning, Serving, Step, Task
from asgi_comet.brokers.redis.sweeping import Sweeping
from asgi_comet.brokers.redis.users import Users
from asgi_comet.brokers.redis.visiting import Visiting
from asgi_comet.core.messages import Start
from asgi_comet.errors import ProcessClosed, TooManyProcesses
from asgi_comet.position import Position

__all__ = ["Parts", "RedisPeople"]

PURGE = 60.0  # seconds between two looks for changes to forget


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a broker that its people use.

    Attributes:
        host: The worker.
        scripts: The scripts of channels.
        people: The scripts of people.
        serving: The connection.
        flusher: Runs scripts in order with the messages.
        heartbeat: The heartbeat.
        inbox: Takes the frames for this worker.
        clock: The clock.
    """

    host: Host
    scripts: Scripts
    people: PeopleScripts
    serving: Serving
    flusher: Flusher
    heartbeat: Heartbeat
    inbox: Inbox
    clock: Clock


class RedisPeople(People):
    """The sessions and client processes that workers share through one Redis.

    Args:
        parts: The parts of the broker.
        own: The own channels.
    """

    def __init__(self, parts: Parts, own: OwnChannels) -> None:
        self._host = parts.host
        self._people = people = parts.people
        self._heartbeat = parts.heartbeat
        self._clock = parts.clock
        self._claims, self._marks = own.claims, own.marks
        own.claims.sure = lambda: self.current
        self._parts = parts
        self._control = control = ControlScripts(people.keys, people.durable)
        self._asking = asking = Asking(parts.scripts, parts.serving)
        own.claims.check_loss = asking.check
        self._news: Lately[Change | None] = Lately(parts.clock)
        self.control: Control = Control(
            control, parts.serving, parts.flusher, parts.heartbeat, parts.inbox, parts.clock
        )
        self.presence: Presence = Presence(people, control, asking, parts.heartbeat, parts.clock)
        tell = parts.host.people.told
        self._lasting = Lasting(control, parts.heartbeat, tell)
        self.farewells: Farewells = Farewells(people, self._say_farewell, parts.clock)
        self._make_audience(AudienceScripts(people.keys, people.durable), parts)
        self._visiting, self._users, self._ending, self._moving = self._make(control, asking)
        self._sweeping = Sweeping(people, asking, self._ending, parts.heartbeat, parts.clock)
        self.control.apply = self._apply
        self.control.on_missed = parts.host.people.missed
        self.presence.on_closed = self._end
        self.presence.on_moved = self._catch_up
        parts.heartbeat.on_beat = lambda: self.control.check_living(parts.heartbeat.living)
        parts.inbox.on[b"x"] = lambda frame: self._end(frame[1:].decode())

    def _make_audience(self, scripts: AudienceScripts, parts: Parts) -> None:
        serving, inbox = parts.serving, parts.inbox
        generation = lambda: serving.generation  # noqa: E731 - it changes
        self._audience = RedisAudience(scripts, self._asking, parts.flusher, generation)
        attending = Attending(scripts, parts.clock, generation)
        self.attending: Attending = attending
        attending.overflow = self._audience.overflow
        self.presence.on_forgotten = attending.forget
        inbox.on[b"l"], inbox.on[b"u"] = attending.take_listening, attending.take_unlistening

    def _make(
        self, control: ControlScripts, asking: Asking
    ) -> tuple[Visiting, Users, Ending, Moving]:
        people = self._people
        heartbeat, note = self._heartbeat, self.presence.note
        visiting = Visiting(people, asking, self._news, note, lambda: heartbeat.living)
        users = Users(people, control, asking, visiting)
        return (
            visiting,
            users,
            Ending(
                *(people, control, asking, self._end),
                *(self.farewells, lambda: heartbeat.worker),
            ),
            Moving(people, asking, users),
        )

    # The connection

    @property
    def first(self) -> list[Step]:
        """The steps of a new connection before the first heartbeat."""
        return [self.control.forget]

    @property
    def before(self) -> list[Step]:
        """The steps of a new connection after that, before all others."""
        return [self.control.begin, self._repeat, self._lasting.begin, self.presence.begin]

    @property
    def tasks(self) -> list[Task]:
        """The tasks of a connection."""
        presence = self.presence
        return [
            *(self.control.run, presence.settle, presence.touch, self._sweeping.run),
            *(self.farewells.run, self.attending.run, self._purge),
        ]

    @property
    def after(self) -> list[Step]:
        """The steps of a new connection after the own channels were claimed again."""
        return [self.attending.begin]

    @property
    def current(self) -> bool:
        """Whether this worker has surely been told of every change until a moment ago."""
        return self._heartbeat.fresh and self.control.read

    async def _repeat(self, beginning: Beginning) -> None:
        """Make the changes again that Redis may have lost: no logout is undone."""
        if not beginning.renewed:
            return
        parts, connection, keys = self._parts, beginning.connection, self._people.keys
        asking = Asking(parts.scripts, parts.serving, connection)
        _, _, ending, moving = self._make(self._control, asking)
        news = self._news.since(REPEATED)
        changes = [change for _, change in news if change is not None]
        heirs = [Call(("GET", keys.session(one.session).heir), _read_heir) for one in changes]
        for change, heir in zip(changes, await asking.ask_all(heirs), strict=True):
            if heir != change.new:
                with suppress(Moved):
                    await ending.close_all(change.session, await moving.move(change))
        closed = [process for process, change in news if change is None]
        owners = [self._people.owner(keys.process(one)) for one in closed]
        for process, owner in zip(closed, await asking.ask_all(owners), strict=True):
            if owner:
                await ending.close(owner, process)
        await asyncio.gather(*self.control.repeat(connection))

    async def _purge(self, connection: Connection) -> None:
        del connection
        while True:
            await self._clock.sleep_until(self._clock.now() + PURGE)
            self._news.forget()
            self.control.heard.forget()

    def depart(self, connection: Connection) -> None:
        """Report that this worker stops."""
        self.presence.depart(connection)
        self.farewells.depart(connection)

    # Changes

    def _apply(self, entry: Entry) -> None:
        """Take an entry of the control log."""
        if isinstance(entry, Told):
            self._lasting.hear(entry)
            self._host.people.told(entry.event)
            return
        self._news.add(entry.session, entry)
        self.presence.move(entry)
        self._host.people.moved(entry.session, entry.new, entry.user)

    def _say_farewell(self, process: str, done: Callable[[], None]) -> None:
        self._host.people.ending(process, done)

    def _end(self, process: str) -> None:
        self._news.add(process, None)
        self.presence.forget(process)
        self._host.people.closed(process)

    async def _catch_up(self, session: str, new: str) -> None:
        """Apply a change whose entry this worker has not got."""
        (state,) = (await self._visiting.visit([new])).sessions
        self._apply(Change(session, state.id, state.user, state.kept))

    # Sessions and client processes

    async def visit(self, sessions: Sequence[str], process: str = "") -> Visited:
        """Return the state of sessions, and of a client process."""
        found = await self._visiting.visit(sessions, process)
        if await self._sweeping.stocktaking.close_half_lost(found, process):
            # The session may have named it as the default one.
            found = await self._visiting.visit(sessions, process)
        return found

    async def open(self, session: str, process: str, *, default: bool = False) -> str:
        """Open a client process in a session."""
        async with self._sweeping.place(self._host.limits.processes):
            made, displaced = await self._open(session, process, default=default)
        if displaced:
            await self._ending.close(session, displaced)
        self.presence.note_opened(session)
        if default and made == process:
            self.presence.note_default(session, process)
        return made

    async def _open(self, session: str, process: str, *, default: bool) -> tuple[str, str]:
        """Return the client process, and the one that was closed for it."""
        keys, displaced = self._people.keys, ""
        while True:
            call = self._people.open_process(
                keys.session(session),
                keys.process(process),
                default=default,
                instead_of=keys.process(displaced) if displaced else None,
            )
            match await self._asking.ask(call):
                case answers.Made(made):
                    return made, displaced
                case answers.Crowded(""):
                    raise TooManyProcesses(self._people.most, of_session=True)
                case answers.Crowded(idle):
                    displaced = idle
                case answers.Moved(other):
                    raise Moved(other)
                case _:
                    raise ProcessClosed(process)

    async def idle(self, process: str) -> float:
        """Return for how many seconds a client process has had no connection."""
        return await self._visiting.idle(process)

    async def close(self, session: str, process: str) -> None:
        """Close a client process."""
        await self._ending.close(session, process)

    async def move(self, session: str, new: str, *, user: str | None, keep: bool) -> None:
        """Give a session another id and another user."""
        change = Change(session, new, user, keep)
        closing = await self._moving.move(change)
        told, _ = await asyncio.gather(
            self.control.tell_all(change),
            self._ending.close_all(session, closing),
            return_exceptions=True,  # what is not closed now, a sweeper closes
        )
        if isinstance(told, BaseException):
            raise told

    async def sessions(self, user: str | None) -> list[SessionState]:
        """Return the sessions that have an open client process."""
        return await (self._users.find_all() if user is None else self._users.find(user))

    # What this worker has of a client process

    def enter(self, session: str, process: str) -> None:
        """Report a connection of a client process."""
        self.presence.enter(session, process)
        self.attending.attend(process)

    def leave(self, process: str, idle: float) -> None:
        """Report that the last connection of a client process has ended."""
        self.presence.leave(process, idle)
        self.attending.leave(process)

    async def keep(self, session: str, process: str) -> None:
        """Record that this worker keeps state of a client process."""
        held = self.presence.hold(session, process)
        try:
            await self._keep(session, process)
        except BaseException:
            if not held:
                self.presence.drop(process)
            raise
        if process in self.presence:  # it may have closed since the answer came
            self.attending.attend(process)

    async def _keep(self, session: str, process: str) -> None:
        keys = self._people.keys
        call = self._people.hold(
            keys.session(session), keys.process(process), self._heartbeat.worker
        )
        match await self._asking.ask(call):
            case answers.Moved(other):
                raise Moved(other)
            case answers.Closed():
                await self._asking.check()
                raise ProcessClosed(process)
            case _:
                return

    def drop(self, process: str) -> None:
        """Report that this worker has forgotten a client process."""
        self.presence.drop(process)
        self.attending.leave(process)

    # Own channels

    async def claim(
        self,
        session: str,
        process: str,
        reader: int,
        starts: Mapping[str, Start],
        arrival: Arrival | None = None,
    ) -> dict[str, Found]:
        """Let a connection of this worker read own channels."""
        found = await self._claims.claim(session, process, reader, starts, arrival)
        self.presence.enter(session, process, tell=False)
        self.attending.attend(process)
        return found

    def unclaim(self, process: str, reader: int) -> None:
        """Report that a connection reads no more."""
        self._claims.unclaim(process, reader)

    def acknowledge(self, process: str, positions: Mapping[str, Position]) -> None:
        """Record that a client process has all messages up to positions of own channels."""
        self._marks.tell(self._people.keys.process(process), positions)

    async def reported(self, process: str) -> None:
        """Return once the store has what this worker has reported of a client process so far."""
        await self._marks.settle(self._people.keys.process(process))

    async def load(self, process: str) -> bytes | None:
        """Return the state of the registration protocol."""
        return await self._claims.load(process)

    async def save(self, process: str, reader: int, state: bytes) -> bool:
        """Store the state of the registration protocol if a reader still reads."""
        return await self._claims.save(process, reader, state)

    # All workers

    @property
    def count(self) -> int:
        """How many client processes are open."""
        return self._sweeping.known

    @property
    def audience(self) -> Audience:
        """The client processes that listen on keys of notifiers."""
        return self._audience

    async def tell_all(self, event: str, *, lasting: str = "") -> int:
        """Have an event reach every worker."""
        return await self.control.tell_all(Told(event, lasting))


def _read_heir(reply: Reply) -> str:
    heir: str = (reply or b"").decode().partition(" ")[0]
    return heir
