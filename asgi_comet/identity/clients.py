"""The sessions and client processes of this worker, and the users they belong to.

Owns the tables of these, and their bounds. Must not know requests, cookies or transports, nor other
workers; see `identity.copies`.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Hashable
from itertools import chain, islice
from typing import Any, NamedTuple

from asgi_comet._runtime.timers import Timer
from asgi_comet.channels.feed import Listener
from asgi_comet.errors import TooManyProcesses
from asgi_comet.identity.alone import Alone
from asgi_comet.identity.household import Household
from asgi_comet.identity.process import Claim, Client, Session, Stale
from asgi_comet.identity.registered import Registered
from asgi_comet.log_events import event
from asgi_comet.settings import Settings

__all__ = ["SUCCESSION", "Claimed", "Clients", "new_session"]

_logger = logging.getLogger(__name__)

SUCCESSION = 10.0  # seconds in which a client may still come with the cookie of before a login
REGISTERED_LIMIT = 256 * 1024 * 1024  # bytes kept over the registration protocol by all together
FORMER_LIMIT = 10_000  # ids of before a login that are remembered; the oldest go first


class Clients(Alone):
    """The sessions and client processes of this worker. Thread-safe.

    A session is in the tables while it has an open client process or a connection, or after
    `login`. An id that a session had before a login or a logout leads to it for 10 s more.

    Args:
        settings: The bounds.
        household: The parts that all client processes share; its `close` calls `forget`.
        lock: Shared with the directories of their channels.
    """

    def __init__(
        self, settings: Settings, household: Household[Client], lock: threading.Lock
    ) -> None:
        self._settings = settings
        self._household = household
        self._lock = lock
        self._opening = threading.RLock()  # closing one to open another comes back here
        self._claims: dict[str, Claim] = {}  # by the present ids of the sessions
        self._processes: dict[str, Client] = {}
        self._users: dict[Hashable, dict[Session, None]] = {}
        self._kept: dict[Session, None] = {}  # after `login`: only this table knows their users
        self._former: dict[str, _Former] = {}  # by ids of before a login or a logout
        self._registered = 0  # bytes, as far as they were charged

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def known(self) -> int:
        """How many sessions are in the tables, those without a client process included."""
        return len(self._claims)

    @property
    def known_users(self) -> int:
        """How many users the sessions in the tables belong to."""
        return len(self._users)

    def sessions(self, user: Hashable = None) -> list[Session]:
        """Return the sessions with an open client process: all, or those of a user."""
        with self._opening:
            if user is None:
                return [c.session for c in self._claims.values() if c.session._processes]
            return [session for session in self._users.get(user, {}) if session._processes]

    def processes(self, user: Hashable = None) -> list[Client]:
        """Return the open client processes: all, or those of a user."""
        with self._opening:
            if user is None:
                return list(self._processes.values())
            return [p for session in self._users.get(user, {}) for p in session._clients]

    def page(self, start: int, stop: int) -> list[Client]:
        """Return some of the open client processes, user by user, those of visitors last."""
        with self._opening:
            visitors = (c.session for c in self._claims.values() if c.session.user is None)
            sessions = chain(chain.from_iterable(self._users.values()), visitors)
            tabs = chain.from_iterable(one._processes.values() for one in sessions)
            return list(islice(tabs, start, stop))

    def check_running(self) -> None:
        """Raise unless the lifespan runs: a process would never be closed.

        Raises:
            NotRunning: It does not.
        """
        self._household.runtime.loop.check()

    async def opened(self, process: str) -> None:
        """Return once the other workers know a client process; here there are none."""

    def find(self, id_: str) -> Client | None:
        """Return an open client process."""
        return self._processes.get(id_)

    def find_session(self, id_: str) -> Session | None:
        """Return the session of an id, if it is in the tables."""
        claim = self._claims.get(id_)
        return None if claim is None else claim.session

    def claim(self, id_: str) -> Claim:
        """Return the claim of a request that names a session by an id.

        A session that is new is not in the tables before it has a process, a connection or a user.
        """
        claim = self._claims.get(id_)
        if claim is None:
            former = self._former.get(id_)
            claim = Claim(Session(id_), id_) if former is None else former.claim
        return claim

    def open(self, claim: Claim) -> Claimed:
        """Open a client process in the session of a claim; in a new one if the claim is stale.

        Where the session has as many as it may, the one longest without a connection is closed.

        Returns:
            The process, and the claim to its session.

        Raises:
            TooManyProcesses: All of the session's are connected, or there are too many in all.
        """
        with self._opening:
            try:
                session = self._session_of(claim)
            except Stale:
                session = new_session()
            self._make_room(session)
            if len(self._processes) >= self._settings.max_processes:
                raise TooManyProcesses(self._settings.max_processes, of_session=False)
            claim = self._enrol(Claim.of(session))
            process = Client(session, self._household, self._lock)
            session._processes[process.id] = self._processes[process.id] = process
            return Claimed(process, claim)

    def default(self, claim: Claim) -> Claimed:
        """Return the default client process of a session, made when first needed.

        Raises:
            Stale: The session has another id by now.
            TooManyProcesses: As `open`.
        """
        with self._opening:
            session = self._session_of(claim)
            if session._default is not None and not session._default.closed:
                return Claimed(session._default, Claim.of(session))
            opened = self.open(claim)
            opened.process.session._default = opened.process
            return opened

    def charge(self, process: Client, kept: Registered, size: int) -> bool:
        """Charge a client process for the bytes that it keeps, until it closes.

        Args:
            process: The client process.
            kept: Its part of the registration protocol.
            size: How many bytes that is now; less than before does not count.

        Returns:
            Whether all processes together may keep as much.
        """
        with self._opening:
            more = max(size - kept.charge, 0) if process.id in self._processes else 0
            if more and self._registered + more > REGISTERED_LIMIT:
                return False
            kept.charge += more
            self._registered += more
            return True

    def connect(self, listener: Listener, claim: Claim) -> None:
        """A connection of a session to the site's endpoints opens.

        Raises:
            Stale: The session has another id by now; nothing is registered.
        """
        with self._opening:
            self._session_of(claim)
            listener.claim = claim = self._enrol(claim)
            claim.session._connections.add(listener)

    def disconnect(self, listener: Listener) -> None:
        """A connection to the site's endpoints has closed. Idempotent."""
        claim = listener.claim
        if claim is not None and listener in claim.session._connections:
            session = claim.session
            with self._opening:
                session._connections.discard(listener)
                self._drop_unused(session)

    def replace_id(self, claim: Claim) -> tuple[Claim, Any]:
        """Give a session another id, so that every claim so far is stale, and no user.

        Returns:
            The claim by the new id, and the user before.

        Raises:
            Stale: The session has another id already.
        """
        with self._opening:
            session = self._session_of(claim)
            user = session.user
            self._remember(Claim.of(session))  # first: `find` and `claim` take no lock
            self._claims.pop(session.id, None)
            self._kept.pop(session, None)
            self._strike(session)
            session.id, session.user = self._make_id(session), None
            return self._enrol(Claim.of(session)), user

    def assign(self, claim: Claim, user: Hashable, *, keep: bool) -> None:
        """Let a session belong to a user, unless it has got another id since.

        Args:
            claim: The session, which has no user.
            user: The user from now on; `None` for a visitor.
            keep: Whether to remember the user while the session has no client process. At most
                `Settings.max_processes` sessions are remembered so; the oldest go first.
        """
        with self._opening:
            if claim.stale:  # another thread has changed the user meanwhile
                return
            session = claim.session
            session.user = user
            self._enrol(claim)
            if keep:
                self._kept[session] = None
                if len(self._kept) > self._settings.max_processes:
                    oldest = next(iter(self._kept))
                    del self._kept[oldest]
                    self._drop_unused(oldest)
            else:
                self._drop_unused(session)

    def start(self) -> None:
        """Restart the first-connection timeout of processes opened before startup."""
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
        for claim in list(self._claims.values()):
            self._drop_unused(claim.session)

    def forget(self, process: Client) -> None:
        """Remove a closed client process, and its session with the last one."""
        with self._opening:
            session = process.session
            session._processes.pop(process.id, None)
            if self._processes.pop(process.id, None) is not None and process.registered is not None:
                self._registered -= process.registered.charge
            if session._default is process:
                session._default = None
            self._drop_unused(session)

    def _make_id(self, session: Session) -> str:
        """Return an unused id for a session, or for a client process of a session."""
        del session
        return secrets.token_urlsafe(18)

    def _session_of(self, claim: Claim) -> Session:
        """Return the session that a claim gives a right to. The caller holds the lock.

        Raises:
            Stale: The session has another id by now, or another session had this id until lately.
        """
        if claim.stale or claim.id in self._former:
            raise Stale
        return self.find_session(claim.id) or claim.session

    def _enrol(self, claim: Claim) -> Claim:
        """Put a session into the tables; return the claim with its id that is there, if any."""
        claim = self._claims.setdefault(claim.id, claim)
        session = claim.session
        if session.user is not None:
            self._users.setdefault(session.user, {})[session] = None
        return claim

    def _drop_unused(self, session: Session) -> None:
        if session._processes or session._connections or session in self._kept:
            return
        self._claims.pop(session.id, None)
        self._strike(session)

    def _strike(self, session: Session) -> None:
        """Remove a session from those of its user."""
        known = self._users.get(session.user)
        if known is not None:
            known.pop(session, None)
            if not known:
                del self._users[session.user]

    def _remember(self, claim: Claim) -> None:
        """Let the id lead to the session while the answer with the new cookie is on its way."""
        former = _Former(self._former, claim)
        self._former[claim.id] = former
        if len(self._former) > FORMER_LIMIT:
            del self._former[next(iter(self._former))]
        runtime = self._household.runtime
        runtime.loop.run(lambda: runtime.timers.start(former, SUCCESSION))

    def _make_room(self, session: Session) -> None:
        limit = self._settings.max_processes_per_session
        open_ = [p for p in session._clients if not p.closed]  # another thread may be closing one
        if len(open_) < limit:
            return
        idle = [p for p in open_ if not p.connections]
        if not idle:
            raise TooManyProcesses(limit, of_session=True)
        longest = max(idle, key=Client.inactive_for)
        _logger.info(
            "a session has %d client processes: closing the longest idle",
            limit,
            extra=event("process.evicted", count=limit),
        )
        longest.close()


class Claimed(NamedTuple):
    """A client process, and the claim to its session that it was opened or found by."""

    process: Client
    claim: Claim


def new_session() -> Session:
    """Return a session with a new id, which is not in the tables yet."""
    return Session(secrets.token_urlsafe(18))


class _Former(Timer):
    """An id that a session had until lately."""

    __slots__ = ("_table", "claim")

    def __init__(self, table: dict[str, _Former], claim: Claim) -> None:
        super().__init__()
        self._table = table
        self.claim = claim

    def expire(self) -> None:
        self._table.pop(self.claim.id, None)
