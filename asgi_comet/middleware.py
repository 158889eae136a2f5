"""The middleware: takes what is ours, passes everything else on as it came.

Owns the three things that need a place around the application: the content types that are served
on any path, the mount at PREFIX, and the lifespan.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_comet.app import INTERCEPTED, REFUSED, CometApp, route_path
from asgi_comet.brokers.logs import Unsuitable
from asgi_comet.comet import Comet
from asgi_comet.errors import CometError, SeveralWorkers
from asgi_comet.http.exchange import Exchange, read_body
from asgi_comet.http.headers import essence, read_headers
from asgi_comet.http.problems import HANDLED, make_response
from asgi_comet.identity.current import CurrentRequest
from asgi_comet.lifespan import Lifespan
from asgi_comet.log_events import event
from asgi_comet.nesting import ahead, knows, names, replay

__all__ = ["CometMiddleware"]

_logger = logging.getLogger(__name__)

CONNECTIONS = ("http", "websocket")


class CometMiddleware:
    """Pure ASGI middleware that serves a `Comet` around an application.

    Use it as `app.add_middleware(CometMiddleware, comet=comet)` or
    `app = CometMiddleware(app, comet=comet)`. Foreign requests reach the application with the very
    same `scope` and `receive`; `send` adds nothing but the cookie of a client process that the
    application opens in the request.

    Several middlewares may be around one application, each with a `Comet` and a PREFIX of its own,
    and a `comet.app` may be mounted inside. Each answers the requests below its own PREFIX or
    mount. A request of our content types on any other path goes to the innermost one that knows any
    of its channels; if none does, to the outermost.

    It runs the lifespan, in this order: the tasks start; the application starts; the sources of
    declared channels are read; the server serves. When the server stops: held requests are
    answered, client processes and sources close; the application stops; the tasks end.

    Args:
        app: The application.
        comet: The `Comet` to serve.
    """

    def __init__(self, app: ASGIApp, *, comet: Comet) -> None:
        self.app = app
        self._comet = comet
        self._prefix = comet.prefix
        self._inside = f"{comet.prefix}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection, or pass it on."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        exchange = self._ours(scope, receive, send) if kind in CONNECTIONS else None
        if exchange is not None:
            try:
                if exchange.path or not await self._is_for_inner(exchange):
                    await self._comet._app.route(exchange)
                    return
            except REFUSED as error:
                await self._comet._app.refuse(exchange, error)
                return
            receive = exchange.receive
        if kind == "http":
            await self._serve_application(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _ours(self, scope: Scope, receive: Receive, send: Send) -> Exchange | None:
        """Return a request that is ours: below PREFIX, or of a content type that we serve anywhere.

        The latter has an empty path.
        """
        path: str = scope["path"]
        if not scope.get("root_path") and path.startswith(self._inside):
            return Exchange(scope, receive, send, self._prefix, path[len(self._prefix) :])
        root, path = self._locate(scope)
        if path or _is_intercepted(scope):
            return Exchange(scope, receive, send, root + self._prefix, path)
        return None

    def _locate(self, scope: Scope) -> tuple[str, str]:
        """Return the root path of a request, and its path below PREFIX: empty if it is not there.

        A proxy may have taken `root_path` off the path, or not.
        """
        root = scope.get("root_path", "").rstrip("/")
        path = route_path(scope) if root else scope["path"]
        if not path.startswith(self._prefix):
            return root, ""
        below = path[len(self._prefix) :] or "/"
        return root, below if below.startswith("/") else ""

    async def _is_for_inner(self, exchange: Exchange) -> bool:
        """Tell whether a request is for another `Comet` further in, which looks further in itself.

        That is one below whose PREFIX or mount it is; or else one that knows any of its channels.
        To find out the latter its body is read, which `exchange.receive` gives once more.
        """
        inner: list[Comet] = []
        for app, scope in ahead(self.app, exchange.scope) if len(CometApp.living) > 1 else ():
            if isinstance(app, CometApp):
                return True
            if isinstance(app, CometMiddleware):
                if app._locate(scope)[1]:
                    return True
                inner.append(app._comet)
        if not inner:
            return False
        node = self._comet._node
        node.loop.check()
        body = await read_body(node, exchange)
        exchange.receive = replay(body, exchange.receive)
        asked = names(exchange, body, node.settings.max_channels_per_request)
        return any(knows(comet._node, exchange.scope, name) for comet in inner for name in asked)

    async def _serve_application(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of the application, which may ask whose it is."""
        with self._comet._node.requests.begin(scope) as request:
            if self._comet._node.clients.shared:
                await request.arrive()
            await request.recognise()

            async def send_with_cookies(message: Message) -> None:
                if request.unsettled:
                    await request.settle()
                if message["type"] == "http.response.start":
                    await request.identify()
                    request.answered = True
                    if request.cookies:
                        headers = [*message.get("headers", ()), *request.cookies]
                        message = {**message, "headers": headers}
                await send(message)

            try:
                await self.app(scope, receive, send_with_cookies)
            except HANDLED as error:
                if request.answered:
                    raise
                await _settle_rest(request)
                await make_response(error)(scope, receive, send_with_cookies)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run around the application's lifespan, and in its stead if it has none.

        The sources of declared channels may use what the application opens as it starts, so they
        are read from then on, and have closed when it hears that it is to stop. The server hears
        that all is over only when ours is, too: hypercorn cancels what still runs then.
        """
        conversation = _Conversation(receive, send)
        try:
            async with self._comet._lifespan.around() as conversation.lifespan:
                try:
                    await self.app(scope, conversation.receive, conversation.send)
                except Exception as error:
                    if conversation.answered:
                        raise
                    # As ASGI lets it. The server would go on without a lifespan, but we need ours.
                    _logger.info(
                        "the application has no lifespan: %r",
                        error,
                        extra=event("setup.advised", reason=repr(error)),
                    )
                if not conversation.answered:
                    await conversation.hold_in_its_stead()
        except (SeveralWorkers, Unsuitable) as error:
            await conversation.refuse(str(error))
        finally:
            await conversation.end()


async def _settle_rest(request: CurrentRequest) -> None:
    """Wait for all other changes of a request after an error, of which the answer tells."""
    while request.unsettled:
        with suppress(CometError):
            await request.settle()


def _is_intercepted(scope: Scope) -> bool:
    kind = read_headers(scope).get(b"content-type") if scope["type"] == "http" else None
    return essence(kind) in INTERCEPTED


class _Conversation:
    """The messages between an application and its server about the lifespan.

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

    async def refuse(self, why: str) -> None:
        """Have the server told in the end that the application does not start."""
        await self._receive()
        self._last = {"type": "lifespan.startup.failed", "message": why}

    async def end(self) -> None:
        """Say the last word."""
        if self._last is not None:
            await self._send(self._last)
