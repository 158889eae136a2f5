"""The logged-in user, and the members of each room."""

import os
import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import RedirectResponse
from starlette.requests import HTTPConnection

from asgi_comet import Comet

# Both stand for your database.
LOTS: dict[int, str] = {1: "A brass sextant, about 1810", 2: "The log of a whaler"}
MEMBERS: dict[int, set[str]] = {1: {"ada", "bob"}, 2: {"ada", "eve"}}

SECRET_KEY = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)
comet = Comet(SECRET_KEY)
router = APIRouter()


@comet.identify
def who(connection: HTTPConnection) -> str | None:
    user: str | None = connection.session.get("user")
    return user


def is_member(connection: HTTPConnection, room: int) -> bool:
    return who(connection) in MEMBERS.get(room, ())


def is_self(connection: HTTPConnection, user: str) -> bool:
    return who(connection) == user


def enter(request: Request, room: int) -> str:
    user = who(request)
    if user is None or not is_member(request, room):
        raise HTTPException(403, "This room is for its members.")
    return user


Member = Annotated[str, Depends(enter)]
"""The user of a request to a room; others get 403."""


@router.post("/login/{user}")
def login(user: str, request: Request) -> RedirectResponse:
    request.session["user"] = user  # once you have checked a password
    comet.login(user)
    return RedirectResponse("/", 303)


@router.post("/logout")
def logout(request: Request) -> RedirectResponse:
    request.session.clear()
    comet.logout()
    return RedirectResponse("/", 303)
