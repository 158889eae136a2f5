"""Rooms as pages that follow with htmx, without a script of their own.

    npm install htmx.org
    uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.htmx:app
    curl -H 'Content-Type: text/plain' -d 'Hello' http://127.0.0.1:8000/rooms/kitchen

`render` makes the HTML of a message, for the page and for the channel alike, and escapes what
people wrote. Each item has an id, so a message that is in the page already is not shown twice.
"""

import os
import secrets
from collections import deque
from itertools import count
from pathlib import Path
from typing import Annotated, Literal, get_args

from fastapi import Body, FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from markupsafe import Markup
from pydantic import BaseModel

from asgi_comet import Comet, CometMiddleware

Room = Literal["kitchen", "cellar"]


class Message(BaseModel):
    id: int
    text: str


def render(message: Message) -> Markup:
    # `format` of a Markup escapes what it puts in, as a template of Jinja does.
    return Markup('<li id="m{}">{}</li>').format(message.id, message.text)


comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
rooms = comet.family("room:{room}", type=Message, render=render)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)

# Stands for your database.
posted: dict[Room, deque[Message]] = {room: deque(maxlen=100) for room in get_args(Room)}
ids = count(1)

PAGE = Markup("""<!doctype html>
<title>A room by htmx</title>
<script src="/scripts/htmx.min.js"></script>
<script src="/comet/htmx.js"></script>
<body hx-ext="comet">
<ul comet-url="{url}" comet-channel="{channel}" comet-from="{position}" hx-swap="beforeend">
{messages}
</ul>
</body>
""")


async def read_latest(room: Room) -> list[Message]:
    return list(posted[room])


@app.get("/rooms/{room}", response_class=HTMLResponse)
async def page(room: Room) -> str:
    reference = rooms.channel(room=room).reference()  # 1. from here on nothing is missed
    messages = await read_latest(room)  # 2. what was before
    return PAGE.format(**reference, messages=Markup("").join(map(render, messages)))


@app.post("/rooms/{room}", status_code=204)
async def post(room: Room, text: Annotated[str, Body(media_type="text/plain")]) -> None:
    message = Message(id=next(ids), text=text)
    posted[room].append(message)
    rooms.publish(message, room=room)  # after it is stored: a page that is told can also read it


MODULES = Path(os.environ.get("NODE_MODULES", "node_modules"))


@app.get("/scripts/htmx.min.js")
def script() -> FileResponse:
    return FileResponse(MODULES / "htmx.org/dist/htmx.min.js", media_type="text/javascript")
