"""The least that a server of long polls can be: hold with a future, answer when it is set.

Says the same bytes as ours, with the same headers, but keeps nothing, checks nothing, limits
nothing, and does not see a client leave.
"""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope, Send

from .control import PREFIX, Control

waiting: list[asyncio.Future[bytes]] = []
top = 0


async def publish(texts: list[str]) -> None:
    """Answer all waiting clients with the messages."""
    global top  # noqa: PLW0603 - as simple as can be
    events = []
    for text in texts:
        top += 1
        events.append(f'{{"channel":"ticker","position":"bare0000.{top}","data":"{text}"}}')
    body = f'{{"events":[{",".join(events)}]}}'.encode()
    held = waiting.copy()
    waiting.clear()
    for future in held:
        future.set_result(body)


control = Control(lambda: len(waiting), publish)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Hold a poll, or be driven."""
    assert scope["type"] == "http"  # a server that asks for a lifespan goes on without
    if scope["path"].startswith(PREFIX):
        await control(scope, receive, send)
        return
    asked = b""
    more = True
    while more:
        message = await receive()
        asked += message.get("body", b"")
        more = message.get("more_body", False)
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    waiting.append(future)
    body = await future
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
