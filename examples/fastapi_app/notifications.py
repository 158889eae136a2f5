"""The notification centre: who is told of what, who has seen it, and a room for members only.

For one tab: `~messages`, the notes on the topics it follows, and `~told`, what happened to its
user's own: who has seen a note, and that something else is as it was no more. For members:
`room:board`, a figure each second.
"""

from collections.abc import AsyncIterator
from secrets import choice

from anyio import sleep
from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.requests import HTTPConnection

from asgi_comet import Channel, ClientProcess, Notification
from examples.fastapi_app.centre import Centre, NewNote, Note, Shown, Topic, View
from examples.fastapi_app.people import KnownUser, User, who
from examples.fastapi_app.push import Process, comet

PATIENCE = (2.0, 20.0)
"""Seconds after which the author is told who has seen a note, if not everybody has before."""

CHANGES = range(-90, 101)
"""By how much what the board has in hand changes in a second."""

router = APIRouter()
centre = Centre()
centre.add(Topic.BOARD, User.ALICE, NewNote(text="Thursday's figures are in the room."))
centre.add(Topic.RELEASES, User.BOB, NewNote(text="0.2 is out, and your patch is in it."))
centre.add(Topic.LUNCH, User.BOB, NewNote(text="The market at noon, Alice?"))


async def prepare(user: User | None, note: Note) -> Shown | None:
    """Make what a user gets of a note; `None`: it is none of that user's business."""
    return centre.show(user, note)


messages = comet.notifier("messages", key=Topic, prepare=prepare)
told = comet.notifier("told", key=User)


def introduce(user: User, process: ClientProcess) -> dict[str, Channel[object]]:
    """Let a new tab of a user hear what that user follows; return its channels."""
    follows = centre.followed(user)
    for topic in Topic:
        channel = messages.listen(topic, process)
        if topic not in follows:  # the channel stays, for what may be followed later
            messages.unlisten(topic, process)
    return {"messages": channel, "told": told.listen(user, process)}


@router.get("/centre")
async def read(user: KnownUser) -> View:
    """All that the page shows."""
    return centre.view(user)


@router.put("/topics/{topic}/followed", status_code=204)
async def follow(topic: Topic, user: KnownUser, process: Process) -> None:
    """Follow a topic, in all of the user's tabs."""
    centre.follow(user, topic, follows=True)
    for tab in told.listeners(user):
        messages.listen(topic, tab)
    tell_change(user, not_for=process)


@router.delete("/topics/{topic}/followed", status_code=204)
async def unfollow(topic: Topic, user: KnownUser, process: Process) -> None:
    """Follow it no more."""
    centre.follow(user, topic, follows=False)
    for tab in told.listeners(user):
        messages.unlisten(topic, tab)
    tell_change(user, not_for=process)


@router.post("/topics/{topic}", status_code=201)
async def write(
    topic: Topic, new: NewNote, user: KnownUser, process: Process, request: Request
) -> Shown | None:
    """Tell all who follow a topic; this tab has the answer."""
    if not centre.may_see(user, topic):
        raise HTTPException(403, "for members only")
    note = centre.add(topic, user, new)
    notification = messages.notify(topic, note, not_for=process)
    request.state.tasks.start_soon(report, note, notification)
    return centre.show(user, note)


async def report(note: Note, notification: Notification) -> None:
    """Tell the author of a note who has seen it, as soon as all have, or else in between."""
    for seconds in PATIENCE:
        receipt = await notification.received(timeout=seconds)
        users = {process.user for process in receipt.acknowledged} - {note.author}
        note.seen_by = [user for user in User if user in users]
        told.notify(note.author, {"seen": {"number": note.number, "by": note.seen_by}})
        if not receipt.missing and not receipt.silent:
            break


def tell_change(user: User, not_for: ClientProcess | None = None) -> None:
    """Let the tabs of a user read the centre again."""
    told.notify(user, {"changed": True}, not_for=not_for)


# The room


async def may_enter(connection: HTTPConnection, topic: Topic) -> bool:
    """Tell whether somebody may read the room of a topic; asked when they subscribe."""
    return centre.may_see(await who(connection), topic)


@comet.newest("room:{topic}", authorize=may_enter)
async def room(topic: Topic) -> AsyncIterator[int]:
    """Yield what a topic has in hand, to members only."""
    cash = 10_000 + 1_000 * len(topic)
    while True:
        yield cash
        await sleep(1)
        cash += choice(CHANGES)


async def chair(user: KnownUser) -> User:
    """Return the user of a request, if that is the chair of the board."""
    if user is not centre.chair:
        raise HTTPException(403, "for the chair only")
    return user


@router.put("/members/{user}", status_code=204, dependencies=[Depends(chair)])
async def admit(user: User) -> None:
    """Let somebody see the board, and its room."""
    centre.members.add(user)
    for one in {user, centre.chair}:
        tell_change(one)


@router.delete("/members/{user}", status_code=204, dependencies=[Depends(chair)])
async def expel(user: User) -> None:
    """Take that away: `may_enter` says no from now on, and what is open ends at once."""
    centre.members.discard(user)
    comet.revoke(room, user=user)
    for one in {user, centre.chair}:
        tell_change(one)
