"""The server that the fault scripts disturb: a channel per transport, and figures about itself.

`GET /listeners` tells how many listen on each channel, `GET /figures` what the process holds,
`GET /memory` how much of it is resident, and `GET /lag` how long its loop stood still.
`POST /publish` publishes a message on every channel. `GET /` is what a well-behaved client asks.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import _lru_cache_wrapper
from gc import get_objects

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_comet import SITE, Comet, CometMiddleware, Settings
from asgi_comet.testing._inspect import inside, known

from .lag import LoopLag
from .memory import read_memory, settle

TRANSPORTS = ("poll", "sse", "websocket")
SIZE = 100  # messages that a channel holds, so that histories are full after a moment

comet = Comet("benchmarks" * 4, settings=Settings.from_env())
channels = {name: comet.create(scope=SITE, name=name, size=SIZE) for name in TRANSPORTS}
lag = LoopLag()


@comet.channel("room:{room}")
async def rooms(room: int) -> AsyncIterator[str]:
    """A family, whose members come and go with their listeners."""
    yield f"welcome to {room}"
    await anyio.sleep_forever()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Watch the loop while the application runs; not on trio, which has no such loop."""
    try:
        task = asyncio.create_task(lag.watch())
    except RuntimeError:
        yield
        return
    yield
    task.cancel()


async def home(request: Request) -> JSONResponse:
    """Answer at once."""
    return JSONResponse("well")


async def listeners(request: Request) -> JSONResponse:
    """Tell how many listen on each channel."""
    return JSONResponse({name: channel.listeners for name, channel in channels.items()})


async def figures(request: Request) -> JSONResponse:
    """Tell what the process holds, but for caches of a fixed size, after a collection."""
    settle()
    lag.take()
    for table in known(inside(comet).requests.identity):
        table.clear()
    for one in get_objects():
        if isinstance(one, _lru_cache_wrapper) and is_ours(one):
            one.cache_clear()
    objects = Counter(type(one).__qualname__ for one in get_objects() if is_ours(type(one)))
    told = {
        "memory": read_memory().rss,
        "blocks": sys.getallocatedblocks(),
        "tables": {
            **objects,
            "tasks": len(asyncio.all_tasks()),
            "open files": len(os.listdir("/proc/self/fd")),
            "listeners": len(inside(comet).fanout.listeners),
            "timers": len(inside(comet).timers),
            "background": len(inside(comet).background),
            "processes": len(inside(comet).clients),
            "sessions": inside(comet).clients.known,
            "channels": len(inside(comet).channels),
        },
    }
    return JSONResponse(told)


def is_ours(one: object) -> bool:
    """Tell whether a class or function is of this package."""
    return str(getattr(one, "__module__", None)).startswith("asgi_comet.")


async def get_lag(request: Request) -> JSONResponse:
    """Tell how long the loop stood still since this was last asked."""
    return JSONResponse(lag.take())


async def memory(request: Request) -> JSONResponse:
    """Tell what is resident, and disturb nothing."""
    return JSONResponse(read_memory().rss)


async def publish(request: Request) -> JSONResponse:
    """Publish one message on every channel."""
    for channel in channels.values():
        channel.publish("x" * 100)
    return JSONResponse(None)


app = Starlette(
    routes=[
        Route("/", home),
        Route("/listeners", listeners),
        Route("/figures", figures),
        Route("/lag", get_lag),
        Route("/memory", memory),
        Route("/publish", publish, methods=["POST"]),
    ],
    middleware=[Middleware(CometMiddleware, comet=comet)],
    lifespan=lifespan,
)
