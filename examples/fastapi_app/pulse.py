"""The pulse: a source of numbered messages, and a button that cuts a tab off from it.

The page counts the numbers, so it detects a missing one. The cut is real: the server breaks the
tab's connections and refuses new ones for a while, without a reason. Knows nothing of how the
client reconnects.
"""

from collections.abc import AsyncIterator
from itertools import count
from time import time
from typing import Annotated

from anyio import CancelScope, sleep
from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from examples.fastapi_app.push import Process, comet
from examples.fastapi_app.store import Kept, changes

HELD = 200
"""Messages that the server keeps: those of ten seconds."""

Seconds = Annotated[float, Query(gt=0, le=60)]

router = APIRouter()

lines: dict[CancelScope, str] = {}
"""Open connections, and the URL of the tab that each belongs to."""


class Cut(BaseModel):
    """The tabs that cannot connect at the moment: their URLs, and until when."""

    tabs: dict[str, float] = {}

    def has(self, tab: str) -> bool:
        """Return whether a tab is cut off."""
        return self.tabs.get(tab, 0) > time()


cut_off = Kept(Cut())


@comet.channel("pulse", size=HELD)
async def pulse() -> AsyncIterator[int]:
    """Count, twenty times a second, listeners or not."""
    for number in count(1):
        yield number
        await sleep(0.05)


@router.post("/cut", status_code=204)
async def cut(process: Process, seconds: Seconds) -> None:
    """Cut off the tab that asks, for some seconds."""
    with cut_off.change() as now:
        now.tabs = {tab: end for tab, end in now.tabs.items() if now.has(tab)}
        now.tabs[process.url] = time() + seconds
    await sleep(seconds)


async def hang_up() -> None:
    """Break the connections of this worker to tabs that are cut off, until cancelled."""
    while True:
        now = cut_off.read()
        for line, tab in lines.items():
            if now.has(tab):
                line.cancel()
        await changes.wait()


class CutMiddleware:
    """ASGI middleware that drops the connections of a tab that is cut off, and refuses new ones."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection until the tab is cut off."""
        tab = "/".join(scope.get("path", "").split("/")[:4])  # "/comet/p/TOKEN" of a tab's URLs
        if "/p/" in tab and cut_off.read().has(tab):
            refuse = WebSocketClose() if scope["type"] == "websocket" else Response(status_code=502)
            await refuse(scope, receive, send)
            return
        with CancelScope() as line:
            lines[line] = tab
            try:
                await self.app(scope, receive, send)
            finally:
                del lines[line]
