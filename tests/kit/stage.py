"""What most tests set up: a `Comet` with known keys, and an application around it."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_comet import Comet, CometMiddleware
from tests.kit.serving import Address

KEY = "k" * 32
TOKEN = "t" * 32

ASYNC_BACKENDS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]


@pytest.fixture(params=ASYNC_BACKENDS)
def on_every_loop(request: pytest.FixtureRequest) -> Any:
    """The fixture `anyio_backend` where the event loop matters: for sockets, timers, threads."""
    return request.param


async def echo(request: Request) -> PlainTextResponse:
    body = await request.body()
    return PlainTextResponse(f"{request.method} {request.url.path} {body.decode()}")


def application(comet: Comet) -> Starlette:
    """An application of the user's own, with the middleware around it."""
    every = ["GET", "POST", "PUT", "DELETE"]
    return Starlette(
        routes=[Route("/{path:path}", echo, methods=every)],
        middleware=[Middleware(CometMiddleware, comet=comet)],
    )


Made = tuple[Comet, Address]
