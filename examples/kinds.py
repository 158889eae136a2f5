"""One channel of each kind:

uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.kinds:app
"""

import os
import random
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from anyio import Event, sleep
from fastapi import Body, FastAPI
from pydantic import BaseModel

from asgi_comet import SITE, ClientProcess, Comet, CometMiddleware

comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


class Price(BaseModel):
    symbol: str
    value: float
    at: datetime


async def prices() -> AsyncIterator[Price]:
    value = 100.0
    try:
        while True:
            value *= random.uniform(0.99, 1.01)  # noqa: S311 - it looks like a market
            yield Price(symbol="ACME", value=value, at=datetime.now(UTC))
            await sleep(0.2)
    finally:
        print("the market is closed")


# For everyone: a source that is read, and channels that are written.
ticker = comet.create(prices, scope=SITE, name="ticker", size=500)
room = comet.create(scope=SITE, name="room", type=str)
thermometer = comet.create_newest(name="thermometer", type=float)
elsewhere = comet.external_channel(prefix="https://live.example.com/comet", name="news", history=5)


@app.post("/room")
def say(text: Annotated[str, Body()]) -> None:
    room.publish(text)


# For one tab.
class Mailbox:
    """The letters that wait for a tab, and who wants to know how many."""

    def __init__(self) -> None:
        self.letters: list[str] = []
        self.changed = Event()

    def put(self, letter: str) -> None:
        self.letters.append(letter)
        self.changed.set()

    async def unread(self) -> AsyncIterator[int]:
        while True:
            self.changed = Event()
            yield len(self.letters)  # as it is when the tab asks
            await self.changed.wait()


async def greet(process: ClientProcess) -> AsyncIterator[str]:
    yield f"Welcome, tab {process.id[:6]}"
    yield "You have mail"  # and that is all: the channel ends


@app.get("/tab")
async def open_tab() -> dict[str, dict[str, str]]:
    process = comet.open_process()
    mailbox = Mailbox()
    inbox = comet.create(name="inbox", type=str)
    unread = comet.create_unlimited(mailbox.unread, name="unread")
    greeting = comet.create(greet(process), name="greeting", type=str)
    for letter in ("first", "second"):
        mailbox.put(letter)
        inbox.publish(letter)
    process.on_close(lambda closed: print("goodbye", closed.id[:6]))
    return {channel.id: channel.reference() for channel in (inbox, unread, greeting)}
