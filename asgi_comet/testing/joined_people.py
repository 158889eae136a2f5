"""The people of the brokers that join several `Comet`s in one process, for tests.

Owns what one worker has of client processes. Must not know what a worker does with a change. The
functions of own channels are those of `JoinedClaims`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from anyio.lowlevel import checkpoint

from asgi_comet.brokers.audience import Audience
from asgi_comet.brokers.base import Host
from asgi_comet.brokers.people import Arrival, Found, Moved, People, SessionState, Visited
from asgi_comet.core.messages import Start
from asgi_comet.errors import BrokerUnavailable
from asgi_comet.position import Position
from asgi_comet.testing.joined_audience import JoinedAudience
from asgi_comet.testing.joined_claims import JoinedClaims
from asgi_comet.testing.register import News
from asgi_comet.testing.store import Store

__all__ = ["JoinedPeople"]

RESOLUTION = 0.001  # seconds


class JoinedPeople(People):
    """The people of one worker.

    Args:
        store: The shared store.
        host: Returns the worker.
        is_down: Returns whether the store cannot be reached.
        claims: Returns the readers of own channels.

    Attributes:
        told: Of how many changes the worker was told.
    """

    def __init__(
        self,
        store: Store,
        host: Callable[[], Host],
        is_down: Callable[[], bool],
        claims: Callable[[], JoinedClaims],
    ) -> None:
        self._claims = claims
        self.told: int = 0
        self._register = store.register
        self._store = store
        self._town = store.town
        self._host = host
        self._is_down = is_down
        self._entered: dict[str, str] = {}  # the sessions by client process
        self._kept: dict[str, str] = {}
        self._audience = JoinedAudience(
            store, self._check_up, lambda: claims().flush(), lambda: host().now()
        )

    # Called by the broker

    @property
    def host(self) -> Host:
        """The worker."""
        return self._host()

    @property
    def down(self) -> bool:
        """Whether the store cannot be reached."""
        return self._is_down()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be told of changes while the context lasts."""
        with self._store.lock:
            self.told = len(self._register.news)
            self._register.workers[self] = None
            for event in self._register.lasting.values():
                self.host.run_soon(partial(self.host.people.told, event))
        try:
            yield
        finally:
            with self._store.lock:
                del self._register.workers[self]
                for process in {*self._entered, *self._kept}:
                    self._vacate(process)
            self._register.changed()

    def sweep(self) -> None:
        """Close the client processes that were without a connection for too long."""
        with self._store.lock:
            for process in self._town.late(self.host.now(), self.host.limits.timeout):
                self._close(process)

    def catch_up(self) -> None:
        """Tell the worker of the changes since the last call."""
        while not self.down and self.told < len(self._register.news):
            news = self._register.news[self.told]
            if news.only is None or self in news.only:
                news.tell(self.host.people)
            self.told += 1
        self._register.changed()

    def found_again(self) -> None:
        """Repeat what the worker has of client processes: the store can be reached again."""
        self.catch_up()
        for process in list(self._entered):
            self._enter(None, process)
        for process in self._kept:
            with self._store.lock:
                if process in self._town.processes:
                    self._town.processes[process].kept.add(self)
                else:
                    self._report_closed(process)

    # Called by the rooms

    @property
    def current(self) -> bool:
        """Whether this worker was told of every change."""
        return not self.down and self.told == len(self._register.news)

    async def visit(self, sessions: Sequence[str], process: str = "") -> Visited:
        """Return the state of sessions, and of a client process."""
        await self._ask()
        with self._store.lock:
            now, town = self.host.now(), self._town
            found = town.processes.get(process)
            states = tuple(town.state(town.present(one, now)) for one in sessions)
            return Visited(states, "" if found is None else found.session)

    async def idle(self, process: str) -> float:
        """Return for how many seconds a client process has had no connection."""
        await self._ask()
        with self._store.lock:
            found = self._town.processes.get(process)
            if found is not None and found.entered:
                return 0.0
            since = 0.0 if found is None else found.idle_since
            return max(self.host.now() - since, RESOLUTION)

    async def open(self, session: str, process: str, *, default: bool = False) -> str:
        """Open a client process in a session."""
        await self._ask()
        with self._store.lock:
            town, now = self._town, self.host.now()
            if town.present(session, now) != session:
                raise Moved(town.present(session, now))
            made = town.state(session).default if default else ""
            if not made and process not in town.processes:
                longest = town.crowded(session, self.host.limits)
                if longest is not None:
                    self._close(longest.id)
            return made or town.open(session, process, now, default=default)

    async def close(self, session: str, process: str) -> None:
        """Close a client process."""
        await self._ask()
        with self._store.lock:
            if process in self._town.processes:
                self._town.check(session, process)
                self._close(process)
            count = len(self._register.news)
        await self._register.wait(self.host, count)

    async def move(self, session: str, new: str, *, user: str | None, keep: bool) -> None:
        """Give a session another id and another user."""
        await self._ask()
        with self._store.lock:
            if not self._town.is_moved(session, new):
                closes = self._town.move(session, new, user, self.host.now(), keep=keep)
                for one in self._town.residents(new) if closes else ():
                    self._close(one.id)
                self._register.post(News(lambda host: host.moved(session, new, user)))
            count = len(self._register.news)
        await self._register.wait(self.host, count)

    async def sessions(self, user: str | None) -> list[SessionState]:
        """Return the sessions that have an open client process."""
        await self._ask()
        with self._store.lock:
            return self._town.states(user)

    def enter(self, session: str, process: str) -> None:
        """Report that this worker has a connection of a client process."""
        self._entered[process] = session
        if not self.down:
            self._enter(session, process)

    def leave(self, process: str, idle: float) -> None:
        """Report that this worker has had no connection of a client process for some seconds."""
        if self._entered.pop(process, None) is not None:
            with self._store.lock:
                self._vacate(process, idle, kept=process in self._kept)

    async def keep(self, session: str, process: str) -> None:
        """Record that this worker keeps state of a client process."""
        await self._ask()
        with self._store.lock:
            self._town.check(session, process).kept.add(self)
            self._kept[process] = session

    def drop(self, process: str) -> None:
        """Report that this worker has forgotten a client process."""
        self._entered.pop(process, None)
        self._kept.pop(process, None)
        with self._store.lock:
            self._vacate(process)

    async def claim(
        self,
        session: str,
        process: str,
        reader: int,
        starts: Mapping[str, Start],
        arrival: Arrival | None = None,
    ) -> dict[str, Found]:
        """Let a connection of this worker read own channels."""
        await self._ask()
        if arrival is not None and not self._claims().reads(process, reader):
            await arrival.confirm()
        came = time.monotonic() if arrival is None else arrival.came
        with self._store.lock:
            self._town.check(session, process)
            self._entered[process] = session
            self._enter(session, process)
            return self._claims().claim(process, reader, came, starts)

    def unclaim(self, process: str, reader: int) -> None:
        """Report that a connection reads no more."""
        self._claims().unclaim(process, reader)

    def acknowledge(self, process: str, positions: Mapping[str, Position]) -> None:
        """Record that a client process has all messages up to positions of own channels."""
        self._claims().acknowledge(process, positions)

    async def reported(self, process: str) -> None:
        """Return at once, if the store can be reached: it has all."""
        await self._ask()

    async def load(self, process: str) -> bytes | None:
        """Return the state of the registration protocol."""
        await self._ask()
        return self._claims().load(process)

    async def save(self, process: str, reader: int, state: bytes) -> bool:
        """Store the state of the registration protocol if a reader still reads."""
        await self._ask()
        return self._claims().save(process, reader, state)

    @property
    def count(self) -> int:
        """How many client processes are open."""
        return len(self._town.processes)

    @property
    def audience(self) -> Audience:
        """The client processes that listen on keys of notifiers."""
        return self._audience

    async def tell_all(self, event: str, *, lasting: str = "") -> int:
        """Have `PeopleHost.told` called in every worker."""
        await self._ask()
        if lasting:
            self._register.lasting[lasting] = event
        count = self._register.post(News(lambda host: host.told(event)))
        return await self._register.wait(self.host, count)

    async def _ask(self) -> None:
        await checkpoint()
        self._check_up()

    def _check_up(self) -> None:
        if self.down:
            raise BrokerUnavailable("it is disconnected")

    def _enter(self, session: str | None, process: str) -> None:
        with self._store.lock:
            found = self._town.processes.get(process)
            if found is None:
                self._report_closed(process)
            elif session in (None, found.session):
                found.entered.add(self)
                found.connected = True
            else:
                self._report_moved(session or "", found.session)

    def _report_closed(self, process: str) -> None:
        self.host.run_soon(lambda: self.host.people.closed(process))

    def _report_moved(self, session: str, new: str) -> None:
        user = self._town.state(new).user
        self.host.run_soon(lambda: self.host.people.moved(session, new, user))

    def _vacate(self, process: str, idle: float = 0.0, *, kept: bool = False) -> None:
        """Take this worker from those that have a connection, or state; the lock is held."""
        found = self._town.processes.get(process)
        if found is None:
            return
        if not kept:
            found.kept.discard(self)
        if self in found.entered:
            found.entered.discard(self)
            found.idle_since = self.host.now() - idle

    def _close(self, process: str) -> None:
        """Close a client process, and tell the workers that know it; the lock is held."""
        known = frozenset(self._town.close(process))
        self._store.attending.pop(process, None)
        self._register.post(News(lambda host: host.closed(process), known))
        self.host.run_soon(lambda: self.host.people.ending(process, _nothing))


def _nothing() -> None:
    """Do nothing: no worker of one program ends alone."""
