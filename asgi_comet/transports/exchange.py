"""One HTTP request and its answer: a bounded body read and an answer sent, in bounded time.

Owns what all HTTP transports share. Must not know channels.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from starlette.status import HTTP_204_NO_CONTENT, HTTP_304_NOT_MODIFIED
from starlette.types import Message, Receive, Scope, Send

from asgi_comet.headers import essence, read_headers
from asgi_comet.hub import Hub
from asgi_comet.interrupts import Deadline, Interrupt, make_interrupt
from asgi_comet.processes import Caller
from asgi_comet.stepping import advance

__all__ = [
    "JSON",
    "TEXT",
    "ClientGone",
    "Exchange",
    "Patience",
    "Refusal",
    "answer",
    "check_origin",
    "check_request",
    "check_waiting",
    "deactivated",
    "make_answer",
    "read_body",
    "refuse",
    "send_slowly",
    "start_stream",
    "wrong_method",
]

_logger = logging.getLogger(__name__)

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
RETRY_AFTER = (5, 15)  # seconds, at random, so that clients do not come back all at once
DIGITS = 18  # of a Content-Length worth reading as a number

_NO_STORE = (b"cache-control", b"no-store")
_NOSNIFF = (b"x-content-type-options", b"nosniff")


class Refusal(Exception):
    """A request that is answered with an error; the text is the reason given to the client."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status: int = status
        self.headers: Sequence[tuple[bytes, bytes]] = [
            (name.replace("_", "-").lower().encode(), value.encode())
            for name, value in headers.items()
        ]


class ClientGone(Exception):
    """The client left before there was anything to answer."""


class Exchange:
    """One HTTP request and its answer.

    Attributes:
        scope: The request.
        receive: Its body.
        send: Where the answer goes.
        root: Where we are mounted, as the client sees it.
        path: The path below that.
        headers: Its headers.
        kind: The essence of its content type.
        cors: What lets a page of an allowed origin read the answer; known once it was checked.
        caller: Whose it is; known once it was looked at, `None` for nobody's.
        renew: Makes the headers that set a cookie with the answer; `None` if it sets none.
        sessions: The sessions that its cookies name; `None` until they were looked at.
    """

    __slots__ = (
        "caller",
        "cors",
        "headers",
        "kind",
        "path",
        "receive",
        "renew",
        "root",
        "scope",
        "send",
        "sessions",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, root: str, path: str) -> None:
        self.scope: Scope = scope
        self.receive: Receive = receive
        self.send: Send = send
        self.root: str = root
        self.path: str = path
        self.headers: dict[bytes, bytes] = read_headers(scope)
        kind = self.headers.get(b"content-type")
        self.kind: bytes | None = kind if kind == JSON else essence(kind)
        self.cors: Sequence[tuple[bytes, bytes]] = ()
        self.caller: Caller | None = None
        self.renew: Callable[[], Sequence[tuple[bytes, bytes]]] | None = None
        self.sessions: tuple[str, ...] | None = None

    @property
    def cookies(self) -> Sequence[tuple[bytes, bytes]]:
        """The headers that set a cookie with the answer, as of now."""
        return () if self.renew is None else self.renew()


def check_request(hub: Hub, exchange: Exchange, expected: Collection[bytes] | None) -> None:
    """Check what can be checked of a request before its body is read.

    Args:
        hub: The rooms.
        exchange: The request.
        expected: The content types it may have; `None` means any.

    Raises:
        Refusal: 403 from a foreign origin; 405 unless it is a POST; 415 for another type; 503
            while deactivated.
    """
    check_origin(hub, exchange)
    if exchange.scope["method"] != "POST":
        raise wrong_method(exchange, "POST")
    if expected is not None and exchange.kind not in expected:
        names = " or ".join(name.decode() for name in expected)
        came = (exchange.kind or b"none").decode("latin-1")
        raise Refusal(415, f"expected the content type {names}, got {came:.80}")
    if not hub.activation.active:
        raise deactivated()


