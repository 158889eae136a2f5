"""The current tab as a dependency, and channels in models:

uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.fastapi_models:app
"""

import os
import secrets
from collections.abc import AsyncIterator
from typing import Annotated

from anyio import sleep_forever
from fastapi import Body, Depends, FastAPI
from pydantic import BaseModel

from asgi_comet import CLIENT_PROCESS, Channel, ClientProcess, Comet, CometMiddleware

comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)

Tab = Annotated[ClientProcess, Depends(comet.process)]


@comet.newest("temperature")
async def temperature() -> AsyncIterator[float]:
    yield 20.5
    await sleep_forever()  # the rest is published


@comet.channel("notes", scope=CLIENT_PROCESS)
async def notes(process: ClientProcess) -> AsyncIterator[str]:
    yield f"This is tab {process.id[:6]}."
    await sleep_forever()


class Desk(BaseModel):
    tab: str
    temperature: Channel[float]
    notes: Channel[str]


@app.post("/desk")
def desk(tab: Tab) -> Desk:
    return Desk(tab=tab.id, temperature=temperature.channel(), notes=notes.channel(tab))


@app.post("/notes")
def note(tab: Tab, text: Annotated[str, Body()]) -> None:
    notes.publish(text, tab)
