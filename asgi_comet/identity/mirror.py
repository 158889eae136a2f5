"""The tables of a worker that shares sessions and client processes with others.

Owns the filling of the tables by the answers of the store, and how long a copy stays. Must not know
requests, cookies or transports, nor how other workers are told of changes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, WeakValueDictionary, finalize

from asgi_comet.brokers.people import SessionState, Visited
from asgi_comet.channels.directory import Directory
from asgi_comet.identity.announcing import Announcement
from asgi_comet.identity.clients import Clients
from asgi_comet.identity.household import Household
from asgi_comet.identity.moves import Moves
from asgi_comet.identity.neighbours import Neighbours
from asgi_comet.identity.process import Claim, Client, Session
from asgi_comet.identity.used import Used
from asgi_comet.settings import Settings

__all__ = ["Mirror"]


class Mirror(Clients):
    """Sessions and client processes, as far as this worker needs them. Thread-safe.

    A copy is in the tables while it is in use, and for 30 s after. Then the application may still
    hold the object, which stays the only one of its id.

    Args:
        settings: The bounds.
        household: The parts that all client processes share.
        lock: Shared with the directories of their channels.
        neighbours: The ways to the other workers.
    """

    shared: ClassVar[bool] = True

    def __init__(
        self,
        settings: Settings,
        household: Household[Client],
        lock: threading.Lock,
        neighbours: Neighbours,
    ) -> None:
        super().__init__(settings, household, lock)
        self._near = neighbours
        self._all: WeakValueDictionary[str, Client] = WeakValueDictionary()
        self._sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._states: WeakKeyDictionary[Session, SessionState] = WeakKeyDictionary()
        self._openings: WeakKeyDictionary[Client, Announcement] = WeakKeyDictionary()
        self._moves = Moves()
        self._used: Used[Session | Client] = Used(
            household.runtime, self._opening, self._is_needed, self._put_away
        )

    # A request comes

    async def arrive(
        self, sessions: Sequence[str], process: str = "", *, default: bool = False
    ) -> None:
        """Bring the tables up to date with the store, unless this worker is told of changes."""
        if (sessions or process) and not self._knows(sessions, process, default=default):
            await self._visit(sessions, process)

    async def _visit(self, sessions: Sequence[str], process: str) -> Visited:
        visits = self._near.visits
        visited = await visits.ask(sessions, process)
        if visited.owner and visited.owner not in [state.id for state in visited.sessions]:
            sessions = [*sessions, visited.owner]  # a session that the request does not name
            visited = await visits.ask(sessions, process)
        with self._opening:
            for asked, state in zip(sessions, visited.sessions, strict=True):
                self._touch(self._take(asked, state))
            if process:
                self._take_process(process, visited.owner)
        return visited

    def _knows(self, sessions: Sequence[str], process: str, *, default: bool) -> bool:
        """Return whether this worker is told of all changes of what a request names."""
        if not self._near.people.current:
            return False
        if process:
            found = self._processes.get(process)
        else:
            found = self._member(self._known(sessions[0]), default=default)
        if found is None or found.closed or not self._is_told(found):
            return False
        return found.session.id in sessions

    def _member(self, session: Session | None, *, default: bool) -> Client | None:
        """Return a client process of a session that the store tells of, or the default one."""
        if session is None or default:
            return None if session is None else session._default
        return next(filter(self._is_told, session._clients), None)

    def _is_told(self, process: Client) -> bool:
        return self._near.presence.told(process.id)

    def _take(self, asked: str, state: SessionState) -> Session:
        """Bring the copy of a session up to date with the state in the store."""
        move = self._moves.of(asked)
        if move is not None:  # by a login in this worker, which the store does not know yet
            return move.session
        session = self._known(state.id)
        if asked != state.id:
            before = self._known(asked)
            session = session or before or Session(state.id)
            if before is not None:
                self._change_id(before, state.id)
            if asked not in self._former:
                self._remember(Claim(session, asked))
        elif session is None:
            session = Session(state.id)
        if self._moves.to(state.id) is None:
            self._former.pop(state.id, None)
            self._set_user(session, self._near.spelling.read(state.user))
        self._sessions[state.id] = session
        session._list = self._list
        self._states[session] = state
        self._take_default(session, state.default)
        return session

    def _take_default(self, session: Session, id_: str) -> None:
        if id_:
            session._default = self._copy(id_, session)
        elif not self._near.announcer.pending(session):
            session._default = None

    def _take_process(self, id_: str, owner: str) -> None:
        found = self._all.get(id_)
        session = self._known(owner)
        if session is not None:
            self._touch_process(self._copy(id_, session))
        elif not owner and found is not None and not self._near.announcer.pending(found.session):
            found.end()

    def _known(self, id_: str) -> Session | None:
        """Return the copy of a session by its present id."""
        found = self._sessions.get(id_)
        return found if found is not None and found.id == id_ else None

    def _copy(self, id_: str, session: Session) -> Client:
        """Return the copy of a client process, which need not be in the tables."""
        found = self._all.get(id_)
        if found is None:
            found = self._all[id_] = Client(session, self._household, self._lock, id_)
            finalize(found, self._let_go, found.place.directory).atexit = False
        elif found.session is not session:
            found.session._processes.pop(id_, None)
            found.session = session
            if id_ in self._processes:
                session._processes[id_] = found
        return found

    def _let_go(self, directory: Directory) -> None:
        """End the channels of a copy that is no object any more; called by a finalizer."""
        household = self._household
        household.runtime.loop.run_soon(partial(household.let_go, directory))

    def _list(self, session: Session) -> list[Client]:
        """Return the open client processes of a session in all workers, as last asked."""
        with self._opening:
            state = self._states.get(session)
            ids = dict.fromkeys([*(state.processes if state else ()), *session._processes])
            copies = [self._copy(id_, session) for id_ in ids]
        return [process for process in copies if not process.closed]

    # Changes of a session

    def _change_id(self, session: Session, new: str) -> None:
        other = self._known(new)
        self._claims.pop(session.id, None)
        self._strike(session)
        if session.id != new:
            self._remember(Claim.of(session))
        session.id = new
        if other is not None and other is not session:  # a request has found it by the new id
            for process in session._clients:
                self._copy(process.id, other)
        else:
            self._renew_state(session)
            self._touch(session)

    def _renew_state(self, session: Session) -> None:
        """Let the state of a session as last asked be that of another id."""
        state = self._states.get(session)
        if state is not None:
            self._states[session] = replace(state, id=session.id, defaults=0)

    def _set_user(self, session: Session, user: Any) -> None:
        if session.user != user:
            self._strike(session)
            session.user = user
            if session.id in self._claims:
                self._enrol(Claim.of(session))

    # How long copies stay

    def _enrol(self, claim: Claim) -> Claim:
        self._sessions[claim.id] = claim.session
        claim.session._list = self._list
        return super()._enrol(claim)

    def _touch(self, session: Session) -> None:
        self._enrol(Claim.of(session))
        self._used.add(session)

    def _touch_process(self, process: Client) -> None:
        if not process.closed:
            self._processes[process.id] = process.session._processes[process.id] = process
            self._used.add(process)

    def _is_needed(self, one: Session | Client) -> bool:
        if isinstance(one, Session):
            return False  # the processes and connections of a session keep it
        if one.in_use and not self._is_told(one):
            one.hold()  # again: the store could not be told, and the process may have closed
        return one.in_use or self._near.presence.is_entered(one.id)

    def _put_away(self, one: Session | Client) -> None:
        with self._opening:
            if isinstance(one, Session):
                self._drop_unused(one)
            else:
                super().forget(one)

    def _drop_unused(self, session: Session) -> None:
        if session not in self._used:
            super()._drop_unused(session)

    def _make_id(self, session: Session) -> str:
        return session.id[:2] + super()._make_id(session)
