"""The sessions and client processes that there are, and which are whose.

Owns the tables of both, and their bounds. Must not know requests, cookies or transports.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Hashable

from asgi_comet._runtime.timers import Timer
from asgi_comet.channels.feed import Listener
from asgi_comet.errors import TooManyProcesses
from asgi_comet.identity.process import Caller, ClientProcess, Household, Registered, Session
from asgi_comet.settings import Settings

__all__ = ["SUCCESSION", "Processes"]

_logger = logging.getLogger(__name__)

SUCCESSION = 10.0  # seconds in which a client may still come with the cookie of before a login
REGISTERED_LIMIT = 256 * 1024 * 1024  # bytes kept over the registration protocol by all together
FORMER_LIMIT = 10_000  # ids of before a login that are remembered; the oldest go first


class Processes:
    """The sessions and client processes of this worker. Thread-safe.

    A session is here while it has an open client process or a connection, or was logged in by hand.

    Args:
        settings: Their bounds.
        household: What they share; its `close` calls `forget`.
        lock: Shared with the directories of their channels.
    """

    def __init__(self, settings: Settings, household: Household, lock: threading.Lock) -> None:
        self._settings = settings
        self._household = household
        self._lock = lock
        self._opening = threading.RLock()  # closing one to open another comes back here
        self._sessions: dict[str, Session] = {}
        self._processes: dict[str, ClientProcess] = {}
        self._users: dict[Hashable, dict[Session, None]] = {}
        self._kept: dict[Session, None] = {}  # logged in by hand, so nobody else knows their user
        self._former: dict[str, _Former] = {}
        self._registered = 0  # bytes, as far as they were charged

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def known(self) -> int:
        """How many sessions are in the tables, those without a client process included."""
        return len(self._sessions)

    def sessions(self, user: Hashable = None) -> list[Session]:
        """Return the sessions with an open client process: all, or those of a user."""
        with self._opening:
            found = self._sessions.values() if user is None else self._users.get(user, {})
            return [session for session in found if session.processes]

    def processes(self, user: Hashable = None) -> list[ClientProcess]:
        """Return the open client processes: all, or those of a user."""
        with self._opening:
            if user is None:
                return list(self._processes.values())
            return [p for session in self._users.get(user, {}) for p in session.processes]

    def check_running(self) -> None:
        """Raise unless the lifespan runs: nobody would close a process then.

        Raises:
            NotRunning: It does not.
        """
        self._household.runtime.loop.check()

    def find(self, id_: str) -> ClientProcess | None:
        """Return an open client process."""
        return self._processes.get(id_)

    def find_session(self, id_: str) -> Session | None:
        """Return the session of an id, if it is in the tables."""
        return self._sessions.get(id_)

    def session(self, id_: str) -> Session:
        """Return the session of an id; a new one is not in the tables until something is in it."""
        return self._sessions.get(id_) or Session(id_)

    def heir(self, id_: str) -> Session | None:
        """Return the session that had this id until lately, before somebody logged in or out."""
        former = self._former.get(id_)
        return None if former is None else former.session

    def open(self, session: Session | str) -> ClientProcess:
        """Open a client process in a session, given itself or by its id.

        Where the session has as many as it may, the one longest without a connection is closed.

        Raises:
            TooManyProcesses: All of the session's are connected, or there are too many in all.
        """
        with self._opening:
            if isinstance(session, str):
                session = self.session(session)
            self._make_room(session)
            if len(self._processes) >= self._settings.max_processes:
                raise TooManyProcesses(self._settings.max_processes, of_session=False)
            session = self._enrol(session)
            process = ClientProcess(session, self._household, self._lock)
            session._processes[process.id] = self._processes[process.id] = process
            return process

    def default(self, session: Session | str) -> ClientProcess:
        """Return the default client process of a session, made when first needed.

        Raises:
            TooManyProcesses: As `open`.
        """
        with self._opening:
            if isinstance(session, str):
                session = self.session(session)
            if session._default is not None:
                return session._default
            process = self.open(session)
            process.session._default = process
            return process

    def charge(self, process: ClientProcess, kept: Registered, size: int) -> bool:
        """Reckon with what a client process keeps, until it closes.

        Args:
            process: Whose it is.
            kept: What it keeps.
            size: How many bytes that are now; less than before does not count.

        Returns:
            Whether all of them together may keep as much.
        """
        with self._opening:
            more = max(size - kept.charge, 0) if process.id in self._processes else 0
            if more and self._registered + more > REGISTERED_LIMIT:
                return False
            kept.charge += more
            self._registered += more
            return True

    def visit(self, listener: Listener, caller: Caller) -> None:
        """A connection of a session to the site's endpoints opens."""
        with self._opening:
            session = self._enrol(caller.session)  # another thread may have made it meanwhile
            session.visitors.add(listener)
        listener.caller = Caller(session, caller.id)

    def leave(self, listener: Listener) -> None:
        """A connection to the site's endpoints has closed. Idempotent."""
        caller = listener.caller
        if caller is not None and listener in caller.session.visitors:
            session = caller.session
            with self._opening:
                session.visitors.discard(listener)
                self._drop_unused(session)

    def succeed(self, session: Session) -> str:
        """Give a session another id, so that the old one is worth nothing, and no user.

        Returns:
            The id.
        """
        with self._opening:
            self._sessions.pop(session.id, None)
            self._kept.pop(session, None)
            self._strike(session)
            self._remember(session)
            session.id, session.user = secrets.token_urlsafe(18), None
            return self._enrol(session).id

    def assign(self, caller: Caller, user: Hashable, *, keep: bool) -> None:
        """Let a session belong to a user, unless it has got another id since.

        Args:
            caller: The session, which has none, and its id.
            user: Whose it is from now on; `None` for a visitor.
            keep: Whether to remember that without a client process. At most
                `Settings.max_processes` are; those that were so for the longest go first.
        """
        with self._opening:
            if caller.moved:  # another thread logs somebody in
                return
            session = caller.session
            session.user = user
            self._enrol(session)
            if keep:
                self._kept[session] = None
                if len(self._kept) > self._settings.max_processes:
                    oldest = next(iter(self._kept))
                    del self._kept[oldest]
                    self._drop_unused(oldest)
            else:
                self._drop_unused(session)

    def start(self) -> None:
        """The lifespan starts: those opened before may wait from now for their first connection."""
        for process in list(self._processes.values()):
            process.begin_expiry()

    async def wait_goodbyes(self) -> None:
        """Return once the callbacks of all closed processes have run."""
        await self._household.goodbyes.wait_idle()

    def close_all(self) -> None:
        """Close every client process: the server stops."""
        for process in list(self._processes.values()):
            process.close()
        self._kept.clear()
        self._former.clear()
        for session in list(self._sessions.values()):
            self._drop_unused(session)

    def forget(self, process: ClientProcess) -> None:
        """Forget a client process that closed, and its session with the last one."""
        with self._opening:
            session = process.session
            session._processes.pop(process.id, None)
            if self._processes.pop(process.id, None) is not None and process.registered is not None:
                self._registered -= process.registered.charge
            if session._default is process:
                session._default = None
            self._drop_unused(session)

    def _enrol(self, session: Session) -> Session:
        """Put a session in the tables; return the one that is there already, if there is."""
        session = self._sessions.setdefault(session.id, session)
        if session.user is not None:
            self._users.setdefault(session.user, {})[session] = None
        return session

    def _drop_unused(self, session: Session) -> None:
        if session._processes or session.visitors or session in self._kept:
            return
        self._sessions.pop(session.id, None)
        self._strike(session)

    def _strike(self, session: Session) -> None:
        """Take a session off those of its user."""
        known = self._users.get(session.user)
        if known is not None:
            known.pop(session, None)
            if not known:
                del self._users[session.user]

    def _remember(self, session: Session) -> None:
        """For a moment clients come with the old cookie, for the new one is on its way."""
        former = _Former(self._former, session.id, session)
        self._former[session.id] = former
        if len(self._former) > FORMER_LIMIT:
            del self._former[next(iter(self._former))]
        runtime = self._household.runtime
        runtime.loop.run(lambda: runtime.timers.start(former, SUCCESSION))

    def _make_room(self, session: Session) -> None:
        limit = self._settings.max_processes_per_session
        open_ = [p for p in session.processes if not p.closed]  # another thread may be closing one
        if len(open_) < limit:
            return
        idle = [p for p in open_ if not p.connections]
        if not idle:
            raise TooManyProcesses(limit, of_session=True)
        longest = max(idle, key=ClientProcess.inactive_for)
        _logger.info("a session has %d client processes: closing the longest idle", limit)
        longest.close()


class _Former(Timer):
    """An id that a session had until lately."""

    __slots__ = ("_id", "_table", "session")

    def __init__(self, table: dict[str, _Former], id_: str, session: Session) -> None:
        super().__init__()
        self._table = table
        self._id = id_
        self.session = session

    def expire(self) -> None:
        self._table.pop(self._id, None)
