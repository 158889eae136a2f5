"""The sessions and client processes that there are.

Owns the tables of both, and their bounds. Must not know requests, cookies or transports.
"""

from __future__ import annotations

import logging
import threading

from .errors import TooManyProcesses
from .processes import ClientProcess, Household, Session
from .settings import Settings

__all__ = ["Processes"]

_logger = logging.getLogger(__name__)


class Processes:
    """The sessions and client processes of this worker. Thread-safe.

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

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def sessions(self) -> list[Session]:
        """The sessions with an open client process."""
        return list(self._sessions.values())

    def check_running(self) -> None:
        """Raise unless the lifespan runs: nobody would close a process then.

        Raises:
            NotRunning: It does not.
        """
        self._household.runtime.loop.check()

    def find(self, id_: str) -> ClientProcess | None:
        """Return an open client process."""
        return self._processes.get(id_)

    def open(self, session_id: str) -> ClientProcess:
        """Open a client process in a session.

        Where the session has as many as it may, the one longest without a connection is closed.

        Raises:
            TooManyProcesses: All of the session's are connected, or there are too many in all.
        """
        with self._opening:
            session = self._sessions.get(session_id)
            if session is not None:
                self._make_room(session)
            if len(self._processes) >= self._settings.max_processes:
                raise TooManyProcesses(self._settings.max_processes, of_session=False)
            if session is None or session_id not in self._sessions:
                session = self._sessions.setdefault(session_id, session or Session(session_id))
            process = ClientProcess(session, self._household, self._lock)
            session._processes[process.id] = self._processes[process.id] = process
            return process

    def default(self, session_id: str) -> ClientProcess:
        """Return the default client process of a session, made when first needed.

        Raises:
            TooManyProcesses: As `open`.
        """
        with self._opening:
            session = self._sessions.get(session_id)
            if session is not None and session._default is not None:
                return session._default
            process = self.open(session_id)
            process.session._default = process
            return process

    def start(self) -> None:
        """The lifespan starts: those opened before may wait from now for their first connection."""
        for process in list(self._processes.values()):
            process.begin_expiry()

    def close_all(self) -> None:
        """Close every client process: the server stops."""
        for process in list(self._processes.values()):
            process.close()

    def forget(self, process: ClientProcess) -> None:
        """Forget a client process that closed, and its session with the last one."""
        with self._opening:
            session = process.session
            session._processes.pop(process.id, None)
            self._processes.pop(process.id, None)
            if session._default is process:
                session._default = None
            if not session._processes:
                self._sessions.pop(session.id, None)

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
