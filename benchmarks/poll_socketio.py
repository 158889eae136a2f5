"""python-socketio with nothing but long polling, as it comes, without pings."""

from __future__ import annotations

import socketio
from starlette.types import Receive, Scope, Send

from .control import Control

PATH = "/socket.io/"
LONG = 3600  # seconds between pings: none while it is measured

events = socketio.AsyncServer(async_mode="asgi", transports=["polling"], ping_interval=LONG)
held = 0


async def publish(texts: list[str]) -> None:
    """Emit the texts to all clients, one after another, as the interface requires."""
    for text in texts:
        await events.emit("ticker", text)


served = socketio.ASGIApp(events, Control(lambda: held, publish))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request, and count those that are held."""
    global held  # noqa: PLW0603 - its own book-keeping is private
    if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != PATH:
        await served(scope, receive, send)
        return
    held += 1
    try:
        await served(scope, receive, send)
    finally:
        held -= 1
