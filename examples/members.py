"""Rooms that only their members may read, with a login:

uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.members:app
"""

import os
import secrets

from fastapi import FastAPI, HTTPException, Request
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

from asgi_comet import Comet, CometMiddleware

KEY = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)
MEMBERS = {"kitchen": {"ada", "bob"}, "cellar": {"ada"}}  # stands for your database
comet = Comet(KEY)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)
app.add_middleware(SessionMiddleware, secret_key=KEY)  # later: around it, so it knows the session


@comet.identify
def find_user(connection: HTTPConnection) -> str | None:
    user: str | None = connection.session.get("user")
    return user


def may_enter(connection: HTTPConnection, room: str) -> bool:
    return find_user(connection) in MEMBERS.get(room, ())


rooms = comet.family("room:{room}", type=str, authorize=may_enter)


@app.post("/login/{user}")
def login(user: str, request: Request) -> None:
    request.session["user"] = user  # after you have checked the password
    comet.login(user)


@app.post("/rooms/{room}")
def say(room: str, text: str, request: Request) -> None:
    if not may_enter(request, room):
        raise HTTPException(403)
    rooms.publish(text, room=room)
