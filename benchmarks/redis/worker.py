"""A worker that is measured, on the broker that COMET_BROKER names: `""` is memory.

Besides what `control` serves, below `/drive`: `store/ROUNDS/EACH` publishes to every channel and
waits, `pace/RATE/SECONDS` publishes as evenly as it can, `close` closes all channels.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from asgi_comet import SITE, Channel, Comet, CometMiddleware, Settings
from benchmarks.control import PREFIX, SIZE, Control

TICK = 0.001  # seconds between two turns of a paced publisher
PADDING = "x" * (SIZE - 40)

settings = Settings(timeout=600, jitter=0)
comet = Comet("k" * 32, broker=os.environ["COMET_BROKER"], settings=settings)
ticker: Channel[Any] = comet.create(scope=SITE, name="ticker")
channels: list[Channel[Any]] = [
    comet.create(scope=SITE, name=f"many{number}") for number in range(int(os.environ["CHANNELS"]))
]


async def publish(texts: list[str]) -> None:
    """Publish all texts in one turn of the loop."""
    for text in texts:
        ticker.publish(text)


def make_value() -> dict[str, Any]:
    """Return a message of about `SIZE` bytes that says when it was published."""
    return {"at": time.perf_counter_ns(), "text": PADDING}


async def store(request: Request) -> JSONResponse:
    """Publish to every channel, wait until all is stored, and so on."""
    rounds, each = (int(request.path_params[name]) for name in ("rounds", "each"))
    value = make_value()
    begin, cpu = time.perf_counter(), time.process_time()
    for _ in range(rounds):
        for channel in channels:
            for _ in range(each):
                last = channel.publish(value)
        await last.stored()
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - begin
    return JSONResponse({"messages": rounds * each * len(channels), "cpu": cpu, "seconds": seconds})


async def pace(request: Request) -> JSONResponse:
    """Publish so many messages a second, to one channel after the other."""
    rate, seconds = (float(request.path_params[name]) for name in ("rate", "seconds"))
    begin, count, total = time.perf_counter(), 0, int(rate * seconds)
    while count < total:
        due = min(total, int((time.perf_counter() - begin) * rate))
        for number in range(count, due):
            last = channels[number % len(channels)].publish(make_value())
        count = due
        await asyncio.sleep(TICK)
    await last.stored()
    return JSONResponse({"messages": count, "seconds": time.perf_counter() - begin})


async def own(request: Request) -> JSONResponse:
    """Make a channel of the tab that asks, with one message."""
    channel: Channel[Any] = comet.create(name="own")
    await channel.publish(make_value()).stored()
    return JSONResponse(channel.reference())


async def close(request: Request) -> JSONResponse:
    """Close all channels."""
    for channel in (ticker, *channels):
        channel.close()
    return JSONResponse(None)


control = Control(lambda: ticker.listeners + sum(one.listeners for one in channels), publish)
routes = [
    Mount(PREFIX, control),
    Route("/drive/store/{rounds}/{each}", store),
    Route("/drive/pace/{rate}/{seconds}", pace),
    Route("/drive/close", close),
    Route("/drive/own", own, methods=["POST"]),
]
app = CometMiddleware(Starlette(routes=routes), comet=comet)
