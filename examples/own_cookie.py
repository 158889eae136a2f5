"""A login with a cookie of your own, signed by itsdangerous:

uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.own_cookie:app
"""

import os
import secrets

from fastapi import FastAPI, Response
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import HTTPConnection

from asgi_comet import Comet, CometMiddleware

KEY = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)
comet = Comet(KEY)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)

WEEK = 7 * 24 * 3600
signer = URLSafeTimedSerializer(KEY, salt="login")


@comet.identify
def find_user(connection: HTTPConnection) -> str | None:
    try:
        user: str = signer.loads(connection.cookies.get("login", ""), max_age=WEEK)
    except BadData:  # there is no cookie, or it is forged or too old
        return None
    return user


@app.post("/login/{user}")
def login(user: str, response: Response) -> None:
    token = signer.dumps(user)  # after you have checked the password
    response.set_cookie("login", token, max_age=WEEK, httponly=True, samesite="lax")
    comet.login(user)


@app.post("/logout")
def logout(response: Response) -> None:
    response.delete_cookie("login")
    comet.logout()
