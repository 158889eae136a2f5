"""The current request: whose it is, and which cookie its answer sets.

Owns the context variable that lets an application ask for its client process from anywhere in a
request, sync endpoints in threads included. A visit costs nothing until it is asked.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.requests import HTTPConnection
from starlette.types import Scope

from asgi_comet.errors import NoClientProcess, ProcessClosed
from asgi_comet.http.advice import advise
from asgi_comet.http.headers import read_headers
from asgi_comet.identity.cookies import Cookie
from asgi_comet.identity.process import Caller, ClientProcess, Session
from asgi_comet.identity.registry import Processes
from asgi_comet.identity.tokens import Identity
from asgi_comet.identity.users import Moved, Users, check_user

__all__ = ["Visit", "Visits", "current_process"]

_logger = logging.getLogger(__name__)

PARTS = frozenset(
    [b"audio", b"font", b"image", b"manifest", b"script", b"style", b"track", b"video", b"worker"]
)
"""What browsers say in `Sec-Fetch-Dest` that they load for a page."""

_current: ContextVar[Visit | None] = ContextVar("asgi_comet_visit", default=None)


class Visits:
    """Recognises who a request comes from.

    Args:
        identity: What is signed.
        cookie: Where the session is.
        processes: Who there is.
        users: Who they belong to.
    """

    def __init__(
        self, identity: Identity, cookie: Cookie, processes: Processes, users: Users
    ) -> None:
        self.identity: Identity = identity
        self.cookie: Cookie = cookie
        self.processes: Processes = processes
        self.users: Users = users
        self.warned: bool = False  # that a page has asked with `fetch` in place of `comet.fetch`

    def sessions(self, scope: Scope) -> tuple[str, ...]:
        """Return the sessions that a request's cookies name: none, one, or several on plain http.

        Reading them costs a signature each: ask once per request.
        """
        named = map(self.identity.unsign_session, self.cookie.read(scope))
        return tuple(dict.fromkeys(session for session in named if session is not None))

    @contextmanager
    def begin(self, scope: Scope, sessions: tuple[str, ...] | None = None) -> Iterator[Visit]:
        """Make a request the current one while the context lasts.

        Args:
            scope: The request.
            sessions: What its cookies name; `None` if they were not looked at.
        """
        visit = Visit(self, scope, _current.get(), sessions)
        token = _current.set(visit)
        try:
            yield visit
        finally:
            _current.reset(token)

    def make_cookie(self, scope: Scope, session: str) -> tuple[bytes, bytes]:
        """Return the header that names a session to the client, in answer to a request."""
        return self.cookie.write(scope, self.identity.sign_session(session))

    def current(self, advice: str = "", *, instead: str = "call it in an endpoint") -> Visit:
        """Return the current request, as this `Comet` sees it.

        Args:
            advice: The likeliest way out, put before the text of the error.
            instead: The way out where there is no request, put after the text of the error.

        Raises:
            NoClientProcess: There is none.
        """
        visit = self._find()
        if visit is None:
            raise NoClientProcess(
                "this is outside of a request that CometMiddleware serves (is it added to the "
                f"application? it serves no routes for WebSockets); {instead}",
                advice,
            )
        return visit

    def settle(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Let the answer to the current request, if there is one, wait for something."""
        visit = self._find()
        if visit is not None:
            visit.unsettled.append(wait)

    def current_root_path(self) -> str:
        """Return where the application of the current request is mounted; outside of one, ''."""
        visit = self._find()
        return "" if visit is None else visit.root_path

    def _find(self) -> Visit | None:
        visit = _current.get()
        while visit is not None and visit.visits is not self:  # another Comet around the same app
            visit = visit.outer
        return visit


@contextmanager
def _unless_moved() -> Iterator[None]:
    """Go on when the application cannot say whose a request is; nothing has changed then."""
    try:
        yield
    except Moved:
        pass  # somebody logged in meanwhile, whose answer has the cookie
    except Exception as error:
        advice = advise(error)
        _logger.exception("the application could not say who a request belongs to%s", advice)


