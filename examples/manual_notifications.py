"""Notifications without a notifier:

uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.manual_notifications:app
"""

import os
import secrets
from contextlib import suppress
from typing import Annotated

from fastapi import Body, FastAPI

from asgi_comet import (
    Channel,
    ChannelClosed,
    ChannelFull,
    ClientProcess,
    Comet,
    CometMiddleware,
    ProcessClosed,
    ProcessLocal,
)

comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


def make_inbox(process: ClientProcess) -> Channel[str]:
    return comet.create(scope=process, name="inbox", type=str)


inboxes = ProcessLocal(make_inbox)  # one for each tab, made when it is first asked for


@app.post("/login/{user}")
def login(user: str) -> None:
    comet.login(user)


@app.post("/start")
def start() -> Channel[str]:
    return inboxes.get()  # that of the tab that asks; the answer tells it where to subscribe


@app.post("/notify/{user}")
def notify(user: str, text: Annotated[str, Body()]) -> None:
    for session in comet.sessions(user=user):  # the user's browsers
        for process in session.processes:  # and their tabs
            with suppress(ProcessClosed, ChannelClosed, ChannelFull):
                inboxes.get(process).publish(text)
