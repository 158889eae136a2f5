"""Pushes: to the members of a room, to all tabs of a user, and to all present users."""

from pathlib import Path
from typing import Literal

from fastapi.templating import Jinja2Templates
from pydantic import BaseModel

from asgi_comet import ClientProcess
from examples.auction.people import comet, is_member, is_self
from examples.auction.store import Entry

templates = Jinja2Templates(Path(__file__).parent / "templates")


class Outbid(BaseModel):
    type: Literal["outbid"] = "outbid"
    lot: str
    amount: int


def render(entry: Entry) -> str:
    """Return an entry as HTML; the template escapes the texts of users."""
    return templates.get_template("entry.html").render(entry=entry)


rooms = comet.family("room:{room}", type=Entry, authorize=is_member, render=render)
inbox = comet.family("user:{user}", type=Outbid, authorize=is_self)
here = comet.notifier("here", key=int)  # the key is the room


def tell_who_is_here(room: int) -> None:
    users = {tab.user for tab in here.listeners(room) if tab.user}
    here.notify(room, sorted(users))


def arrive(room: int, tab: ClientProcess) -> None:
    """Count a tab as present until it closes."""
    here.listen(room, tab)
    tab.on_close(lambda _: tell_who_is_here(room))
    tell_who_is_here(room)
