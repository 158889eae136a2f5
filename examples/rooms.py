"""Rooms that only their members may read:

uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.rooms:app
"""

import os
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated

from anyio import sleep
from fastapi import Body, FastAPI, HTTPException, Request
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

from asgi_comet import Comet, CometMiddleware

KEY = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)
comet = Comet(KEY)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)
app.add_middleware(SessionMiddleware, secret_key=KEY)  # later: around it, so it knows the session

# Stands for your database.
MEMBERS: dict[str, set[str]] = {"kitchen": {"ada", "bob"}, "cellar": {"ada"}}


@comet.identify
def find_user(connection: HTTPConnection) -> str | None:
    user: str | None = connection.session.get("user")
    return user


def may_enter(connection: HTTPConnection, room: str) -> bool:
    return find_user(connection) in MEMBERS.get(room, ())


@comet.channel("room:{room}", authorize=may_enter)
async def talk(room: str) -> AsyncIterator[str]:
    """The talk of a room, and the time every hour, while the room has listeners."""
    print(room, "is lit")
    try:
        while True:
            yield time.strftime("It is %H:%M.")
            await sleep(3600)
    finally:
        print(room, "is dark")


@app.post("/rooms/{room}")
def say(room: str, text: Annotated[str, Body()], request: Request) -> None:
    if not may_enter(request, room):
        raise HTTPException(403)
    talk.publish(text, room=room)


@app.delete("/rooms/{room}/members/{member}")
def show_out(room: str, member: str, request: Request) -> None:
    if not may_enter(request, room):
        raise HTTPException(403)
    MEMBERS[room].discard(member)  # first: the client subscribes again at once
    comet.revoke(f"room:{room}", user=member)


@app.post("/login/{user}")
def login(user: str, request: Request) -> None:
    request.session["user"] = user  # once you know that it is true
    comet.login(user)
