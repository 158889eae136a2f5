"""A worker on the broker that COMET_BROKER names, in a process of its own."""

from __future__ import annotations

import os
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_comet import SITE, Channel, Comet, CometMiddleware, Settings, lifespan
from asgi_comet.brokers.redis import RedisBroker
from asgi_comet.testing import wait_for_listeners
from asgi_comet.transports import sse
from tests.kit.stage import KEY

sse.RETRY = sse.RETRY_LATER = (50, 100)
lifespan.BROKER_LIMIT = float(os.environ.get("BROKER_LIMIT", lifespan.BROKER_LIMIT))

URL = os.environ["COMET_BROKER"]
durable = bool(os.environ.get("DURABLE"))
comet = Comet(
    KEY,
    broker=RedisBroker(URL, durable=True) if durable else URL,
    settings=Settings(jitter=0),
)
news: Channel[Any] = comet.create(scope=SITE, name="news", size=1000)


async def publish(request: Request) -> JSONResponse:
    for number in range(int(request.path_params["first"]), int(request.path_params["end"])):
        news.publish(number)
    return JSONResponse(None)


async def stored(request: Request) -> JSONResponse:
    return JSONResponse(str(await news.publish(request.path_params["value"]).stored()))


def wait(request: Request) -> JSONResponse:
    wait_for_listeners(news, int(request.path_params["count"]))
    return JSONResponse(None)


app = Starlette(
    routes=[
        Route("/publish/{first}/{end}", publish),
        Route("/stored/{value}", stored),
        Route("/listeners/{count}", wait),
    ],
    middleware=[Middleware(CometMiddleware, comet=comet)],
)
bare = Starlette(routes=app.routes, lifespan=comet.lifespan)  # without the middleware
