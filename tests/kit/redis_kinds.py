"""A worker with channels of all kinds, on the broker that COMET_BROKER names, for its own process.

The sources end when the worker is told to close all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_comet import SITE, Channel, Comet, CometMiddleware, Settings
from asgi_comet.transports import sse
from tests.kit.stage import KEY

sse.RETRY = sse.RETRY_LATER = (50, 100)

comet = Comet(
    KEY,
    broker=os.environ["COMET_BROKER"],
    settings=Settings(jitter=0, linger=0.2, heartbeat=1),
)
closing = asyncio.Event()


@comet.guard
def may_read(connection: HTTPConnection) -> bool:
    return True


@comet.channel("ticks")
async def ticks() -> AsyncIterator[int]:
    async for value in until_closed():
        yield value


@comet.channel("room:{room}")
async def room(room: str) -> AsyncIterator[int]:
    async for value in until_closed():
        yield value


async def until_closed() -> AsyncIterator[int]:
    yield 0
    await closing.wait()


plain: list[Channel[Any]] = [
    comet.create(scope=SITE, name="news"),
    comet.create(scope=SITE, name="aged", max_age=60),
    comet.create_newest(name="gauge"),
]


async def publish(request: Request) -> JSONResponse:
    for channel in plain:
        await channel.publish("a").stored()
        await channel.publish("b", id="b").stored()
    return JSONResponse(None)


async def make(request: Request) -> JSONResponse:
    """Make channels at run time, of which one has a source."""
    name = request.path_params["name"]
    comet.create(until_closed(), scope=SITE, name=f"once-{name}")
    if "plain" in request.query_params:
        plain.append(comet.create(scope=SITE, name=f"made-{name}"))
        plain.append(comet.create(scope=SITE, name=f"guarded-{name}", authorize=may_read))
        plain.append(comet.create(scope=SITE))
    return JSONResponse(None)


async def close(request: Request) -> JSONResponse:
    closing.set()
    for channel in plain:
        channel.close()
    return JSONResponse(None)


app = Starlette(
    routes=[
        Route("/publish", publish),
        Route("/make/{name}", make),
        Route("/close", close),
    ],
    middleware=[Middleware(CometMiddleware, comet=comet)],
)
