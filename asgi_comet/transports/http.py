"""What the HTTP transports share: reading a bounded body in bounded time, and answering.

Must not know channels.
"""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from asgi_comet.headers import header
from asgi_comet.hub import Hub

from .holding import Deadline, make_interrupt

__all__ = ["NO_STORE", "ClientGone", "Refusal", "answer", "read_body", "refuse"]

NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class Refusal(Exception):
    """A request that is answered with an error; the text is the reason given to the client."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status: int = status
        self.headers: dict[str, str] = {
            name.replace("_", "-"): value for name, value in headers.items()
        }


class ClientGone(Exception):
    """The client left before there was anything to answer."""


async def read_body(hub: Hub, scope: Scope, receive: Receive) -> bytes:
    """Read a request's body.

    Raises:
        Refusal: 413 over `Settings.body_limit` bytes, as declared or as come; 408 when it is not
            complete after `Settings.body_timeout` seconds; 400 for a length that is no number.
        ClientGone: The client left.
    """
    limit = hub.settings.body_limit
    declared = header(scope, b"content-length")
    if declared is not None:
        if not declared.isdigit():
            raise Refusal(400, "expected Content-Length to be a number")
        if int(declared) > limit:
            raise _too_large(limit, f"{int(declared)} declared")
    interrupt = make_interrupt(hub.loop.asyncio)
    deadline = Deadline(interrupt)
    hub.timers.start(deadline, hub.settings.body_timeout)
    try:
        chunks: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await interrupt.run(receive)
            if message is None:
                raise Refusal(408, f"expected the body within {hub.settings.body_timeout:g} s")
            if message["type"] == "http.disconnect":
                raise ClientGone("before the body was complete")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise _too_large(limit, "more came")
            chunks.append(chunk)
            more = message.get("more_body", False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    finally:
        hub.timers.stop(deadline)


def _too_large(limit: int, came: str) -> Refusal:
    return Refusal(413, f"expected a body of at most {limit} bytes, {came}")


async def refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error and its reason as plain text.

    A body that was not read to its end leaves the connection unusable: it is closed.
    """
    headers = NO_STORE | refusal.headers
    if refusal.status in (408, 413):
        headers["Connection"] = "close"
    await PlainTextResponse(str(refusal), refusal.status, headers)(scope, receive, send)


async def answer(hub: Hub, send: Send, content_type: bytes, body: bytes) -> bool:
    """Send a 200 answer, within `Settings.send_timeout` seconds.

    Returns:
        Whether the server took it all; otherwise the client is gone, or does not read.
    """
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        *_HEADERS,
    ]
    start: Message = {"type": "http.response.start", "status": 200, "headers": headers}
    rest: Message = {"type": "http.response.body", "body": body}
    interrupt = make_interrupt(hub.loop.asyncio)
    deadline = Deadline(interrupt)

    async def send_all() -> bool:
        await send(start)
        await send(rest)
        return True

    hub.timers.start(deadline, hub.settings.send_timeout)
    try:
        return await interrupt.run(send_all) is True
    except OSError:
        return False
    finally:
        hub.timers.stop(deadline)
