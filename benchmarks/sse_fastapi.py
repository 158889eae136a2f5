"""FastAPI's own server-sent events: an endpoint that yields, one queue per listener."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

from .control import PREFIX, Control
from .listeners import listen, publish, queues

app = FastAPI()


@app.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterator[ServerSentEvent]:
    """Yield events."""
    async for text in listen():
        yield ServerSentEvent(event="ticker", raw_data=text)


app.mount(PREFIX, Control(lambda: len(queues), publish))
