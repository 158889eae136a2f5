"""Users that are here, away, or have left:

uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.leaving:app
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from anyio import create_task_group
from fastapi import Depends, FastAPI, Request

from asgi_comet import SITE, ClientProcess, Comet, CometMiddleware, Outcome

comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
AWAY = 300.0  # seconds without a connection; hidden tabs are without one for up to 240


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with create_task_group() as tasks:
        app.state.tasks = tasks
        yield
        tasks.cancel_scope.cancel()


app = FastAPI(lifespan=lifespan)
app.add_middleware(CometMiddleware, comet=comet)
Tab = Annotated[ClientProcess, Depends(comet.process)]

log = comet.create(scope=SITE, name="log", type=str)


@app.post("/here")
async def here(tab: Tab, request: Request) -> None:
    log.publish(f"{tab.id[:6]} is here")
    tab.on_close(say_goodbye)
    request.app.state.tasks.start_soon(watch, tab)


def say_goodbye(tab: ClientProcess) -> None:
    log.publish(f"{tab.id[:6]} has left; {len(comet.processes())} remain")


async def watch(tab: ClientProcess) -> None:
    await comet.wait_timeout(AWAY, tab)
    if not tab.closed:
        log.publish(f"{tab.id[:6]} is away")


@app.post("/wave")
async def wave() -> str:
    outcome = await log.publish("somebody waves")  # 20 seconds at most
    return "seen" if outcome is Outcome.SUCCESS else "perhaps not seen"
