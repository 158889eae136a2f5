"""One HTTP request and its answer, with bounds on the body and on the time.

Owns the code that all HTTP transports share. Must not know channels.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from starlette.status import HTTP_204_NO_CONTENT, HTTP_304_NOT_MODIFIED
from starlette.types import Message, Receive, Scope, Send

from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.stepping import advance, is_direct
from asgi_comet._runtime.timers import Timers
from asgi_comet._runtime.waiting import Deadline, Interrupt, make_interrupt
from asgi_comet.http.headers import essence, read_headers
from asgi_comet.log_events import event
from asgi_comet.settings import Settings

__all__ = [
    "JSON",
    "TEXT",
    "ClientGone",
    "Exchange",
    "Patience",
    "Refusal",
    "Serving",
    "answer",
    "make_answer",
    "read_body",
    "refuse",
    "send_slowly",
    "start_stream",
    "stopping",
]

_logger = logging.getLogger(__name__)

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
TURNS = 2  # of the loop: one reads the end of the connection, one tells the request
OUTCOMES = {403: "forbidden", 429: "limit"}
DIGITS = 18  # of a Content-Length, at most

_NO_STORE = (b"cache-control", b"no-store")
_NOSNIFF = (b"x-content-type-options", b"nosniff")


class Refusal(Exception):
    """A request that is answered with an error; the text is the reason for the client.

    Attributes:
        outcome: What became of the connection, for the figures; `None` if they do not count it.
    """

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status: int = status
        self.outcome: str | None = OUTCOMES.get(status)
        self.headers: Sequence[tuple[bytes, bytes]] = [
            (name.replace("_", "-").lower().encode(), value.encode())
            for name, value in headers.items()
        ]


class ClientGone(Exception):
    """The client disconnected before the answer."""


class Bodies(Protocol):
    """The requests whose body is still coming."""

    @property
    def begun(self) -> bool:
        """Whether the server stops."""

    @property
    def reading(self) -> set[Interrupt]:
        """The interrupts that end the wait for a body."""


class Serving(Protocol):
    """The objects that all requests share."""

    @property
    def settings(self) -> Settings:
        """The limits."""

    @property
    def loop(self) -> LoopThread:
        """The thread of the event loop."""

    @property
    def timers(self) -> Timers:
        """The timers of waits."""

    @property
    def drain(self) -> Bodies:
        """The requests whose body is still coming."""


class Exchange:
    """One HTTP request and its answer.

    Attributes:
        scope: The ASGI scope of the request.
        receive: Receives the body.
        send: Sends the answer.
        root: The URL path where comet is mounted, as the client sees it.
        path: The path below `root`.
        headers: The headers of the request.
        kind: The content type without parameters.
        cors: Headers that let a page of an allowed origin read the answer; set by the origin check.
        came: When the request came, or the last frame on a WebSocket, by the machine's monotonic
            clock in seconds; recorded only where other workers serve the client, too.
        claim: The `Claim` to a session; `None` until recognised, and without one.
        renew: Makes the headers that set a cookie with the answer; `None` for no cookie.
        sessions: The sessions in the request's cookies; `None` until parsed.
        transport: The transport of the endpoint, for the figures; `None` for the others.
    """

    __slots__ = (
        "came",
        "claim",
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
        "transport",
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
        self.came: float = 0.0
        self.claim: Any = None
        self.renew: Callable[[], Sequence[tuple[bytes, bytes]]] | None = None
        self.sessions: tuple[str, ...] | None = None
        self.transport: str | None = None

    @property
    def cookies(self) -> Sequence[tuple[bytes, bytes]]:
        """The current headers that set a cookie with the answer."""
        return () if self.renew is None else self.renew()

    async def confirm(self) -> None:
        """Check that the client has not disconnected already; call it after the body was read.

        A worker that is behind gets a request together with its end, some turns of the loop apart.
        Only of servers whose `receive` may be left at any time; and not for a WebSocket, whose
        frames would be lost.

        Raises:
            ClientGone: The client has disconnected.
        """
        if self.scope["type"] != "http" or not is_direct(self.receive):
            return
        for _ in range(TURNS):
            await asyncio.sleep(0)
        found: Any
        done, found = advance(self.receive())
        while done:
            if found["type"] == "http.disconnect":
                raise ClientGone("before the request was served")
            done, found = advance(self.receive())  # that was the body of a GET
        found.close()


def stopping() -> Refusal:
    """Return the answer to a request that would be held while the server stops."""
    return Refusal(503, "the server stops", Retry_After="1", Connection="close")


async def read_body(serving: Serving, exchange: Exchange) -> bytes:
    """Read the body of a request.

    Raises:
        Refusal: 413 for more than `Settings.body_limit` bytes, declared or received; 408 if the
            body is not complete after `Settings.body_timeout` seconds; 400 for a length that is not
            a number; 503 if the server stops before the body is complete.
        ClientGone: The client disconnected.
    """
    limit = serving.settings.body_limit
    declared = exchange.headers.get(b"content-length")
    if declared is not None:
        if not declared.isdigit():
            raise Refusal(400, "expected Content-Length to be a number")
        if len(declared) > DIGITS or int(declared) > limit:
            raise _too_large(limit, f"{declared[:DIGITS].decode()} declared")
    found: Any = exchange.receive()
    if serving.loop.asyncio:
        done, found = advance(found)
        if done and found["type"] == "http.request" and not found.get("more_body", False):
            body: bytes = found.get("body", b"")
            if len(body) > limit:
                raise _too_large(limit, "more came")
            return body
    return await _read_slowly(serving, exchange, found)


def _advance(serving: Serving, awaitable: Awaitable[Any]) -> tuple[bool, Any]:
    """Run an awaitable as far as it gets without waiting; on asyncio only.

    On trio, a coroutine that entered a cancel scope must leave it before scopes entered later, and
    the time limit would be entered later.
    """
    return advance(awaitable) if serving.loop.asyncio else (False, awaitable)


async def _read_slowly(serving: Serving, exchange: Exchange, first: Any) -> bytes:
    """Read a body that is not there at once.

    Args:
        serving: The objects that all requests share.
        exchange: The request.
        first: The first message, or an awaitable for it.
    """
    limit = serving.settings.body_limit
    chunks: list[bytes] = []
    size = 0
    with Patience(serving, serving.settings.body_timeout) as patience:
        serving.drain.reading.add(patience.interrupt)
        try:
            message = first if isinstance(first, dict) else await patience.wait(lambda: first)
            while True:
                if message is None:
                    raise _too_late(serving)
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
            serving.drain.reading.discard(patience.interrupt)


def _too_late(serving: Serving) -> Refusal:
    if serving.drain.begun:
        return stopping()
    seconds = serving.settings.body_timeout
    return Refusal(408, f"expected the body within {seconds:g} s", Connection="close")


def _too_large(limit: int, came: str) -> Refusal:
    # The unread rest of the body makes the connection unusable.
    return Refusal(413, f"expected a body of at most {limit} bytes, {came}", Connection="close")


async def refuse(serving: Serving, exchange: Exchange, refusal: Refusal, *, as_json: bool) -> None:
    """Answer with an error and its reason, as plain text or as `{"error": "..."}`."""
    reason = str(refusal)
    if as_json and reason:
        body, kind = json.dumps({"error": reason}).encode(), JSON
    else:
        body, kind = reason.encode(), TEXT
    await answer(serving, exchange, kind, body, status=refusal.status, headers=refusal.headers)


async def answer(
    serving: Serving,
    exchange: Exchange,
    kind: bytes,
    body: bytes,
    *,
    status: int = 200,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> bool:
    """Send an answer, within `Settings.send_timeout` seconds.

    Args:
        serving: The objects that all requests share.
        exchange: The request.
        kind: The content type of the body.
        body: The whole body; a 204 and a 304 have none.
        status: The status code.
        headers: Further headers. The answer is not cached, unless one of these says otherwise.

    Returns:
        Whether the server took the whole answer; if not, the client has disconnected or does not
        read.
    """
    send = exchange.send
    try:
        further = (*exchange.cors, *exchange.cookies, *headers)
        for message in make_answer(kind, body, status=status, headers=further):
            done, sending = _advance(serving, send(message))
            if not done and not await send_slowly(serving, sending):
                return False
    except (OSError, RuntimeError) as error:  # uvloop raises RuntimeError for a closed transport
        _logger.debug("an answer was not taken: %r", error, extra=event("answer.lost"))
        return False
    return True


def make_answer(
    kind: bytes,
    body: bytes,
    *,
    status: int = 200,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[Message, Message]:
    """Return an answer as ASGI messages; see `answer`."""
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
    """Return the ASGI message that starts a streamed answer.

    Args:
        exchange: The request.
        kind: The content type of the body.
        headers: Further headers.
    """
    further = (*exchange.cors, *exchange.cookies, *headers)
    fields = [(b"content-type", kind), _NO_STORE, _NOSNIFF, *further]
    return {"type": "http.response.start", "status": 200, "headers": fields}


async def send_slowly(serving: Serving, sending: Any) -> bool:
    """Finish a suspended `send`, and return whether it finished in time."""
    with Patience(serving, serving.settings.send_timeout) as patience:
        await patience.wait(lambda: sending)
        return not patience.interrupt.fired


class Patience:
    """A wait with a deadline.

    Args:
        serving: The objects that all requests share.
        seconds: The time until the deadline.
        missed: Called when the deadline has passed.

    Attributes:
        interrupt: Has fired once the deadline has passed.
    """

    def __init__(
        self, serving: Serving, seconds: float, missed: Callable[[], None] | None = None
    ) -> None:
        self.interrupt: Interrupt = make_interrupt(serving.loop.asyncio)
        self._deadline = Deadline(self.interrupt, missed)
        self._timers = serving.timers
        self._seconds = seconds

    async def wait(self, what: Callable[[], Awaitable[Any]]) -> Any:
        """Await the result of a function; `None` if the wait was interrupted."""
        return await self.interrupt.run(what)

    def __enter__(self) -> Patience:
        self._timers.start(self._deadline, self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        self._timers.stop(self._deadline)

    def shorten(self, seconds: float) -> None:
        """Move the deadline to that many seconds from now."""
        self._timers.start(self._deadline, seconds)