def wrong_method(exchange: Exchange, expected: str) -> Refusal:
    """Return the answer to a method that an endpoint does not have."""
    return Refusal(405, f"expected {expected}, got {exchange.scope['method']:.20}", Allow=expected)


def check_origin(hub: Hub, exchange: Exchange) -> None:
    """Check where a request comes from.

    Raises:
        Refusal: 403 from a foreign origin.
    """
    cors = hub.origins.check(exchange.scope, exchange.headers)
    if cors is None:
        raise Refusal(403, "this page's origin is not allowed")
    exchange.cors = cors


def deactivated() -> Refusal:
    """Return the answer to everybody while comet is deactivated."""
    seconds = random.randint(*RETRY_AFTER)  # noqa: S311 - spreads load, keeps no secret
    return Refusal(503, "", Retry_After=str(seconds))


def check_waiting(hub: Hub) -> None:
    """Check, after the body has come, whether a request may be held.

    Raises:
        Refusal: 503 while deactivated, or when the server stops: clients would ask in a circle.
    """
    if not hub.activation.active:
        raise deactivated()
    if hub.drain.begun:
        raise _stopping()


def _stopping() -> Refusal:
    return Refusal(503, "the server stops", Retry_After="1", Connection="close")


async def read_body(hub: Hub, exchange: Exchange) -> bytes:
    """Read a request's body.

    Raises:
        Refusal: 413 over `Settings.body_limit` bytes, as declared or as come; 408 when it is not
            complete after `Settings.body_timeout` seconds; 400 for a length that is no number;
            503 when the server stops before it has come.
        ClientGone: The client left.
    """
    limit = hub.settings.body_limit
    declared = exchange.headers.get(b"content-length")
    if declared is not None:
        if not declared.isdigit():
            raise Refusal(400, "expected Content-Length to be a number")
        if len(declared) > DIGITS or int(declared) > limit:
            raise _too_large(limit, f"{declared[:DIGITS].decode()} declared")
    found: Any = exchange.receive()
    if hub.loop.asyncio:
        done, found = advance(found)
        if done and found["type"] == "http.request" and not found.get("more_body", False):
            body: bytes = found.get("body", b"")
            if len(body) > limit:
                raise _too_large(limit, "more came")
            return body
    return await _read_slowly(hub, exchange, found)


def _advance(hub: Hub, awaitable: Awaitable[Any]) -> tuple[bool, Any]:
    """Run as far as it gets without waiting, where that may be carried on under another limit.

    Not on trio: there a coroutine that entered a cancel scope must leave it before what is entered
    later, and our limit would be entered later.
    """
    return advance(awaitable) if hub.loop.asyncio else (False, awaitable)


async def _read_slowly(hub: Hub, exchange: Exchange, first: Any) -> bytes:
    """Read a body that does not come at once.

    Args:
        hub: The rooms.
        exchange: The request.
        first: The first message, or what to await for it.
    """
    limit = hub.settings.body_limit
    chunks: list[bytes] = []
    size = 0
    with Patience(hub, hub.settings.body_timeout) as patience:
        hub.drain.reading.add(patience.interrupt)
        try:
            message = first if isinstance(first, dict) else await patience.wait(lambda: first)
            while True:
                if message is None:
                    raise _too_late(hub)
                if message["type"] == "http.disconnect":
                    raise ClientGone("before the body was complete")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit, "more came")
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
                message = await patience.wait(exchange.receive)
        finally:
            hub.drain.reading.discard(patience.interrupt)


def _too_late(hub: Hub) -> Refusal:
    if hub.drain.begun:
        return _stopping()
    seconds = hub.settings.body_timeout
    return Refusal(408, f"expected the body within {seconds:g} s", Connection="close")


def _too_large(limit: int, came: str) -> Refusal:
    # What was not read of the body leaves the connection unusable.
    return Refusal(413, f"expected a body of at most {limit} bytes, {came}", Connection="close")


