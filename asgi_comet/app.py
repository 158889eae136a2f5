"""The mountable application: which endpoint serves a request below PREFIX.

Owns the routes of docs/wire.md#endpoints, the one place where a request is checked before its
endpoint is called, and the answers to refused requests. Must not know how an endpoint works.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar
from weakref import WeakSet

from starlette.status import HTTP_404_NOT_FOUND
from starlette.types import Receive, Scope, Send

from asgi_comet.admin.dashboard.dashboard import Dashboard
from asgi_comet.admin.endpoints import Admin
from asgi_comet.admin.roles import Credential
from asgi_comet.endpoints.assets import ASSETS, load_asset, serve_asset
from asgi_comet.endpoints.health import tell_live, tell_ready
from asgi_comet.endpoints.process import acknowledge, close_process, open_process
from asgi_comet.errors import BadRequest
from asgi_comet.http.exchange import JSON, TEXT, ClientGone, Exchange, Refusal, answer, refuse
from asgi_comet.http.origin import PREFLIGHT
from asgi_comet.identity.process import Client
from asgi_comet.log_events import owner
from asgi_comet.node.build import Node
from asgi_comet.protocol import registration
from asgi_comet.protocol.events import CONTENT_TYPES, PROCESS_CLOSED
from asgi_comet.transports.access import (
    Find,
    ProcessGone,
    arrive,
    own_process,
    process_of,
    require_people,
)
from asgi_comet.transports.checking import Gate, Route, check_request
from asgi_comet.transports.poll import poll
from asgi_comet.transports.postponing import TryAgain
from asgi_comet.transports.registration import registration as register
from asgi_comet.transports.sse import events
from asgi_comet.transports.websocket import socket

__all__ = ["INTERCEPTED", "REFUSED", "ROUTES", "CometApp", "Refused", "route_path"]

Refused = Refusal | BadRequest | ProcessGone | TryAgain | ClientGone
"""The errors that an endpoint raises instead of answering."""

REFUSED = (Refusal, BadRequest, ProcessGone, TryAgain, ClientGone)


async def _own(node: Node, exchange: Exchange, token: str | None) -> Client:
    """Find the client process of an endpoint without asking the application for the user."""
    require_people(node, TOKENS)
    if node.clients.shared:
        await arrive(node, exchange, token)
    return own_process(node, exchange, token or "")


async def _process(node: Node, exchange: Exchange, token: str | None) -> Client:
    """Find the client process of an endpoint, and ask the application for the user."""
    require_people(node, TOKENS)
    return await process_of(node, exchange, token or "")


async def _later(node: Node, exchange: Exchange, token: str | None) -> Find:
    """Return a function that finds the client process: a stream has its own form of refusal."""

    async def find() -> Client | None:
        return None if token is None else await _process(node, exchange, token)

    return find


async def _preflight(node: Node, _: None, exchange: Exchange) -> None:
    """Answer the preflight request of a browser for a page of another origin."""
    if not exchange.cors:
        raise Refusal(405, "expected GET or POST", Allow="GET, POST")
    await answer(node, exchange, TEXT, b"", status=204, headers=PREFLIGHT)


GET, READ, POST, SOCKET = ("GET",), ("GET", "HEAD"), ("POST",), ()

TOKENS = "an endpoint of a client process"

REGISTRATION = registration.CONTENT_TYPE
POLL = CONTENT_TYPES[1]
INTERCEPTED = frozenset({REGISTRATION, POLL})
"""The content types that are served on any path."""

# Also while deactivated: the page must be able to read the 503 of its request.
_OPTIONS = Route("*", ("OPTIONS",), _preflight, active=False)

ROUTES = (
    _OPTIONS,
    Route("*", POST, register, (REGISTRATION,), transport="registration"),
    Route("*", POST, poll, (POLL,), transport="poll"),
    Route("/poll", POST, poll, CONTENT_TYPES, transport="poll"),
    Route("/open", POST, open_process),
    # A browser stops reconnecting an event stream after any status but 200, and does not tell
    # a page why a handshake failed. So a deactivated server answers in the stream or WebSocket.
    Route("/events", GET, events, gate=_later, active=False, transport="sse"),
    Route("/socket", SOCKET, socket, gate=_later, active=False, transport="websocket"),
    Route("/p/{token}/poll", POST, register, (REGISTRATION,), _process, transport="registration"),
    Route("/p/{token}/poll", POST, poll, CONTENT_TYPES, _process, transport="poll"),
    Route("/p/{token}/events", GET, events, gate=_later, active=False, transport="sse"),
    Route("/p/{token}/socket", SOCKET, socket, gate=_later, active=False, transport="websocket"),
    Route("/p/{token}/ack", POST, acknowledge, CONTENT_TYPES, _own),
    # A page that leaves closes its client process, whether or not push is deactivated.
    Route("/p/{token}/close", POST, close_process, gate=_own, active=False),
    # Pages of all origins may always load the scripts, which contain no secret.
    *(Route(f"/{name}", READ, serve_asset, origin=False, active=False)
      for name in ASSETS),
    # A supervisor has no credential, and must not restart a server that an operator deactivated.
    Route("/health/live", READ, tell_live, origin=False, active=False, lifespan=False),
    Route("/health/ready", READ, tell_ready, origin=False, active=False, lifespan=False),
)  # fmt: skip
"""All endpoints but those of admin, which are there only if admin is configured."""


@dataclass(frozen=True, slots=True)
class _Paths:
    """The routes, indexed for lookup.

    Attributes:
        anywhere: Routes for any path except below `/p/{token}/`, by content type.
        of_site: Routes by path.
        of_process: Routes below `/p/{token}/`, by the rest of the path.
        of_process_and_kind: The same routes, by the rest of the path and the content type.
    """

    anywhere: dict[bytes | None, Route] = field(default_factory=dict)
    of_site: dict[str, Route] = field(default_factory=dict)
    of_process: dict[str, Route] = field(default_factory=dict)
    of_process_and_kind: dict[tuple[str, bytes | None], Route] = field(default_factory=dict)

    def add(self, route: Route) -> None:
        """Add a route to the index."""
        _, below, action = route.path.partition("/p/{token}/")
        if route.path == "*":
            self.anywhere.update(dict.fromkeys(route.kinds, route))
        elif below:
            self.of_process[action] = route
            self.of_process_and_kind.update({(action, kind): route for kind in route.kinds})
        else:
            self.of_site[route.path] = route

    def find(self, exchange: Exchange) -> tuple[Route, str | None]:
        """Return the route of a request, and the token in the path.

        Raises:
            Refusal: 404 if there is no such route.
        """
        area, _, rest = exchange.path.lstrip("/").partition("/")
        kind, token = exchange.kind, None
        if area == "p":
            token, _, action = rest.partition("/")
            found = self.of_process_and_kind.get((action, kind)) or self.of_process.get(action)
        else:
            path = f"/{area}/{rest}" if rest else f"/{area}"
            found = self.anywhere.get(kind) or self.of_site.get(path)
        if found is None:
            raise Refusal(404, "Not Found")
        return found, token


def route_path(scope: Scope) -> str:
    """Return the path below the mount point of the application."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    below = path.removeprefix(root)
    return below if below.startswith("/") or not below else path


