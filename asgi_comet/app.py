"""The mountable application: which endpoint serves a request below PREFIX.

Owns the routes of docs/wire.md#endpoints, the one place where a request is checked before its
endpoint is called, and what becomes of a request that cannot be served. Must not know how an
endpoint works.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import ClassVar
from weakref import WeakSet

from starlette.status import HTTP_404_NOT_FOUND
from starlette.types import Receive, Scope, Send

from asgi_comet.admin.endpoints import Admin, Credential
from asgi_comet.endpoints.assets import ASSETS, load_asset, serve_asset
from asgi_comet.endpoints.process import acknowledge, close_process, open_process
from asgi_comet.errors import BadRequest
from asgi_comet.http.exchange import JSON, TEXT, ClientGone, Exchange, Refusal, answer, refuse
from asgi_comet.http.origin import PREFLIGHT
from asgi_comet.identity.process import ClientProcess
from asgi_comet.node.build import Hub
from asgi_comet.protocol import registration
from asgi_comet.protocol.events import CONTENT_TYPES, PROCESS_CLOSED
from asgi_comet.transports.access import Find, NotYet, ProcessGone, own_process, process_of
from asgi_comet.transports.checking import Gate, Route, check_request
from asgi_comet.transports.poll import poll
from asgi_comet.transports.registration import registration as register
from asgi_comet.transports.sse import events
from asgi_comet.transports.websocket import socket

__all__ = ["INTERCEPTED", "REFUSED", "ROUTES", "CometApp", "Refused", "route_path"]

Refused = Refusal | BadRequest | ProcessGone | NotYet | ClientGone
"""What an endpoint raises instead of an answer."""

REFUSED = (Refusal, BadRequest, ProcessGone, NotYet, ClientGone)


async def _own(hub: Hub, exchange: Exchange, token: str | None) -> ClientProcess:
    """Find the client process of an endpoint without asking the application for the user."""
    return own_process(hub, exchange, token or "")


async def _process(hub: Hub, exchange: Exchange, token: str | None) -> ClientProcess:
    """Find the client process of an endpoint, and ask the application for the user."""
    return await process_of(hub, exchange, token or "")


async def _later(hub: Hub, exchange: Exchange, token: str | None) -> Find:
    """Leave it to a stream to find the client process: a stream refuses in a form of its own."""

    async def find() -> ClientProcess | None:
        return None if token is None else await process_of(hub, exchange, token)

    return find


async def _preflight(hub: Hub, _: None, exchange: Exchange) -> None:
    """Answer a browser that asks whether a page of another origin may send a request."""
    if not exchange.cors:
        raise Refusal(405, "expected GET or POST", Allow="GET, POST")
    await answer(hub, exchange, TEXT, b"", status=204, headers=PREFLIGHT)


GET, POST, SOCKET = ("GET",), ("POST",), ()

REGISTRATION = registration.CONTENT_TYPE
POLL = CONTENT_TYPES[1]
INTERCEPTED = frozenset({REGISTRATION, POLL})
"""The content types that are served on any path."""

# Also while deactivated: the page is to read the 503 that its request gets.
_OPTIONS = Route("*", ("OPTIONS",), _preflight, active=False)

ROUTES = (
    _OPTIONS,
    Route("*", POST, register, (REGISTRATION,)),
    Route("*", POST, poll, (POLL,)),
    Route("/poll", POST, poll, CONTENT_TYPES),
    Route("/open", POST, open_process),
    # A browser gives up an event stream for good on any answer but 200, and does not tell a page
    # why a handshake failed. So a deactivated server says so in the stream or on the WebSocket.
    Route("/events", GET, events, gate=_later, active=False),
    Route("/socket", SOCKET, socket, gate=_later, active=False),
    Route("/p/{token}/poll", POST, register, (REGISTRATION,), _process),
    Route("/p/{token}/poll", POST, poll, CONTENT_TYPES, _process),
    Route("/p/{token}/events", GET, events, gate=_later, active=False),
    Route("/p/{token}/socket", SOCKET, socket, gate=_later, active=False),
    Route("/p/{token}/ack", POST, acknowledge, CONTENT_TYPES, _own),
    # A page that leaves closes its client process, whether or not push is deactivated.
    Route("/p/{token}/close", POST, close_process, gate=_own, active=False),
    # Pages of all origins may load the scripts, which hold no secret, at any time.
    *(Route(f"/{name}", ("GET", "HEAD"), serve_asset, origin=False, active=False)
      for name in ASSETS),
)  # fmt: skip
"""All endpoints but those of admin, which are there only if admin is configured."""


@dataclass(frozen=True, slots=True)
class _Paths:
    """Routes by where they are looked for.

    Attributes:
        anywhere: By content type: those on any path but below `/p/{token}/`.
        of_site: By path.
        of_process: Those below `/p/{token}/`, by what follows.
        of_process_and_kind: The same, where the content type chooses among several.
    """

    anywhere: dict[bytes | None, Route] = field(default_factory=dict)
    of_site: dict[str, Route] = field(default_factory=dict)
    of_process: dict[str, Route] = field(default_factory=dict)
    of_process_and_kind: dict[tuple[str, bytes | None], Route] = field(default_factory=dict)

    def add(self, route: Route) -> None:
        """Take note of a route."""
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
    """Return the path below where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    below = path.removeprefix(root)
    return below if below.startswith("/") or not below else path


