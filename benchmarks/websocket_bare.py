"""The least that a server of WebSockets can be: step every listener's `send`.

Writes the same bytes as ours, but keeps nothing, checks nothing, limits nothing.
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from .control import PREFIX, Control
from .stepping import step

listeners: dict[Send, None] = {}  # in the order of their memory, which a set would not keep
top = 0


async def publish(texts: list[str]) -> None:
    """Write the messages to all listeners, all in one frame."""
    global top  # noqa: PLW0603 - as simple as can be
    events = []
    for text in texts:
        top += 1
        events.append(f'{{"channel":"ticker","position":"bare0000.{top}","data":"{text}"}}')
    message = {"type": "websocket.send", "text": f'{{"events":[{",".join(events)}]}}'}
    for send in listeners:
        step(send, message)


control = Control(lambda: len(listeners), publish)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept a listener and wait until it leaves, or be driven."""
    assert scope["type"] != "lifespan"  # a server that asks for a lifespan goes on without
    if scope["type"] == "http":
        assert scope["path"].startswith(PREFIX)
        await control(scope, receive, send)
        return
    await receive()  # the handshake
    await send({"type": "websocket.accept"})
    await receive()  # what it subscribes to
    event = f'{{"channel":"ticker","position":"bare0000.{top}"}}'
    await send({"type": "websocket.send", "text": f'{{"events":[{event}]}}'})
    listeners[send] = None
    await receive()  # that it left
    del listeners[send]
