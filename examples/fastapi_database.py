"""A database without a session during held requests:

uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.fastapi_database:app
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, ClassVar

from anyio import sleep_forever
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.requests import HTTPConnection

from asgi_comet import CLIENT_PROCESS, ClientProcess, Comet, CometMiddleware, Delivery, Outcome

comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


class Session:
    """Stands for a session of your database."""

    open: ClassVar[int] = 0  # how many there are right now
    most: ClassVar[int] = 0  # how many there were at a time
    orders: ClassVar[list[str]] = []
    seen: ClassVar[set[int]] = set()

    async def find_user(self, key: str | None) -> str | None:
        return {"secret of ada": "ada"}.get(key or "")

    async def may_read(self, user: str | None, number: int) -> bool:
        return user is not None and number < len(self.orders)

    async def add(self, order: str) -> int:
        self.orders.append(order)
        return len(self.orders) - 1

    async def mark_seen(self, number: int) -> None:
        self.seen.add(number)


@asynccontextmanager
async def open_session() -> AsyncIterator[Session]:
    Session.open += 1
    Session.most = max(Session.most, Session.open)
    try:
        yield Session()
    finally:
        Session.open -= 1


async def get_session() -> AsyncIterator[Session]:
    async with open_session() as session:
        yield session


Database = Annotated[Session, Depends(get_session, scope="function")]
Tab = Annotated[ClientProcess, Depends(comet.process)]


@comet.identify
async def find_user(connection: HTTPConnection) -> str | None:
    async with open_session() as session:  # there are no dependencies here
        return await session.find_user(connection.cookies.get("key"))


async def may_follow(connection: HTTPConnection, number: int) -> bool:
    async with open_session() as session:
        user = await session.find_user(connection.cookies.get("key"))
        return await session.may_read(user, number)


@comet.channel("order:{number}", authorize=may_follow)
async def states(number: int) -> AsyncIterator[str]:
    async with open_session() as session:
        state = f"{session.orders[number]}: received"
    yield state  # outside of the session: a source lasts as long as it has listeners
    await sleep_forever()


@comet.channel("receipts", scope=CLIENT_PROCESS)
async def receipts(process: ClientProcess) -> AsyncIterator[str]:
    await sleep_forever()
    yield ""


@app.post("/orders")
async def order(what: str, tab: Tab, database: Database, later: BackgroundTasks) -> int:
    number = await database.add(what)
    delivery = receipts.publish(f"order {number}: {what}", tab)
    later.add_task(wait_for, delivery, number)
    return number


async def wait_for(delivery: Delivery, number: int) -> None:
    if await delivery is Outcome.SUCCESS:  # this may take seconds, without an open session
        async with open_session() as session:
            await session.mark_seen(number)