class CometApp:
    """An ASGI application that serves everything below PREFIX.

    Args:
        hub: The rooms.
        admin: The credential for `PREFIX/admin`; `None` switches it off.

    Attributes:
        routes: All endpoints.
    """

    living: ClassVar[WeakSet[CometApp]] = WeakSet()
    """Every one in this program. Mostly there is one, and no search for others is needed."""

    def __init__(self, hub: Hub, admin: Credential | None) -> None:
        self._hub = hub
        self.routes: tuple[Route, ...] = (*ROUTES, *Admin(hub, admin).routes())
        self._http, self._sockets = _Paths(), _Paths()
        for route in self.routes:
            (self._http if route.methods else self._sockets).add(route)
        self._of_site = self._http.of_site
        for name in ASSETS:
            load_asset(name)  # now rather than in the first request
        self.living.add(self)

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
            What to await; one of `Refused` that it raises is for `refuse`.

        Raises:
            Refused: The request cannot be served; also for `refuse`.
            NotRunning: The lifespan does not run.
        """
        hub, scope, token = self._hub, exchange.scope, None
        hub.loop.check()
        route = self._of_site.get(exchange.path)
        if (
            route is None
            or exchange.kind in INTERCEPTED
            or scope["type"] == "websocket"
            or scope["method"] == "OPTIONS"
        ):
            route, token = self._find(exchange)
        if route.origin:
            cors = hub.origins.check(scope, exchange.headers)
            if cors is None:
                raise Refusal(403, "this page's origin is not allowed")
            exchange.cors = cors
        if route.gate is not None:
            return self._serve_behind(route.gate, exchange, route, token)
        check_request(hub, exchange, route)
        return route.endpoint(hub, None, exchange)

    def _find(self, exchange: Exchange) -> tuple[Route, str | None]:
        if exchange.scope["type"] == "websocket":
            return self._sockets.find(exchange)
        if exchange.scope["method"] == "OPTIONS":
            return _OPTIONS, None
        return self._http.find(exchange)

    async def _serve_behind(
        self, gate: Gate, exchange: Exchange, route: Route, token: str | None
    ) -> None:
        """Serve a request with a token or a credential, which is checked after the origin."""
        found = await gate(self._hub, exchange, token)
        check_request(self._hub, exchange, route)
        await route.endpoint(self._hub, found, exchange)

    async def refuse(self, exchange: Exchange, error: Refused) -> None:
        """Answer a request that cannot be served."""
        hub = self._hub
        match error:
            case Refusal() if exchange.scope["type"] == "websocket":
                # Before it is accepted; the server makes it a 403.
                await exchange.send({"type": "websocket.close", "code": 1000})
            case Refusal():
                await self._refuse(exchange, error)
            case BadRequest():
                await self._refuse(exchange, Refusal(400, str(error)))
            case NotYet():
                await self._refuse(exchange, Refusal(503, str(error), Retry_After="1"))
            case ProcessGone():
                old = exchange.kind == REGISTRATION
                kind, body = (TEXT, b"") if old else (JSON, PROCESS_CLOSED)
                await answer(hub, exchange, kind, body, status=410)
            case _:
                # ClientGone: nobody hears it, but a middleware around us may wait for an answer.
                await answer(hub, exchange, TEXT, b"")

    async def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        hub = self._hub
        if refusal.status == HTTP_404_NOT_FOUND:  # before anybody looked where it came from
            exchange.cors = hub.origins.check(exchange.scope, exchange.headers) or ()
        admin = exchange.path.startswith("/admin/")
        as_json = exchange.kind in CONTENT_TYPES and not admin
        await refuse(hub, exchange, refusal, as_json=as_json)
