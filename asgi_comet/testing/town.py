"""The sessions and client processes that several workers in one process share, for tests.

Owns the state, as a store would have it. Must not know how a worker is told of a change.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from asgi_comet.brokers.people import Limits, Moved, SessionState
from asgi_comet.errors import ProcessClosed, TooManyProcesses

__all__ = ["Resident", "Town"]

SUCCESSION = 10.0  # seconds in which a former id leads to the session
FIRST_CONNECTION = 30.0  # seconds until the first connection, at most


@dataclass(slots=True)
class Resident:
    """A client process in the store.

    Attributes:
        id: The id.
        session: The session.
        idle_since: When it was last connected, or opened.
        connected: Whether it was ever connected.
        entered: The workers that have a connection.
        kept: The workers that keep state.
    """

    id: str
    session: str
    idle_since: float
    connected: bool = False
    entered: set[Hashable] = field(default_factory=set)
    kept: set[Hashable] = field(default_factory=set)

    def deadline(self, timeout: float) -> float | None:
        """Return when the process is to close; `None` while it is connected."""
        if self.entered:
            return None
        return self.idle_since + (timeout if self.connected else min(FIRST_CONNECTION, timeout))


@dataclass(slots=True)
class _Session:
    user: str | None = None
    default: str = ""
    kept: bool = False


@dataclass(frozen=True, slots=True)
class _Heir:
    id: str
    since: float


class Town:
    """The store. The caller holds the lock of the store.

    Attributes:
        processes: The open client processes by id, the oldest first.
    """

    def __init__(self) -> None:
        self.processes: dict[str, Resident] = {}
        self._sessions: dict[str, _Session] = {}
        self._defaults: dict[str, int] = {}
        self._heirs: dict[str, _Heir] = {}

    def present(self, session: str, now: float) -> str:
        """Return the id that a session has by now."""
        heir = self._heirs.get(session)
        if heir is None or now - heir.since >= SUCCESSION:
            return session
        return self.present(heir.id, now)

    def state(self, session: str) -> SessionState:
        """Return the state of a session; an empty one if it is not known."""
        found = self._sessions.get(session, _Session())
        return SessionState(
            id=session,
            user=found.user,
            default=found.default,
            defaults=self._defaults.get(session, 0),
            kept=found.kept,
            processes=tuple(one.id for one in self.residents(session)),
        )

    def residents(self, session: str) -> list[Resident]:
        """Return the open client processes of a session, the oldest first."""
        return [one for one in self.processes.values() if one.session == session]

    def states(self, user: str | None) -> list[SessionState]:
        """Return the sessions with an open client process: all, or those of a user."""
        ids = dict.fromkeys(one.session for one in self.processes.values())
        states = [self.state(id_) for id_ in ids]
        return [state for state in states if user is None or state.user == user]

    def check(self, session: str, process: str) -> Resident:
        """Return an open client process of a session.

        Raises:
            Moved: The process is of another session.
            ProcessClosed: The process has closed.
        """
        found = self.processes.get(process)
        if found is None:
            raise ProcessClosed(process)
        if found.session != session:
            raise Moved(found.session)
        return found

    def open(self, session: str, process: str, now: float, *, default: bool) -> str:
        """Open a client process, which may be open already; return its id."""
        if process in self.processes:
            return self.check(session, process).id
        self._check_present(session, now)
        found = self._sessions.setdefault(session, _Session())
        self.processes[process] = Resident(process, session, now)
        if default:
            found.default = process
            self._defaults[session] = self._defaults.get(session, 0) + 1
        return process

    def crowded(self, session: str, limits: Limits) -> Resident | None:
        """Return the client process that has to close before a session may have another one.

        Raises:
            TooManyProcesses: All of the session's are connected, or there are too many in all.
        """
        mine = self.residents(session)
        if len(mine) >= limits.of_session:
            idle = [one for one in mine if not one.entered]
            if not idle:
                raise TooManyProcesses(limits.of_session, of_session=True)
            return min(idle, key=lambda one: one.idle_since)
        if len(self.processes) >= limits.processes:
            raise TooManyProcesses(limits.processes, of_session=False)
        return None

    def close(self, process: str) -> set[Hashable]:
        """Close an open client process; return the workers that know it."""
        found = self.processes.pop(process)
        session = self._sessions[found.session]
        if session.default == process:
            session.default = ""
        if not session.kept and not self.residents(found.session):
            del self._sessions[found.session]
        return found.entered | found.kept

    def move(self, session: str, new: str, user: str | None, now: float, *, keep: bool) -> bool:
        """Give a session another id and another user, but close nothing.

        Returns:
            Whether the client processes, which have the new id by now, are to close.

        Raises:
            Moved: The session has another id by now.
        """
        self._check_present(session, now)
        before = self._sessions.pop(session, _Session())
        self._heirs[session] = _Heir(new, now)
        self._sessions[new] = _Session(user, before.default, keep)
        mine = self.residents(session)
        for one in mine:
            one.session = new
        if not mine and not keep:
            del self._sessions[new]
        return before.user is not None and before.user != user

    def is_moved(self, session: str, new: str) -> bool:
        """Return whether a session has lately got this very id."""
        heir = self._heirs.get(session)
        return heir is not None and heir.id == new

    def late(self, now: float, timeout: float) -> list[str]:
        """Return the client processes that were without a connection for too long."""
        found = list[str]()
        for one in self.processes.values():
            deadline = one.deadline(timeout)
            if deadline is not None and deadline <= now:
                found.append(one.id)
        return found

    def _check_present(self, session: str, now: float) -> None:
        present = self.present(session, now)
        if present != session:
            raise Moved(present)