class Visit:
    """One request.

    Args:
        visits: How it is recognised.
        scope: The request.
        outer: The same request as another `Comet` around the application sees it.
        sessions: What its cookies name; `None` if they were not looked at.
    """

    __slots__ = (
        "_begun",
        "_caller",
        "_grant",
        "_process",
        "_process_caller",
        "_scope",
        "_sessions",
        "answered",
        "outer",
        "root_path",
        "unsettled",
        "visits",
    )

    def __init__(
        self,
        visits: Visits,
        scope: Scope,
        outer: Visit | None = None,
        sessions: tuple[str, ...] | None = None,
    ) -> None:
        self.visits: Visits = visits
        self.outer: Visit | None = outer
        # Read now: routers below us change it in the same scope.
        self.root_path: str = scope.get("root_path", "").rstrip("/")
        self.answered: bool = False
        self.unsettled: list[Callable[[], Awaitable[None]]] = []  # what its answer waits for
        self._scope = scope
        self._sessions = sessions
        self._caller: Caller | None = None  # whose it is, once that was looked at
        self._grant: Caller | None = None  # what the answer's cookie names
        self._begun = False  # whether its session was
        self._process: ClientProcess | None = None
        self._process_caller: Caller | None = None

    @property
    def cookies(self) -> list[tuple[bytes, bytes]]:
        """The headers that its answer gets now: none if somebody else has logged in meanwhile."""
        grant = self._grant
        if grant is None or grant.moved:
            return []
        return [self.visits.make_cookie(self._scope, grant.id)]

    def session(self) -> str | None:
        """Return the session that the request's cookie names, or that was begun in its answer."""
        if self._caller is not None:
            return self._caller.id
        if self._sessions is None:
            self._sessions = self.visits.sessions(self._scope)
        return self._sessions[0] if self._sessions else None

    def open_process(self) -> ClientProcess:
        """Open a client process for the page being served, in a session begun if need be.

        Raises:
            NotRunning: The lifespan does not run.
            NoClientProcess: The answer has begun, so its cookie cannot be set any more.
            TooManyProcesses: There are too many.
        """
        self._check()
        session, moved = self._look()
        process = self.visits.processes.open(session or _fresh_session())
        self._keep(process)
        self._caller = self._process_caller
        if not moved:  # else the answer to a login is on its way, whose cookie must stay
            self._grant = self._caller
            self._begun = self._begun or session is None
        return process

    def take(self, caller: Caller, process: ClientProcess | None = None) -> None:
        """It is known by now whose request it is."""
        self._caller = caller
        if process is not None:
            self._keep(process)

    def known_session(self) -> Session | None:
        """Return the session of the request, if it has an open client process or a user."""
        session, _ = self._look()
        if session is None or self._caller is not None:
            return session
        return self.visits.processes.find_session(session.id)

    def login(self, user: Hashable) -> None:
        """Let the session belong to a user; its id changes.

        Raises:
            NotRunning: The lifespan does not run.
            NoClientProcess: The answer has begun, so its cookie cannot be set any more.
            TypeError: The user is `None`, or not hashable.
        """
        if user is None:
            raise TypeError("expected a user, got None; logout() makes the session a visitor's")
        self._change(check_user(user))

    def logout(self) -> None:
        """Let the session be a visitor's; its id changes, and its client processes close.

        Raises:
            NotRunning: The lifespan does not run.
            NoClientProcess: The answer has begun, so its cookie cannot be set any more.
        """
        self._change(None)

    async def recognise(self) -> None:
        """Ask the application whose the session is, before it serves the request.

        Not for what a page loads on its way: scripts, pictures and the like. An application that
        fails to say so has changed nothing.
        """
        users = self.visits.users
        if users.identify is None or read_headers(self._scope).get(b"sec-fetch-dest") in PARTS:
            return
        named = self.session()
        if named is None:
            return
        current = self._current(self.visits.processes.session(named))
        with _unless_moved():
            session, renewed = await users.recognise(named, HTTPConnection(self._scope), current)
            self._caller = Caller.of(session)
            if renewed:
                self._grant = self._caller

    async def settle(self) -> None:
        """Return once all workers know what this one was told to tell them.

        Raises:
            CometError: They cannot be told.
        """
        while self.unsettled:
            await self.unsettled.pop(0)()

    async def identify(self) -> None:
        """Ask the same about a session that was begun in the request, with its first process."""
        process = self._process
        if self.visits.users.identify is None or process is None or not self._begun:
            return
        with _unless_moved():
            session, connection = process.session, HTTPConnection(self._scope)
            await self.visits.users.identify_session(session, connection, process)
            self._keep(process)
            self._caller = self._grant = self._process_caller

    def process(self) -> ClientProcess:
        """Return the client process of the request: opened in it, named by its header, or default.

        Raises:
            NoClientProcess: The request has none, and says of none that is its own.
            ProcessClosed: The one it names has closed.
            TooManyProcesses: There are too many for a default one.
        """
        self.visits.processes.check_running()
        if self._process is None or self._process_caller is None:
            token = read_headers(self._scope).get(b"comet-process")
            return self._keep(self._default() if token is None else self._find_named(token))
        if self._process_caller.moved:
            raise NoClientProcess(_MOVED)
        return self._process

    def _look(self) -> tuple[Session | None, bool]:
        """Return the session of the request, if it has one; and whether that moved, so is not."""
        caller = self._caller
        if caller is not None:
            return (None, True) if caller.moved else (caller.session, False)
        named = self.session()
        if named is None:
            return None, False
        if self.visits.processes.heir(named) is not None:
            return None, True
        return self.visits.processes.session(named), False

    def _keep(self, process: ClientProcess) -> ClientProcess:
        self._process, self._process_caller = process, Caller.of(process.session)
        return process

    def _change(self, user: Hashable) -> None:
        self._check()
        session, moved = self._look()
        if session is None:
            session = (self._heir(user) if moved else None) or _fresh_session()
        current = self._process or self._current(session)
        caller = self.visits.users.change(session, user, current=current, keep=user is not None)
        self._caller = self._grant = caller
        if self._process is not None and self._process.session is session:
            self._process_caller = caller

    def _heir(self, user: Hashable) -> Session | None:
        """Return what became of the session, if it is of that very user: a second click on login.

        With the cookie of before a login it may as well be a stranger's.
        """
        caller, named = self._caller, self.session()
        heir = caller.session if caller is not None else self.visits.processes.heir(named or "")
        return heir if heir is not None and user is not None and heir.user == user else None

    def _current(self, session: Session) -> ClientProcess | None:
        """The tab that the request says it is of, if that is so."""
        token = read_headers(self._scope).get(b"comet-process")
        if token is None:
            return None
        named = self.visits.identity.unsign_process(token.decode("latin-1"))
        process = None if named is None else self.visits.processes.find(named)
        return process if process is not None and process.session is session else None

    def _check(self) -> None:
        self.visits.processes.check_running()
        if self.answered:
            raise NoClientProcess("the answer has begun, so it is too late to set a cookie")

    def _default(self) -> ClientProcess:
        session, moved = self._look()
        if moved:
            raise NoClientProcess(_MOVED)
        if session is None:
            raise NoClientProcess(
                "the request has neither a Comet-Process header nor a session's cookie; "
                "call comet.open_process() for the page you serve, or let it POST PREFIX/open"
            )
        self._warn_of_fetch(session)
        return self.visits.processes.default(session)

    def _warn_of_fetch(self, session: Session) -> None:
        """Log once that a page has asked with `fetch` in place of `comet.fetch`."""
        mode = read_headers(self._scope).get(b"sec-fetch-mode")
        if self.visits.warned or mode in (None, b"navigate") or not session.has_tabs:
            return
        self.visits.warned = True
        _logger.warning(
            "%.200r was asked by a page without the header Comet-Process, so comet.process() is "
            "the session's default client process, which no tab reads: in the page write "
            "comet.fetch(...) in place of fetch(...)",
            self._scope["path"],
        )

    def _find_named(self, token: bytes) -> ClientProcess:
        named = self.visits.identity.unsign_process(token.decode("latin-1"))
        if named is None:
            raise NoClientProcess("the request's Comet-Process header is not one of ours")
        process = self.visits.processes.find(named)
        if process is None:
            raise ProcessClosed(named)
        if process.session.id != self.session():
            raise NoClientProcess("the request's Comet-Process header is of another session")
        return process


_MOVED = "somebody has logged in or out meanwhile, and its session has another cookie by now"


def _fresh_session() -> Session:
    return Session(secrets.token_urlsafe(18))


def current_process() -> ClientProcess:
    """Return the client process of the current request, whichever `Comet` serves it.

    Raises:
        NoClientProcess: There is no current request, or none is its own.
        ProcessClosed: The one it names has closed.
    """
    visit = _current.get()
    if visit is None:
        raise NoClientProcess(
            "this is outside of a request that CometMiddleware serves; pass process=process"
        )
    return visit.process()
