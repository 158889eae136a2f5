"""The server that docs/wire.md asks: a channel for everyone, and two for each client process."""

import itertools
import os
import secrets
from collections.abc import AsyncIterator

from anyio import sleep_forever
from fastapi import FastAPI

from asgi_comet import CLIENT_PROCESS, SITE, ClientProcess, Comet, CometMiddleware

comet = Comet(
    os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32),
    allowed_origins=["https://app.example.com"],
)
ticker = comet.create(scope=SITE, name="ticker", size=3)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


@app.post("/ticker", status_code=204)
def post(price: float) -> None:
    ticker.publish({"price": price})


@comet.channel("inbox", scope=CLIENT_PROCESS)
async def inbox(process: ClientProcess) -> AsyncIterator[str]:
    yield "Welcome"
    await sleep_forever()


@comet.unlimited("steps")
async def steps(process: ClientProcess) -> AsyncIterator[int]:
    for step in itertools.count(1):
        yield step
