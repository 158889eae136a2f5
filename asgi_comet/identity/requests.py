"""Requests: reading the session that a request names, and making a request the current one.

Owns the way from a cookie to ids of sessions and back. Must not know what an endpoint asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from starlette.types import Scope

from asgi_comet.brokers.base import Broker
from asgi_comet.errors import NoClientProcess, NotShared
from asgi_comet.identity.asking import Asking
from asgi_comet.identity.clients import Clients
from asgi_comet.identity.cookies import Cookie
from asgi_comet.identity.current import CurrentRequest, current_request
from asgi_comet.identity.tokens import Identity
from asgi_comet.identity.users import Users

__all__ = ["Requests"]


class Requests:
    """The requests of the application and of our endpoints, as one `Comet` sees them.

    Args:
        identity: Signs and verifies ids.
        cookie: The cookie that names the session.
        clients: The sessions and client processes.
        users: The users of sessions.
        broker: Says whether client processes are shared between workers.
        asking: When and how other workers are asked.
    """

    def __init__(
        self,
        identity: Identity,
        cookie: Cookie,
        clients: Clients,
        users: Users,
        broker: Broker,
        asking: Asking,
    ) -> None:
        self.asking: Asking = asking
        self.identity: Identity = identity
        self.clients: Clients = clients
        self.users: Users = users
        self.warned: bool = False  # that a page has asked with `fetch` in place of `comet.fetch`
        self._cookie = cookie
        self._broker = broker

    def require_people(self, called: str) -> None:
        """Check that client processes, users and notifiers work with the broker.

        This is the one place that decides so: every call and every endpoint asks here.

        Args:
            called: The call of the application, or the request of a client.

        Raises:
            NotShared: Workers share the broker, but not client processes, users and notifiers.
        """
        if self._broker.shared and not self._broker.shares_people:
            raise NotShared(called)

    def prefetches(self, *, named: bool) -> bool:
        """Return whether the server asks the other workers before it serves a request.

        Args:
            named: Whether the request names its client process.
        """
        return self.asking.prefetch == "cookie" or (named and self.asking.prefetch == "header")

    @property
    def may_block(self) -> bool:
        """Whether this is a worker thread."""
        return self.asking.may_block

    def block(self, called: str, instead: str, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait for something in a worker thread.

        Raises:
            BrokerUnavailable: It takes too long.
            MustAwait: This is the thread of an event loop.
        """
        self.asking.block(called, instead, wait)

    def read_sessions(self, scope: Scope) -> tuple[str, ...]:
        """Return the sessions that a request's cookies name: none, one, or several on plain http.

        Reading them costs a signature each: call this once per request.
        """
        found: tuple[str, ...] = ()
        for value in self._cookie.read(scope):
            session = self.identity.unsign_session(value)
            if session is not None and session not in found:
                found = (*found, session)
        return found

    def make_cookie(self, scope: Scope, session: str) -> tuple[bytes, bytes]:
        """Return the header that names a session to the client, in the answer to a request."""
        return self._cookie.write(scope, self.identity.sign_session(session))

    @contextmanager
    def begin(
        self, scope: Scope, sessions: tuple[str, ...] | None = None
    ) -> Iterator[CurrentRequest]:
        """Make a request the current one while the context lasts.

        Args:
            scope: The request.
            sessions: The sessions that its cookies name; `None` if they have not been read.
        """
        request = CurrentRequest(self, scope, current_request.get(), sessions)
        token = current_request.set(request)
        try:
            yield request
        finally:
            current_request.reset(token)

    def current(
        self, advice: str = "", *, instead: str = "call it in an endpoint"
    ) -> CurrentRequest:
        """Return the current request, as this `Comet` sees it.

        Args:
            advice: The likeliest way out, put before the text of the error.
            instead: The way out where there is no request, put after the text of the error.

        Raises:
            NoClientProcess: There is no current request.
        """
        request = self._find()
        if request is None:
            raise NoClientProcess(
                "this is outside of a request that CometMiddleware serves (is it added to the "
                f"application? it serves no routes for WebSockets); {instead}",
                advice,
            )
        return request

    def current_root_path(self) -> str:
        """Return where the application of the current request is mounted; outside of one, ''."""
        request = self._find()
        return "" if request is None else request.root_path

    def settle(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Let the answer to the current request, if there is one, wait for something."""
        request = self._find()
        if request is not None:
            request.unsettled.append(wait)

    def _find(self) -> CurrentRequest | None:
        request = current_request.get()
        while request is not None and request.recogniser is not self:  # another Comet around
            request = request.outer
        return request
