"""Messages pushed to who is there, and mailed to who is not:

uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.notifications:app
"""

import os
import secrets
from typing import Annotated, Any

from fastapi import BackgroundTasks, Body, Depends, FastAPI
from pydantic import BaseModel

from asgi_comet import Channel, ClientProcess, Comet, CometMiddleware, Notification

comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)

Process = Annotated[ClientProcess, Depends(comet.process)]
PATIENCE = 30.0  # seconds until users without the message get an e-mail

# Stand for your database.
FOLLOWERS: dict[int, set[str]] = {1: {"ada", "bob", "eve"}}
BLOCKED: dict[str, set[str]] = {"eve": {"bob"}}  # eve wants to hear nothing of bob


class Message(BaseModel):
    author: str
    text: str


def render(user: str | None, message: Message) -> Message | None:
    """Make what one user gets of a message."""
    if user is None:
        return Message(author="somebody", text="(log in to read it)")
    if message.author in BLOCKED.get(user, ()):
        return None  # nothing
    return message


messages = comet.notifier("messages", key=int, prepare=render)


@app.post("/login/{user}")
def login(user: str) -> None:
    comet.login(user)


@app.post("/threads/{thread}/listen")
def listen(thread: int) -> Channel[Any]:
    return messages.listen(thread)  # the tab that asks; the answer tells it where to subscribe


@app.post("/threads/{thread}/unlisten", status_code=204)
def unlisten(thread: int) -> None:
    messages.unlisten(thread)


@app.post("/threads/{thread}")
def post(thread: int, text: Annotated[str, Body()], tab: Process, later: BackgroundTasks) -> None:
    message = Message(author=tab.user or "a visitor", text=text)
    notification = messages.notify(thread, message, not_for=tab)
    later.add_task(write_to_the_others, thread, message, notification)


async def write_to_the_others(thread: int, message: Message, notification: Notification) -> None:
    receipt = await notification.received(timeout=PATIENCE)
    reached = {process.user for process in receipt.acknowledged}
    for user in FOLLOWERS.get(thread, set()) - reached - {message.author}:
        if render(user, message) is not None:
            send_mail(user, message)


def send_mail(user: str, message: Message) -> None:
    print(f"To {user}: {message.author} wrote {message.text!r}")


@app.post("/threads/{thread}/close")
def close(thread: int) -> None:
    """Say goodbye to each by name, and nothing to visitors."""
    goodbye = "This thread is closed, {}."
    messages.notify(
        thread, lambda user: Message(author="we", text=goodbye.format(user)) if user else None
    )
