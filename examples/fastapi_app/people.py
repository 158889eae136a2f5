"""Who uses the demo: Alice and Bob, who need no password.

Owns the application's own cookie, in which it notes who logged in. `comet` has a cookie of its own,
knows nothing of this one, and asks `who`: so whoever was logged in still is when the server has
been restarted (with the same `DEMO_SECRET_KEY`).
"""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from examples.fastapi_app.push import SECRET_KEY, comet

COOKIE = "demo_user"
"""It is there, too, when somebody has logged out."""

DAYS = 30
"""How long somebody stays logged in."""

signed = URLSafeTimedSerializer(SECRET_KEY, salt="user of the demo")
router = APIRouter()


class User(StrEnum):
    """Who there is."""

    ALICE = "alice"
    BOB = "bob"


class Login(BaseModel):
    """Who somebody says to be; a real application asks for more."""

    user: User


@comet.identify
async def who(connection: HTTPConnection) -> User | None:
    """Tell who a request, or a connection of comet, is of; `None` for a visitor."""
    try:
        return User(signed.loads(connection.cookies.get(COOKIE, ""), max_age=DAYS * 86400))
    except (BadSignature, ValueError):
        return None


async def known(user: Annotated[User | None, Depends(who)]) -> User:
    """Return the user of a request, or refuse it."""
    if user is None:
        raise HTTPException(401, "log in first")
    return user


MaybeUser = Annotated[User | None, Depends(who)]
KnownUser = Annotated[User, Depends(known)]


@router.post("/login", status_code=204)
async def login(new: Login, response: Response) -> None:
    """Log this browser in; its other tabs are told."""
    remember(response, new.user)
    comet.login(new.user)


@router.post("/logout", status_code=204)
async def logout(response: Response) -> None:
    """Let this browser be a visitor's; the client processes of its tabs close."""
    remember(response, None)
    comet.logout()


def remember(response: Response, user: User | None) -> None:
    """Note in the application's cookie who uses the browser; `None` is a visitor."""
    text = signed.dumps(user)
    response.set_cookie(COOKIE, text, max_age=DAYS * 86400, httponly=True, samesite="lax")
