"""The middleware: takes what is ours, passes everything else on as it came.

Owns the three things that need a place around the application: the content types that are served
on any path, the mount at PREFIX, and the lifespan.
"""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .app import INTERCEPTED, REFUSED, route_path
from .comet import Comet
from .handlers import HANDLED, make_response
from .headers import essence, read_headers
from .lifespan import Lifespan
from .transports.exchange import Exchange

__all__ = ["CometMiddleware"]

_logger = logging.getLogger(__name__)


class CometMiddleware:
    """Pure ASGI middleware that serves a `Comet` around an application.

    Use it as `app.add_middleware(CometMiddleware, comet=comet)` or
    `app = CometMiddleware(app, comet=comet)`. Foreign requests reach the application with the very
    same `scope` and `receive`; `send` adds nothing but the cookie of a client process that the
    application opens in the request.

    It runs the lifespan, in this order: the tasks start; the application starts; the sources of
    declared channels are read; the server serves. When that stops: whoever waits is answered,
    client processes and sources close; the application stops; the tasks end.

    Args:
        app: The application.
        comet: What is served.
    """

    def __init__(self, app: ASGIApp, *, comet: Comet) -> None:
        self._app = app
        self._comet = comet
        self._prefix = comet.prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection, or pass it on."""
        if scope["type"] == "http" or scope["type"] == "websocket":
            exchange = self._ours(scope, receive, send)
            if exchange is not None:
                try:
                    await self._comet.app.route(exchange)
                except REFUSED as error:
                    await self._comet.app.refuse(exchange, error)
            elif scope["type"] == "http":
                await self._visit(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _ours(self, scope: Scope, receive: Receive, send: Send) -> Exchange | None:
        """Return a request that is ours: below PREFIX, or of a content type that we serve anywhere.

        A proxy may have taken `root_path` off the path, or not.
        """
        root = scope.get("root_path", "").rstrip("/")
        path = route_path(scope) if root else scope["path"]
        if path.startswith(self._prefix) and self._below_prefix(path):
            return Exchange(scope, receive, send, root + self._prefix, path[len(self._prefix) :])
        if scope["type"] == "websocket":
            return None
        if essence(read_headers(scope).get(b"content-type")) in INTERCEPTED:
            return Exchange(scope, receive, send, root + self._prefix, "")
        return None

    def _below_prefix(self, path: str) -> bool:
        prefix = self._prefix
        return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")

    async def _visit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of the application, which may ask whose it is."""
        with self._comet.begin_visit(scope) as visit:
            await visit.recognise()

            async def send_with_cookies(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await visit.identify()
                    visit.answered = True
                    if visit.cookies:
                        headers = [*message.get("headers", ()), *visit.cookies]
                        message = {**message, "headers": headers}
                await send(message)

            try:
                await self._app(scope, receive, send_with_cookies)
            except HANDLED as error:
                if visit.answered:
                    raise
                await make_response(error)(scope, receive, send_with_cookies)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run around the application's lifespan, and in its stead if it has none.

        The sources of declared channels may use what the application opens as it starts, so they
        are read from then on, and have closed when it hears that it is to stop. The server hears
        that all is over only when ours is, too: hypercorn cancels what still runs then.
        """
        conversation = _Conversation(receive, send)
        try:
            async with self._comet.begin_lifespan() as conversation.lifespan:
                try:
                    await self._app(scope, conversation.receive, conversation.send)
                except Exception as error:
                    if conversation.answered:
                        raise
                    # As ASGI lets it. The server would go on without a lifespan, but we need ours.
                    _logger.info("the application has no lifespan: %r", error)
                if not conversation.answered:
                    await conversation.hold_in_its_stead()
        finally:
            await conversation.end()


class _Conversation:
    """What an application and its server say to each other about the lifespan.

    Attributes:
        lifespan: Ours. It begins when the application has started, and finishes before that stops.
        answered: Whether the application has said anything.
    """

    lifespan: Lifespan

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._started = False
        self._last: Message | None = None
        self.answered = False

    async def receive(self) -> Message:
        """Pass on what the server says; that it stops, once our sources have closed."""
        message = await self._receive()
        self._started = True
        if message["type"] == "lifespan.shutdown":
            await self.lifespan.finish()
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the application says, but keep its last word."""
        self.answered = True
        if message["type"] == "lifespan.startup.complete":
            self.lifespan.begin()
        if message["type"].startswith("lifespan.shutdown."):
            self._last = message
        else:
            await self._send(message)

    async def hold_in_its_stead(self) -> None:
        """Answer the server for an application that does not."""
        if not self._started:
            await self._receive()
        try:
            self.lifespan.begin()
        except Exception as error:
            # A server that hears nothing takes it that there is no lifespan, and goes on.
            await self._send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await self._send({"type": "lifespan.startup.complete"})
        await self._receive()
        self._last = {"type": "lifespan.shutdown.complete"}

    async def end(self) -> None:
        """Say the last word."""
        if self._last is not None:
            await self._send(self._last)
