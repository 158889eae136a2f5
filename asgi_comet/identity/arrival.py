"""Asking the other workers for the session and the client process that a request names.

Owns when that happens: before the application serves the request, or else when the application
first needs to know. Must not know what the application does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.types import Scope

from asgi_comet.errors import BrokerUnavailable
from asgi_comet.http.headers import read_headers
from asgi_comet.identity.clients import Clients
from asgi_comet.identity.tokens import Identity

__all__ = ["Arrival", "Asker", "is_part"]

PARTS = frozenset(
    [b"audio", b"font", b"image", b"manifest", b"script", b"style", b"track", b"video", b"worker"]
)
"""The values of `Sec-Fetch-Dest` for requests by which a browser loads the parts of a page."""


class Asker(Protocol):
    """The part of `Requests` that asks other workers."""

    identity: Identity
    clients: Clients

    def prefetches(self, *, named: bool) -> bool:
        """Return whether the server asks the other workers before it serves a request."""

    @property
    def may_block(self) -> bool:
        """Whether this is a worker thread."""

    def block(self, called: str, instead: str, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait for something in a worker thread; see `Requests`."""


class Arrival:
    """The question of one request.

    Args:
        asker: Asks the other workers.
        scope: The request.
        session: Returns the id of the session that the cookie names.

    Attributes:
        done: Whether the other workers have answered.
    """

    __slots__ = ("_asker", "_error", "_scope", "_session", "done")

    def __init__(self, asker: Asker, scope: Scope, session: Callable[[], str | None]) -> None:
        self.done: bool = False
        self._error: BrokerUnavailable | None = None
        self._asker = asker
        self._scope = scope
        self._session = session

    async def prefetch(self) -> None:
        """Ask before the application serves the request, if the settings say so.

        Where the broker is away, the application serves the request all the same, and gets an error
        when it asks.
        """
        named = b"comet-process" in read_headers(self._scope)
        if is_part(self._scope) or not self._asker.prefetches(named=named):
            return
        try:
            await self._ask()
        except BrokerUnavailable as error:
            self._error = error

    def require(self, function: str, arguments: str = "") -> None:
        """Ask now, if the other workers have not been asked.

        Args:
            function: The function that the application has called.
            arguments: Its arguments.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
            MustAwait: This is the event loop.
        """
        if self.done or self._session() is None:
            return
        if self._error is not None:
            raise self._error
        line = f"await anyio.to_thread.run_sync({function}{arguments})"
        self._asker.block(f"{function}()", line, self._ask)

    async def _ask(self) -> None:
        session = self._session()
        if session is not None:
            token = read_headers(self._scope).get(b"comet-process", b"").decode("latin-1")
            named = self._asker.identity.unsign_process(token) or ""
            clients = self._asker.clients
            clients.check_connected()
            await clients.arrive([session], named, default=not named)
        self.done = True


def is_part(scope: Scope) -> bool:
    """Return whether a browser loads a part of a page, like a script or a picture."""
    return read_headers(scope).get(b"sec-fetch-dest") in PARTS
