"""The current request: the session and the client process it belongs to, and its answer's cookie.

Owns the context variable through which an application finds its client process from anywhere in a
request, sync endpoints in threads included. A request costs nothing until the application asks.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from typing import Protocol

from starlette.types import Scope

from asgi_comet.errors import BrokerUnavailable, NoClientProcess, ProcessClosed
from asgi_comet.http.advice import advise
from asgi_comet.http.headers import read_headers
from asgi_comet.identity.arrival import Arrival, Asker, is_part
from asgi_comet.identity.clients import Claimed, new_session
from asgi_comet.identity.logins import Login
from asgi_comet.identity.process import Claim, Client, Session, Stale
from asgi_comet.identity.users import Users
from asgi_comet.log_events import event

__all__ = ["CurrentRequest", "Recogniser", "current_process", "current_request"]

_logger = logging.getLogger(__name__)

_CHANGED = "somebody has logged in or out meanwhile, and its session has another cookie by now"

current_request: ContextVar[CurrentRequest | None] = ContextVar("asgi_comet_request", default=None)


class Recogniser(Asker, Protocol):
    """The part of `Requests` that a request uses."""

    users: Users
    warned: bool

    def read_sessions(self, scope: Scope) -> tuple[str, ...]:
        """Return the sessions that a request's cookies name."""

    def make_cookie(self, scope: Scope, session: str) -> tuple[bytes, bytes]:
        """Return the header that names a session to the client."""

    def require_people(self, called: str) -> None:
        """Check that client processes work with the broker; see `Requests`."""


