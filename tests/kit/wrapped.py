"""One application per middleware and way to mount us, for the tests of middlewares around us.

`/gzip.added/...` is that of the GZip middleware around `CometMiddleware`, `/gzip.mounted/...` that
of the same around `app.mount("/comet", comet.app)`. `/until` and `/publish` are about any of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_comet import Channel, Comet, CometMiddleware, Settings
from tests.kit.application import reach


class Pure:
    """Middleware of somebody's own: looks at what passes, and adds a header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def heard() -> Message:
            return await receive()

        async def said(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-pure", b"1")]}
            await send(message)

        await self._app(scope, heard, said)


async def at_http(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """The function of `@app.middleware("http")`, which Starlette runs in a `BaseHTTPMiddleware`."""
    response = await call_next(request)
    response.headers["x-http"] = "1"
    return response


def around(app: FastAPI, name: str) -> None:
    """Put a middleware around all that the application has by now."""
    match name:
        case "gzip":
            app.add_middleware(GZipMiddleware, minimum_size=1)
        case "http":
            app.middleware("http")(at_http)
        case "cors":
            app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"])
        case "sessions":
            app.add_middleware(SessionMiddleware, secret_key="s" * 32)
        case "hosts":
            app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1"])
        case "pure":
            app.add_middleware(Pure)
        case "all":
            for one in NAMES[1:-1]:
                around(app, one)


NAMES = ["none", "gzip", "http", "cors", "sessions", "hosts", "pure", "all"]
channels: dict[str, Channel[str]] = {}
served: dict[str, ASGIApp] = {}
comets: list[Comet] = []

for name in NAMES:
    for how in ("added", "mounted"):
        comet = Comet("k" * 32, settings=Settings.from_env())
        one = FastAPI()
        if how == "added":
            one.add_middleware(CometMiddleware, comet=comet)
        else:
            one.mount("/comet", comet.app)
        around(one, name)
        comets.append(comet)
        channels[f"{name}.{how}"] = comet.channels.create("held0")
        served[f"{name}.{how}"] = one


@asynccontextmanager
async def lifespans(app: FastAPI) -> AsyncIterator[None]:
    """Run them all."""
    async with AsyncExitStack() as stack:
        for comet in comets:
            await stack.enter_async_context(comet.lifespan())
        yield


control = FastAPI(lifespan=lifespans)


@control.get("/until")
async def until(listeners: int, channel: str) -> int:
    """Answer once that many listen."""
    await reach(channels[channel], listeners)
    return listeners


@control.get("/publish")
async def publish(count: int, size: int, channel: str) -> None:
    """Publish texts of that size that begin with their numbers."""
    for number in range(count):
        channels[channel].publish(str(number).ljust(size, "x"))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a request on as it came, to where its path's first part says."""
    first, _, rest = scope.get("path", "").removeprefix("/").partition("/")
    if first in served:
        path = {"path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        await served[first]({**scope, **path}, receive, send)
    else:
        await control(scope, receive, send)
