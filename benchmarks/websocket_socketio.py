"""python-socketio with nothing but WebSocket: all clients in one room, without pings."""

from __future__ import annotations

import socketio

from .control import Control

LONG = 3600  # seconds between pings: none while it is measured

events = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], ping_interval=LONG)
connected: set[str] = set()


async def enter(sid: str, environ: dict[str, object]) -> None:
    """Put a new listener into the room."""
    await events.enter_room(sid, "ticker")
    connected.add(sid)


async def leave(sid: str, reason: str) -> None:
    """Forget a listener."""
    connected.discard(sid)


async def publish(texts: list[str]) -> None:
    """Emit the texts to the room, one after another, as its interface wants it."""
    for text in texts:
        await events.emit("ticker", text, room="ticker")


events.on("connect", enter)
events.on("disconnect", leave)
app = socketio.ASGIApp(events, Control(lambda: len(connected), publish))
