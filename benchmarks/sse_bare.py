"""The least that a server of server-sent events can be: step every listener's `send`.

Writes the same bytes as ours, but keeps nothing, checks nothing, limits nothing.
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from .control import PREFIX, Control
from .stepping import step

OPEN = (
    b'retry: 2000\nevent: :open\ndata: {"positions": {"ticker": "bare0000.0"}}\nid: bare0000.0\n\n'
)

listeners: dict[Send, None] = {}  # in the order of their memory, which a set would not keep
top = 0


async def publish(texts: list[str]) -> None:
    """Write the messages to all listeners, all in one piece."""
    global top  # noqa: PLW0603 - as simple as can be
    events = []
    for text in texts:
        top += 1
        events.append(f'event: ticker\ndata: "{text}"\nid: bare0000.{top}\n\n')
    body = "".join(events).encode()
    message = {"type": "http.response.body", "body": body, "more_body": True}
    for send in listeners:
        step(send, message)


control = Control(lambda: len(listeners), publish)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Open a stream and wait until its client leaves, or be driven."""
    assert scope["type"] == "http"  # a server that asks for a lifespan goes on without
    if scope["path"].startswith(PREFIX):
        await control(scope, receive, send)
        return
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": OPEN, "more_body": True})
    await receive()  # the request
    listeners[send] = None
    await receive()  # that its client left
    del listeners[send]