class CurrentRequest:
    """One request.

    Args:
        recogniser: Reads the cookies of the request and makes the cookie of the answer.
        scope: The request.
        outer: The same request, as seen by another `Comet` around the application.
        sessions: The sessions that the cookies name; `None` if the cookies have not been read.

    Attributes:
        root_path: The path where the application is mounted.
        answered: Whether the answer has begun, so that no cookie can be set any more.
        unsettled: The functions that the server awaits before the answer.
    """

    __slots__ = (
        "_arrival",
        "_begun",
        "_claim",
        "_process",
        "_process_claim",
        "_renewed",
        "_scope",
        "_sessions",
        "answered",
        "outer",
        "recogniser",
        "root_path",
        "unsettled",
    )

    def __init__(
        self,
        recogniser: Recogniser,
        scope: Scope,
        outer: CurrentRequest | None = None,
        sessions: tuple[str, ...] | None = None,
    ) -> None:
        self.recogniser: Recogniser = recogniser
        self.outer: CurrentRequest | None = outer
        # Read now: routers below us change it in the same scope.
        self.root_path: str = scope.get("root_path", "").rstrip("/")
        self.answered: bool = False
        self.unsettled: list[Callable[[], Awaitable[None]]] = []
        self._scope = scope
        self._sessions = sessions
        self._claim: Claim | None = None  # once it was recognised, or its session was changed
        self._renewed: Claim | None = None  # the one that the answer's cookie names
        self._arrival: Arrival | None = None
        if recogniser.clients.shared:
            self._arrival = Arrival(recogniser, scope, self.session_id)
        self._begun = False  # whether its session was begun in it
        self._process: Client | None = None
        self._process_claim: Claim | None = None

    @property
    def cookies(self) -> list[tuple[bytes, bytes]]:
        """The headers for the answer: none if the session has got another id meanwhile."""
        claim = self._renewed
        if claim is None or claim.stale:
            return []
        return [self.recogniser.make_cookie(self._scope, claim.id)]

    def session_id(self) -> str | None:
        """Return the id of the session that the cookie names, or that was begun in the answer."""
        if self._claim is not None:
            return self._claim.id
        if self._sessions is None:
            self._sessions = self.recogniser.read_sessions(self._scope)
        return self._sessions[0] if self._sessions else None

    def open_process(self) -> Client:
        """Open a client process for the page; begin a session if the request has none.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
            MustAwait: Other workers have to be asked, which blocks.
            NotRunning: The lifespan does not run.
            NoClientProcess: The answer has begun, so its cookie cannot be set any more.
            TooManyProcesses: There are too many.
        """
        self._check()
        self._require("comet.open_process")
        claim = self._look()
        opened = self.recogniser.clients.open(claim or Claim.of(new_session()))
        self._claim = opened.claim
        if claim is None or claim.id == opened.claim.id:
            self._renewed = opened.claim
            self._begun = self._begun or claim is None
        # Else the claim was stale: the answer to a login is on its way, whose cookie must stay.
        self._await_change(opened.claim.session)
        return self._keep(opened)

    def take(self, claim: Claim, process: Client | None = None) -> None:
        """Record the claim and the client process that one of our endpoints has found."""
        if self._arrival is not None:
            self._arrival.done = True
        self._claim = claim
        if process is not None:
            self._keep(Claimed(process, claim))

    def known_session(self) -> Session | None:
        """Return the session of the request, if it has a process, a connection or a user.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
            MustAwait: Other workers have to be asked, which blocks.
        """
        self._require("comet.session")
        claim = self._look()
        if claim is None or claim.stale:
            return None
        return claim.session if self._claim else self.recogniser.clients.find_session(claim.id)

    def login(self, user: Hashable) -> None:
        """Give the session a user; its id changes.

        Raises:
            NotRunning: The lifespan does not run.
            NoClientProcess: The answer has begun, so its cookie cannot be set any more.
            TypeError: The user is `None`, or not hashable.
        """
        if user is None:
            raise TypeError("expected a user, got None; logout() makes the session a visitor's")
        user = self.recogniser.users.check(user)
        self._require("comet.login", ", user")
        self._change(user)

    def logout(self) -> None:
        """Take the user from the session; its id changes, and its client processes close.

        Raises:
            NotRunning: The lifespan does not run.
            NoClientProcess: The answer has begun, so its cookie cannot be set any more.
        """
        self._require("comet.logout")
        self._change(None)

    async def arrive(self) -> None:
        """Ask the other workers for what the request names; call only where there are any."""
        assert self._arrival is not None  # noqa: S101 - for the type checker
        await self._arrival.prefetch()

    async def recognise(self) -> None:
        """Ask the application for the session's user, before it serves the request.

        The server does not ask for the parts of a page, like scripts and pictures. If the
        application fails to answer, nothing changes.
        """
        if self.recogniser.users.identify is None or is_part(self._scope):
            return
        if self._arrival is not None and not self._arrival.done:
            return
        claim = self._look()
        if claim is None:
            return
        current = await self._ask(claim, self._tab(claim.session))
        if current is not None:
            self._claim = current
            if current is not claim:
                self._renewed = current

    async def settle(self) -> None:
        """Return once all workers know the channels that this request has made.

        Raises:
            CometError: The other workers cannot be reached.
        """
        while self.unsettled:
            await self.unsettled.pop(0)()

    async def identify(self) -> None:
        """Ask for the user of a session that was begun in the request, with its first process."""
        process, claim = self._process, self._process_claim
        if not self._begun or process is None or claim is None:
            return
        if self.recogniser.users.identify is None:
            return
        current = await self._ask(claim, process)
        if current is not None:
            self._process_claim = self._claim = self._renewed = current

    def process(self) -> Client:
        """Return the client process of the request: opened in it, named by its header, or default.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
            MustAwait: Other workers have to be asked, which blocks.
            NoClientProcess: The request has none, and names no session that has a default one.
            ProcessClosed: The one it names has closed.
            TooManyProcesses: There are too many for a default one.
        """
        self.recogniser.clients.check_running()
        if self._process is None or self._process_claim is None:
            self._require("comet.process")
            token = read_headers(self._scope).get(b"comet-process")
            return self._keep(self._default() if token is None else self._find_named(token))
        if self._process_claim.stale:
            raise NoClientProcess(_CHANGED)
        return self._process

    def _require(self, function: str, arguments: str = "") -> None:
        if self._arrival is not None:
            self._arrival.require(function, arguments)

    def _unsign(self, token: bytes) -> str | None:
        return self.recogniser.identity.unsign_process(token.decode("latin-1"))

    def _await_change(self, session: Session) -> None:
        """Let the answer wait until the other workers know of a change."""
        pending = self.recogniser.clients.pending(session)
        if pending is not None:
            self.unsettled.append(pending.wait)

    def _look(self) -> Claim | None:
        """Return the claim of the request to a session, if it names one."""
        if self._claim is not None:
            return self._claim
        named = self.session_id()
        return None if named is None else self.recogniser.clients.claim(named)

    async def _ask(self, claim: Claim, tab: Client | None) -> Claim | None:
        """Bring a claim up to date; `None` if the application cannot tell, so nothing changes."""
        try:
            return await self.recogniser.users.recognise(claim, self._scope, tab)
        except Stale:
            return None  # the answer to a login has the cookie
        except BrokerUnavailable:
            return None  # the client is asked again when it connects
        except Exception as error:
            advice = advise(error)
            _logger.exception(
                "the application could not say who a request belongs to%s",
                advice,
                extra=event("identify.failed"),
            )
            return None

    def _keep(self, found: Claimed) -> Client:
        self._process, self._process_claim = found
        return found.process

    def _change(self, user: Hashable) -> None:
        self._check()
        named = self._look()
        if named is None or not named.stale:
            claim = named or Claim.of(new_session())
        elif user is not None and named.session.user == user:  # the user has clicked twice on login
            self._renew(Claim.of(named.session))
            Login(self.recogniser, user, self._renew).tell(named.session, self.unsettled)
            return
        else:  # the claim may be a stranger's
            claim = Claim.of(new_session())
        tab = self._process or self._tab(claim.session)
        try:
            claim = self.recogniser.users.change(claim, user, tab=tab, keep=user is not None)
        except Stale:  # another thread has changed the session at this moment
            self._claim = self.recogniser.clients.claim(claim.id)
            self._change(user)
            return
        self._renew(claim)
        Login(self.recogniser, user, self._renew).tell(claim.session, self.unsettled)

    def _renew(self, claim: Claim) -> None:
        """Let the answer's cookie name a session whose id has changed."""
        self._claim = self._renewed = claim
        if self._process is not None and self._process.session is claim.session:
            self._process_claim = claim

    def _tab(self, session: Session) -> Client | None:
        """Return the client process that the request names, if the session has it."""
        token = read_headers(self._scope).get(b"comet-process")
        if token is None:
            return None
        named = self._unsign(token)
        process = None if named is None else self.recogniser.clients.find(named)
        return process if process is not None and process.session is session else None

    def _check(self) -> None:
        self.recogniser.clients.check_running()
        if self.answered:
            raise NoClientProcess("the answer has begun, so it is too late to set a cookie")

    def _default(self) -> Claimed:
        claim = self._look()
        if claim is None:
            raise NoClientProcess(
                "the request has neither a Comet-Process header nor a session's cookie; "
                "call comet.open_process() for the page you serve, or let it POST PREFIX/open"
            )
        try:
            found = self.recogniser.clients.default(claim)
        except Stale:
            raise NoClientProcess(_CHANGED) from None
        self._await_change(found.claim.session)
        self._warn_of_fetch(claim.session)
        return found

    def _warn_of_fetch(self, session: Session) -> None:
        """Log once that a page has asked with `fetch` in place of `comet.fetch`."""
        mode = read_headers(self._scope).get(b"sec-fetch-mode")
        if self.recogniser.warned or mode in (None, b"navigate") or not session._has_tabs:
            return
        self.recogniser.warned = True
        _logger.warning(
            "%.200r was asked by a page without the header Comet-Process, so comet.process() is "
            "the session's default client process, which no tab reads: in the page write "
            "comet.fetch(...) in place of fetch(...)",
            self._scope["path"],
            extra=event("setup.advised", path=self._scope["path"]),
        )

    def _find_named(self, token: bytes) -> Claimed:
        named = self._unsign(token)
        if named is None:
            raise NoClientProcess("the request's Comet-Process header is not one of ours")
        process = self.recogniser.clients.find(named)
        if process is None:
            raise ProcessClosed(named)
        claim = Claim.of(process.session)
        if claim.id != self.session_id():
            raise NoClientProcess("the request's Comet-Process header is of another session")
        return Claimed(process, claim)


def current_process() -> Client:
    """Return the client process of the current request, whichever `Comet` serves it.

    Raises:
        NoClientProcess: There is no current request, or none is its own.
        NotShared: Workers share the broker, but not client processes.
        ProcessClosed: The one it names has closed.
    """
    request = current_request.get()
    if request is None:
        raise NoClientProcess(
            "this is outside of a request that CometMiddleware serves; pass process=process"
        )
    request.recogniser.require_people("the current client process")
    return request.process()
