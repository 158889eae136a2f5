"""The users of the demo: Alice and Bob, without passwords.

Owns the application's own cookie, which holds the user's name. `comet` has its own cookie, knows
nothing of this one, and calls `who`: so users stay logged in when the server restarts (with the
same `DEMO_SECRET_KEY`).
"""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from examples.fastapi_app.push import SECRET_KEY, comet

COOKIE = "demo_user"
"""The cookie also exists after a logout."""

DAYS = 30
"""How long a user stays logged in."""

signed = URLSafeTimedSerializer(SECRET_KEY, salt="user of the demo")
router = APIRouter()


class User(StrEnum):
    """The users."""

    ALICE = "alice"
    BOB = "bob"


class Login(BaseModel):
    """The name that a user logs in with; a real application asks for a password."""

    user: User


@comet.identify
async def who(connection: HTTPConnection) -> User | None:
    """Return the user of a request, or of a connection of comet; `None` for a visitor."""
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
    """Log this browser in; its other tabs are notified."""
    remember(response, new.user)
    comet.login(new.user)


@router.post("/logout", status_code=204)
async def logout(response: Response) -> None:
    """Log this browser out; the client processes of its tabs close."""
    remember(response, None)
    comet.logout()


def remember(response: Response, user: User | None) -> None:
    """Store the user in the application's cookie; `None` is a visitor."""
    text = signed.dumps(user)
    response.set_cookie(COOKIE, text, max_age=DAYS * 86400, httponly=True, samesite="lax")
