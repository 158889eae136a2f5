"""The mountable application: which endpoint serves a request below PREFIX.

Owns the routes of wire.md, and what becomes of a request that cannot be served. Must not know how
an endpoint works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar
from weakref import WeakSet

from starlette.status import HTTP_404_NOT_FOUND
from starlette.types import Receive, Scope, Send

from .admin.endpoints import Admin, Credential
from .errors import BadRequest
from .hub import Hub
from .origin import PREFLIGHT
from .processes import ClientProcess
from .protocol import registration
from .protocol.events import CONTENT_TYPES, PROCESS_CLOSED
from .transports.access import Find, NotYet, ProcessGone, own_process, process_of
from .transports.assets import ASSETS, load_asset, serve_asset
from .transports.exchange import (
    JSON,
    TEXT,
    ClientGone,
    Exchange,
    Refusal,
    answer,
    check_origin,
    refuse,
)
from .transports.poll import poll
from .transports.process import acknowledge, close_process, open_process
from .transports.registration import registration as register
from .transports.sse import events
from .transports.websocket import socket

__all__ = ["INTERCEPTED", "REFUSED", "CometApp", "Refused", "route_path"]

REGISTRATION = registration.CONTENT_TYPE
POLL = CONTENT_TYPES[1]
INTERCEPTED = frozenset({REGISTRATION, POLL})
"""The content types that are served on any path."""

Endpoint = Callable[[Hub, ClientProcess, Exchange], Awaitable[None]]

Stream = Callable[[Hub, Find, Exchange], Awaitable[None]]

Refused = Refusal | BadRequest | ProcessGone | NotYet | ClientGone
"""What an endpoint raises instead of an answer."""

REFUSED = (Refusal, BadRequest, ProcessGone, NotYet, ClientGone)

OF_PROCESS: dict[str, Endpoint] = {
    "poll": poll,
    "ack": acknowledge,
    "close": close_process,
}


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
    """

    living: ClassVar[WeakSet[CometApp]] = WeakSet()
    """All there are in this program; mostly one, so that nobody need look for others."""

    def __init__(self, hub: Hub, admin: Credential | None) -> None:
        self._hub = hub
        self._admin = Admin(hub, admin)
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
        """Choose the endpoint that serves a request.

        Returns:
            What to await; one of `Refused` that it raises is for `refuse`.

        Raises:
            NotRunning: The lifespan does not run.
        """
        self._hub.loop.check()
        if exchange.scope["type"] == "websocket":
            return self._route_socket(exchange)
        if exchange.scope["method"] == "OPTIONS":
            return self._preflight(exchange)
        if exchange.path == "/poll" and exchange.kind != REGISTRATION:
            return poll(self._hub, None, exchange)
        return self._route(exchange)

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

    async def _route(self, exchange: Exchange) -> None:
        hub = self._hub
        area, _, rest = exchange.path.lstrip("/").partition("/")
        if area == "p":
            await self._route_process(exchange, rest)
        elif exchange.kind == REGISTRATION:
            await register(hub, None, exchange)
        elif exchange.kind == POLL:
            await poll(hub, None, exchange)
        elif area == "events" and not rest:
            await self._stream(events, exchange, None)
        elif area in ASSETS and not rest:
            await serve_asset(hub, area, exchange)
        elif area == "open" and not rest:
            await open_process(hub, exchange)
        elif area == "admin":
            await self._admin(exchange, rest)
        else:
            raise Refusal(404, "Not Found")

    async def _route_process(self, exchange: Exchange, rest: str) -> None:
        token, _, action = rest.partition("/")
        if action == "events":
            await self._stream(events, exchange, token)
            return
        endpoint = OF_PROCESS.get(action)
        if endpoint is None:
            raise Refusal(404, "Not Found")
        check_origin(self._hub, exchange)
        if endpoint is not poll:
            await endpoint(self._hub, own_process(self._hub, exchange, token), exchange)
            return
        process = await process_of(self._hub, exchange, token)
        serve = register if exchange.kind == REGISTRATION else poll
        await serve(self._hub, process, exchange)

    async def _route_socket(self, exchange: Exchange) -> None:
        match exchange.path.lstrip("/").split("/"):
            case ["socket"]:
                await self._stream(socket, exchange, None)
            case ["p", token, "socket"]:
                await self._stream(socket, exchange, token)
            case _:
                raise Refusal(404, "Not Found")

    async def _stream(self, serve: Stream, exchange: Exchange, token: str | None) -> None:
        hub = self._hub

        async def find() -> ClientProcess | None:
            return None if token is None else await process_of(hub, exchange, token)

        check_origin(hub, exchange)
        await serve(hub, find, exchange)

    async def _preflight(self, exchange: Exchange) -> None:
        """Answer a browser that asks whether a page of another origin may send a request."""
        check_origin(self._hub, exchange)
        if not exchange.cors:
            raise Refusal(405, "expected GET or POST", Allow="GET, POST")
        await answer(self._hub, exchange, TEXT, b"", status=204, headers=PREFLIGHT)
