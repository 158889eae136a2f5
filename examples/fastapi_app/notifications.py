"""The notification centre: notes on topics, receipts, and a room for members only.

Channels of one tab: `~messages`, the notes on the topics that its user follows, and `~told`, news
for its user: who has seen a note, and that other data has changed. Channel for members:
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
from examples.fastapi_app.store import Kept

PATIENCE = (2.0, 20.0)
"""Seconds after which the author is told who has seen a note, if not all have before."""

CHANGES = range(-90, 101)
"""The largest change of the board's figure in a second."""

router = APIRouter()
first = Centre()
first.add(Topic.BOARD, User.ALICE, NewNote(text="Thursday's figures are in the room."))
first.add(Topic.RELEASES, User.BOB, NewNote(text="0.2 is out, and your patch is in it."))
first.add(Topic.LUNCH, User.BOB, NewNote(text="The market at noon, Alice?"))
centre = Kept(first)


async def prepare(user: User | None, note: Note) -> Shown | None:
    """Make the note for a user; `None` if the user may not see it."""
    return centre.read().show(user, note)


messages = comet.notifier("messages", key=Topic, prepare=prepare)
told = comet.notifier("told", key=User)


def introduce(user: User, process: ClientProcess) -> dict[str, Channel[object]]:
    """Subscribe a new tab of a user to the user's topics; return its channels."""
    follows = centre.read().followed(user)
    for topic in Topic:
        channel = messages.listen(topic, process)
        if topic not in follows:  # the channel stays open, for topics that are followed later
            messages.unlisten(topic, process)
    return {"messages": channel, "told": told.listen(user, process)}


@router.get("/centre")
async def read(user: KnownUser) -> View:
    """The content of the page."""
    return centre.read().view(user)


@router.put("/topics/{topic}/followed", status_code=204)
async def follow(topic: Topic, user: KnownUser, process: Process) -> None:
    """Follow a topic, in all of the user's tabs."""
    with centre.change() as now:
        now.follow(user, topic, follows=True)
    for tab in await told.listeners(user):
        messages.listen(topic, tab)
    tell_change(user, not_for=process)


@router.delete("/topics/{topic}/followed", status_code=204)
async def unfollow(topic: Topic, user: KnownUser, process: Process) -> None:
    """Unfollow a topic, in all of the user's tabs."""
    with centre.change() as now:
        now.follow(user, topic, follows=False)
    for tab in await told.listeners(user):
        messages.unlisten(topic, tab)
    tell_change(user, not_for=process)


@router.post("/topics/{topic}", status_code=201)
async def write(
    topic: Topic, new: NewNote, user: KnownUser, process: Process, request: Request
) -> Shown | None:
    """Notify all followers of a topic, except this tab, which gets the answer."""
    with centre.change() as now:
        if not now.may_see(user, topic):
            raise HTTPException(403, "for members only")
        note = now.add(topic, user, new)
    notification = messages.notify(topic, note, not_for=process)
    request.state.tasks.start_soon(report, note, notification)
    return now.show(user, note)


async def report(note: Note, notification: Notification) -> None:
    """Tell the author who has seen a note, once all have, or after a while."""
    for seconds in PATIENCE:
        receipt = await notification.received(timeout=seconds)
        users = {process.user for process in receipt.acknowledged} - {note.author}
        seen = [user for user in User if user in users]
        with centre.change() as now:
            now.see(note.number, seen)
        told.notify(note.author, {"seen": {"number": note.number, "by": seen}})
        if not receipt.missing and not receipt.silent:
            break


def tell_change(user: User, not_for: ClientProcess | None = None) -> None:
    """Tell the tabs of a user to load the centre again."""
    told.notify(user, {"changed": True}, not_for=not_for)


# The room


async def may_enter(connection: HTTPConnection, topic: Topic) -> bool:
    """Return whether a client may read the room of a topic; called at each subscription."""
    return centre.read().may_see(await who(connection), topic)


@comet.newest("room:{topic}", authorize=may_enter)
async def room(topic: Topic) -> AsyncIterator[int]:
    """Yield the figure of a topic, for members only."""
    cash = 10_000 + 1_000 * len(topic)
    while True:
        yield cash
        await sleep(1)
        cash += choice(CHANGES)


async def chair(user: KnownUser) -> User:
    """Return the user of a request, if that is the chair of the board."""
    if user is not centre.read().chair:
        raise HTTPException(403, "for the chair only")
    return user


@router.put("/members/{user}", status_code=204, dependencies=[Depends(chair)])
async def admit(user: User) -> None:
    """Give a user access to the board and its room."""
    with centre.change() as now:
        now.members.add(user)
    for one in {user, now.chair}:
        tell_change(one)


@router.delete("/members/{user}", status_code=204, dependencies=[Depends(chair)])
async def expel(user: User) -> None:
    """Revoke the access: `may_enter` refuses from now on, and open subscriptions end at once."""
    with centre.change() as now:
        now.members.discard(user)
    comet.revoke(room, user=user)
    for one in {user, now.chair}:
        tell_change(one)
