"""The pulse: a source of numbered messages, and a button that cuts a tab off from it.

The page counts the numbers, so it detects a missing one. The cut is real: the server breaks the
tab's connections and refuses new ones for a while, without a reason. Knows nothing of how the
client reconnects.
"""

from collections.abc import AsyncIterator
from itertools import count
from typing import Annotated

from anyio import CancelScope, sleep
from fastapi import APIRouter, Query
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from examples.fastapi_app.push import Process, comet

HELD = 200
"""Messages that the server keeps: those of ten seconds."""

Seconds = Annotated[float, Query(gt=0, le=60)]

router = APIRouter()

lines: dict[CancelScope, str] = {}
"""Open connections, and the URL of the tab that each belongs to."""

cut_off: set[str] = set()
"""URLs of the tabs that cannot connect at the moment."""


@comet.channel("pulse", size=HELD)
async def pulse() -> AsyncIterator[int]:
    """Count, twenty times a second, listeners or not."""
    for number in count(1):
        yield number
        await sleep(0.05)


@router.post("/cut", status_code=204)
async def cut(process: Process, seconds: Seconds) -> None:
    """Cut off the tab that asks, for some seconds."""
    cut_off.add(process.url)
    for line, tab in lines.items():
        if tab == process.url:
            line.cancel()
    await sleep(seconds)
    cut_off.discard(process.url)


class CutMiddleware:
    """ASGI middleware that drops the connections of a tab that is cut off, and refuses new ones."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection until the tab is cut off."""
        tab = "/".join(scope.get("path", "").split("/")[:4])  # "/comet/p/TOKEN" of a tab's URLs
        if tab in cut_off:
            refuse = WebSocketClose() if scope["type"] == "websocket" else Response(status_code=502)
            await refuse(scope, receive, send)
            return
        with CancelScope() as line:
            lines[line] = tab
            try:
                await self.app(scope, receive, send)
            finally:
                del lines[line]