async def refuse(hub: Hub, exchange: Exchange, refusal: Refusal, *, as_json: bool) -> None:
    """Answer with an error and its reason, as plain text or as `{"error": "..."}`."""
    reason = str(refusal)
    if as_json and reason:
        body, kind = json.dumps({"error": reason}).encode(), JSON
    else:
        body, kind = reason.encode(), TEXT
    await answer(hub, exchange, kind, body, status=refusal.status, headers=refusal.headers)


async def answer(
    hub: Hub,
    exchange: Exchange,
    kind: bytes,
    body: bytes,
    *,
    status: int = 200,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> bool:
    """Send an answer, within `Settings.send_timeout` seconds.

    Args:
        hub: The rooms.
        exchange: What is answered.
        kind: The content type of the body.
        body: All of it; a 204 and a 304 have none.
        status: 200 and so on.
        headers: Further headers. Nobody keeps it, unless one of them says otherwise.

    Returns:
        Whether the server took it all; otherwise the client is gone, or does not read.
    """
    send = exchange.send
    try:
        further = (*exchange.cors, *exchange.cookies, *headers)
        for message in make_answer(kind, body, status=status, headers=further):
            done, sending = _advance(hub, send(message))
            if not done and not await send_slowly(hub, sending):
                return False
    except (OSError, RuntimeError) as error:  # uvloop says a closed transport by RuntimeError
        _logger.debug("an answer was not taken: %r", error)
        return False
    return True


def make_answer(
    kind: bytes,
    body: bytes,
    *,
    status: int = 200,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[Message, Message]:
    """Return an answer as messages to the server; see `answer`."""
    fields = [
        (b"content-type", kind),
        (b"content-length", b"%d" % len(body)),
        _NO_STORE,
        _NOSNIFF,
        *headers,
    ]
    if any(name == b"cache-control" for name, _ in headers):
        fields.remove(_NO_STORE)
    if status in (HTTP_204_NO_CONTENT, HTTP_304_NOT_MODIFIED):
        del fields[:2]
    return (
        {"type": "http.response.start", "status": status, "headers": fields},
        {"type": "http.response.body", "body": body},
    )


def start_stream(
    exchange: Exchange, kind: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> Message:
    """Return what begins an answer whose body comes bit by bit.

    Args:
        exchange: What is answered.
        kind: The content type of the body.
        headers: Further headers.
    """
    further = (*exchange.cors, *exchange.cookies, *headers)
    fields = [(b"content-type", kind), _NO_STORE, _NOSNIFF, *further]
    return {"type": "http.response.start", "status": 200, "headers": fields}


async def send_slowly(hub: Hub, sending: Any) -> bool:
    """Carry on a `send` that waits, and tell whether it came to its end in time."""
    with Patience(hub, hub.settings.send_timeout) as patience:
        await patience.wait(lambda: sending)
        return not patience.interrupt.fired


class Patience:
    """A wait with a deadline.

    Args:
        hub: The rooms.
        seconds: How long it lasts.
        missed: Called when the deadline has passed.

    Attributes:
        interrupt: Has fired once the deadline has passed.
    """

    def __init__(self, hub: Hub, seconds: float, missed: Callable[[], None] | None = None) -> None:
        self.interrupt: Interrupt = make_interrupt(hub.loop.asyncio)
        self._deadline = Deadline(self.interrupt, missed)
        self._timers = hub.timers
        self._seconds = seconds

    async def wait(self, what: Callable[[], Awaitable[Any]]) -> Any:
        """Return what a function gives to await, or `None` if it was called off."""
        return await self.interrupt.run(what)

    def __enter__(self) -> Patience:
        self._timers.start(self._deadline, self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        self._timers.stop(self._deadline)

    def shorten(self, seconds: float) -> None:
        """Let it last that long from now."""
        self._timers.start(self._deadline, seconds)