class CometApp:
    """An ASGI application that serves everything below PREFIX.

    Args:
        node: The parts of the Comet.
        admin: The credential for `PREFIX/admin`; `None` switches it off.

    Attributes:
        routes: All endpoints.
        of: Returns the `Comet` that is served, for the test kit.
    """

    of: Callable[[], object]  # set by `Comet`
    living: ClassVar[WeakSet[CometApp]] = WeakSet()
    """All instances in this program. With only one, no search for nested ones is needed."""

    def __init__(self, node: Node, admin: Credential | None) -> None:
        self._node = node
        self._admin = Admin(node, admin)
        self.routes: tuple[Route, ...] = (*ROUTES, *self._admin.routes())
        self._http, self._sockets = _Paths(), _Paths()
        for route in self.routes:
            (self._http if route.methods else self._sockets).add(route)
        self._of_site = self._http.of_site
        for name in ASSETS:
            load_asset(name)  # now rather than in the first request
        self.living.add(self)

    @property
    def dashboard(self) -> Dashboard | None:
        """The dashboard; `None` if admin is off."""
        return self._admin.dashboard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection where the application is mounted.

        Raises:
            NotRunning: The lifespan does not run.
        """
        root = scope.get("root_path", "").rstrip("/")
        exchange = Exchange(scope, receive, send, root, route_path(scope))
        try:
            await self.route(exchange)
        except REFUSED as error:
            await self.refuse(exchange, error)

    def route(self, exchange: Exchange) -> Awaitable[None]:
        """Check a request and call its endpoint: no endpoint is called from anywhere else.

        Returns:
            An awaitable, which may raise one of `Refused`; pass that to `refuse`.

        Raises:
            Refused: The request cannot be served; pass the error to `refuse`.
            NotRunning: The lifespan does not run, and the endpoint needs it.
        """
        node, scope, token = self._node, exchange.scope, None
        owner.set(node)
        route = self._of_site.get(exchange.path)
        if route is None or route.lifespan:
            node.loop.check()
        if node.broker.shared:
            exchange.came = time.monotonic()
        if (
            route is None
            or exchange.kind in INTERCEPTED
            or scope["type"] == "websocket"
            or scope["method"] == "OPTIONS"
        ):
            node.loop.check()
            route, token = self._find(exchange)
        exchange.transport = route.transport
        if route.origin:
            cors = node.origins.check(scope, exchange.headers)
            if cors is None:
                refusal = Refusal(403, "this page's origin is not allowed")
                refusal.outcome = "origin"
                raise refusal
            exchange.cors = cors
        if route.gate is not None:
            return self._serve_behind(route.gate, exchange, route, token)
        check_request(node, exchange, route)
        return route.endpoint(node, None, exchange)

    def _find(self, exchange: Exchange) -> tuple[Route, str | None]:
        if exchange.scope["type"] == "websocket":
            return self._sockets.find(exchange)
        if exchange.scope["method"] == "OPTIONS":
            return _OPTIONS, None
        return self._http.find(exchange)

    async def _serve_behind(
        self, gate: Gate, exchange: Exchange, route: Route, token: str | None
    ) -> None:
        """Serve a request after checking its token or credential."""
        found = await gate(self._node, exchange, token)
        check_request(self._node, exchange, route)
        await route.endpoint(self._node, found, exchange)

    async def refuse(self, exchange: Exchange, error: Refused) -> None:
        """Answer a request that cannot be served."""
        node = self._node
        if isinstance(error, Refusal) and error.outcome and exchange.transport:
            node.runtime.counters.transports[exchange.transport].connections[error.outcome] += 1
        match error:
            case Refusal() if exchange.scope["type"] == "websocket":
                # Not accepted yet, so the server answers 403.
                await exchange.send({"type": "websocket.close", "code": 1000})
            case Refusal():
                await self._refuse(exchange, error)
            case BadRequest():
                await self._refuse(exchange, Refusal(400, str(error)))
            case TryAgain():
                await self._refuse(exchange, Refusal(503, str(error), Retry_After="1"))
            case ProcessGone():
                old = exchange.kind == REGISTRATION
                kind, body = (TEXT, b"") if old else (JSON, PROCESS_CLOSED)
                await answer(node, exchange, kind, body, status=410)
            case _:
                # ClientGone: no client reads this, but an outer middleware may wait for an answer.
                await answer(node, exchange, TEXT, b"")

    async def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        node = self._node
        if refusal.status == HTTP_404_NOT_FOUND:  # the origin was not checked yet
            exchange.cors = node.origins.check(exchange.scope, exchange.headers) or ()
        admin = exchange.path.startswith("/admin/")
        as_json = exchange.kind in CONTENT_TYPES and not admin
        await refuse(node, exchange, refusal, as_json=as_json)
