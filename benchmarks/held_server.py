"""The server that `benchmarks.held` measures: one channel, and figures about itself."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_comet import Comet, CometMiddleware, Settings

from .memory import read_memory, settle

comet = Comet(secrets.token_bytes(32), settings=Settings(timeout=600, jitter=0))
channel = comet.channels.create("held")
longest = [0.0]
fresh = [True]  # the figures themselves held the loop up: that stretch does not count


async def watch() -> None:
    """Keep the longest stretch in which the loop did not turn, in seconds."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        stretch = time.perf_counter() - before - 0.001
        longest[0] = 0.0 if fresh[0] else max(longest[0], stretch)
        fresh[0] = False


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Watch the loop while the application runs."""
    task = asyncio.create_task(watch())
    yield
    task.cancel()


async def figures(request: Request) -> JSONResponse:
    """Tell the figures; memory after a collection, when the allocator gave back what it can."""
    settle()
    stretch = longest[0]
    fresh[0] = True
    return JSONResponse(
        {
            "listeners": channel.listeners,
            "blocks": sys.getallocatedblocks(),
            "memory": read_memory().rss,
            "cpu": time.process_time(),
            "stretch": stretch,
        }
    )


async def write(request: Request) -> JSONResponse:
    """Write one message and tell its outcome."""
    return JSONResponse((await channel.write("x" * 200)).value)


app = Starlette(
    routes=[Route("/figures", figures), Route("/write", write, methods=["POST"])],
    middleware=[Middleware(CometMiddleware, comet=comet)],
    lifespan=lifespan,
)
