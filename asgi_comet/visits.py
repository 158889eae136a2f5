"""The current request: whose it is, and which cookie its answer sets.

Owns the context variable that lets an application ask for its client process from anywhere in a
request, sync endpoints in threads included. A visit costs nothing until it is asked.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.types import Scope

from .cookies import Cookie
from .errors import NoClientProcess, ProcessClosed
from .headers import read_headers
from .identity import Identity
from .processes import ClientProcess
from .registry import Processes

__all__ = ["Visit", "Visits"]

_current: ContextVar[Visit | None] = ContextVar("asgi_comet_visit", default=None)


class Visits:
    """Recognises who a request comes from.

    Args:
        identity: What is signed.
        cookie: Where the session is.
        processes: Who there is.
    """

    def __init__(self, identity: Identity, cookie: Cookie, processes: Processes) -> None:
        self.identity: Identity = identity
        self.cookie: Cookie = cookie
        self.processes: Processes = processes

    @contextmanager
    def begin(self, scope: Scope) -> Iterator[Visit]:
        """Make a request the current one while the context lasts."""
        visit = Visit(self, scope, _current.get())
        token = _current.set(visit)
        try:
            yield visit
        finally:
            _current.reset(token)

    def current(self) -> Visit:
        """Return the current request, as this `Comet` sees it.

        Raises:
            NoClientProcess: There is none.
        """
        visit = self._find()
        if visit is None:
            raise NoClientProcess(
                "this is outside of a request that CometMiddleware serves; "
                "pass scope=process, or scope=SITE"
            )
        return visit

    def current_root_path(self) -> str:
        """Return where the application of the current request is mounted; outside of one, ''."""
        visit = self._find()
        return "" if visit is None else visit.root_path

    def _find(self) -> Visit | None:
        visit = _current.get()
        while visit is not None and visit.visits is not self:  # another Comet around the same app
            visit = visit.outer
        return visit


class Visit:
    """One request.

    Args:
        visits: How it is recognised.
        scope: The request.
        outer: The same request as another `Comet` around the application sees it.
    """

    __slots__ = (
        "_process",
        "_scope",
        "_session",
        "answered",
        "cookies",
        "outer",
        "root_path",
        "visits",
    )

    def __init__(self, visits: Visits, scope: Scope, outer: Visit | None = None) -> None:
        self.visits: Visits = visits
        self.outer: Visit | None = outer
        # Read now: routers below us change it in the same scope.
        self.root_path: str = scope.get("root_path", "").rstrip("/")
        self.answered: bool = False
        self._scope = scope
        self._session: str | None = None
        self._process: ClientProcess | None = None
        self.cookies: list[tuple[bytes, bytes]] = []  # the headers that its answer gets

    def session(self) -> str | None:
        """Return the session that the request's cookie names, or that was begun in its answer."""
        if self._session is None:
            named = map(self.visits.identity.unsign_session, self.visits.cookie.read(self._scope))
            self._session = next(filter(None, named), None)
        return self._session

    def open_process(self) -> ClientProcess:
        """Open a client process for the page being served, in a session begun if need be.

        Raises:
            NotRunning: The lifespan does not run.
            NoClientProcess: The answer has begun, so its cookie cannot be set any more.
            TooManyProcesses: There are too many.
        """
        self.visits.processes.check_running()
        if self.answered:
            raise NoClientProcess("the answer has begun, so it is too late to set a cookie")
        session = self.session() or secrets.token_urlsafe(18)
        process = self.visits.processes.open(session)
        self._session = session
        self._process = process
        value = self.visits.identity.sign_session(session)
        self.cookies = [self.visits.cookie.write(self._scope, value)]
        return process

    def process(self) -> ClientProcess:
        """Return the client process of the request: opened in it, named by its header, or default.

        Raises:
            NoClientProcess: The request has none, and says of none that is its own.
            ProcessClosed: The one it names has closed.
            TooManyProcesses: There are too many for a default one.
        """
        self.visits.processes.check_running()
        if self._process is None:
            token = read_headers(self._scope).get(b"comet-process")
            self._process = self._default() if token is None else self._named(token)
        return self._process

    def _default(self) -> ClientProcess:
        session = self.session()
        if session is None:
            raise NoClientProcess(
                "the request has neither a Comet-Process header nor a session's cookie; "
                "call comet.open_process() for the page you serve, or let it POST PREFIX/open"
            )
        return self.visits.processes.default(session)

    def _named(self, token: bytes) -> ClientProcess:
        named = self.visits.identity.unsign_process(token.decode("latin-1"))
        if named is None:
            raise NoClientProcess("the request's Comet-Process header is not one of ours")
        process = self.visits.processes.find(named)
        if process is None:
            raise ProcessClosed(named)
        if process.session.id != self.session():
            raise NoClientProcess("the request's Comet-Process header is of another session")
        return process
