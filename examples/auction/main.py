"""An auction house, in a few small files:

    pip install asgi-comet fastapi itsdangerous jinja2 uvicorn websockets
    npm install htmx.org
    uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.auction.main:app

Open http://127.0.0.1:8000 as Ada, and in a private window as Bob. A room is read by its members
only (`people.py`). Messages and bids are stored in a database (`store.py`) and then published to
the room (`push.py`); outbid users are notified in all their tabs; an appraisal reports its progress
to the tab that started it. `static/room.js` is the page of a room, `templates/board.html` the
same room by htmx.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from anyio import sleep
from fastapi import Body, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.sessions import SessionMiddleware

from asgi_comet import Channel, CometMiddleware
from examples.auction import people, store
from examples.auction.people import LOTS, MEMBERS, SECRET_KEY, Member, comet, who
from examples.auction.push import Outbid, arrive, here, inbox, rooms, templates

app = FastAPI(title="An auction house")
app.add_middleware(CometMiddleware, comet=comet)
app.add_middleware(SessionMiddleware, secret_key=SECRET_KEY)  # later: around it
app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
app.include_router(people.router)

HTMX = Path(os.environ.get("NODE_MODULES", "node_modules")) / "htmx.org/dist/htmx.min.js"
NO_STORE = {"Cache-Control": "no-store"}  # each tab has a client process of its own
PACE = 0.2  # seconds between two steps of an appraisal


@app.get("/")
def lobby(request: Request) -> Response:
    return templates.TemplateResponse(
        request, "lobby.html", {"user": who(request), "lots": LOTS, "members": MEMBERS}
    )


@app.get("/rooms/{room}")
def show_room(request: Request, room: int, user: Member) -> Response:
    tab = comet.open_process()
    script = comet.script(  # from here on this tab misses no message
        tab, room=rooms.channel(room=room), inbox=inbox.channel(user=user), here=here.channel(tab)
    )
    arrive(room, tab)
    values = {"user": user, "room": room, "lot": LOTS[room], "comet": script}
    return templates.TemplateResponse(request, "room.html", values, headers=NO_STORE)


@app.get("/rooms/{room}/history")
def history(room: int, user: Member) -> store.History:
    return store.read_history(room)


@app.post("/rooms/{room}/said", status_code=201)
def say(room: int, user: Member, text: Annotated[str, Body(max_length=280)]) -> store.Said:
    said = store.add_said(room, user, text)
    rooms.publish(said, room=room)  # after the commit: a page that is told can also read it
    return said


@app.post("/rooms/{room}/bids", status_code=201)
def place_bid(room: int, user: Member, amount: Annotated[int, Body(gt=0)]) -> store.Bid:
    try:
        bid, before = store.add_bid(room, user, amount)
    except store.TooLow:
        raise HTTPException(409, "There is a bid that is as high.") from None
    rooms.publish(bid, room=room)
    if before is not None and before.user != user:
        inbox.publish(Outbid(lot=LOTS[room], amount=amount), user=before.user)
    return bid


@app.post("/rooms/{room}/appraisal")
def start_appraisal(room: int, user: Member) -> Channel[int]:
    return comet.create(appraise())  # for the tab that asks


async def appraise() -> AsyncIterator[int]:
    """Tell how many percent are done."""
    for percent in range(0, 101, 5):
        yield percent
        await sleep(PACE)


@app.get("/rooms/{room}/board")
def show_board(request: Request, room: int, user: Member) -> Response:
    channel = rooms.channel(room=room).reference()  # first, and then the database
    entries = store.read_history(room).entries
    values = {"room": room, "lot": LOTS[room], "channel": channel, "entries": entries}
    return templates.TemplateResponse(request, "board.html", values, headers=NO_STORE)


@app.get("/htmx.js")
def htmx() -> FileResponse:
    return FileResponse(HTMX, media_type="text/javascript")
