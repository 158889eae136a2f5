"""The figures on a route of the application, behind a guard of its own.

    export SCRAPE_TOKEN=secret
    uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.metrics:app
    curl -H 'Authorization: Bearer secret' http://127.0.0.1:8000/metrics

`/comet/admin/metrics` needs no code, see docs/watching.md. This is for an application that has a
registry with figures of its own.
"""

import os
import secrets
from collections.abc import AsyncIterator
from typing import Annotated

from anyio import sleep
from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest

from asgi_comet import Comet, CometMiddleware
from asgi_comet.prometheus import CometCollector

SCRAPE_TOKEN = os.environ.get("SCRAPE_TOKEN") or secrets.token_urlsafe(32)
Bearer = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]

comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


@comet.channel("clock")
async def clock() -> AsyncIterator[int]:
    for second in range(1_000_000):
        yield second
        await sleep(1)


def may_scrape(bearer: Bearer) -> None:
    if not secrets.compare_digest(bearer.credentials.encode(), SCRAPE_TOKEN.encode()):
        raise HTTPException(403)


@app.get("/comet-metrics", dependencies=[Depends(may_scrape)])
def comet_metrics() -> Response:
    return Response(comet.metrics(), media_type="text/plain; version=0.0.4")


registry = CollectorRegistry()
registry.register(CometCollector(comet))
scrapes = Counter("scrapes", "How often this was read.", registry=registry)


@app.get("/metrics", dependencies=[Depends(may_scrape)])
def metrics() -> Response:
    scrapes.inc()
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
