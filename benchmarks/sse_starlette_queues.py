"""sse-starlette in a Starlette application, one queue per listener, without pings."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from .control import PREFIX, Control
from .listeners import listen, publish, queues

LONG = 3600  # seconds between pings: none while it is measured


async def stream() -> AsyncIterator[dict[str, str]]:
    """Yield events."""
    async for text in listen():
        yield {"event": "ticker", "data": text}


async def events(request: Request) -> Response:
    """Answer with a stream."""
    response: Response = EventSourceResponse(stream(), ping=LONG)
    return response


control = Control(lambda: len(queues), publish)
app = Starlette(routes=[Route("/events", events), Mount(PREFIX, control)])
