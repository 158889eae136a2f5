"""The channels of one tab: its name, and its job.

Owns the channels of a client process: `~me`, as long as the tab is open, and `~job`, as long as
the job runs. Knows nothing of the page.
"""

import random
from collections.abc import AsyncIterator

from anyio import sleep, to_thread
from fastapi import APIRouter
from pydantic import BaseModel

from asgi_comet import Channel, ClientProcess
from examples.fastapi_app.push import Process, comet
from examples.fastapi_app.store import Kept, changes

STEPS = 50
"""Messages of one job."""

PACE = 0.12
"""Seconds between two of them."""

DARTS = 4000
"""Darts thrown for each; the page draws the first `SHOWN`."""

SHOWN = 12


class Me(BaseModel):
    """The name of a tab: the beginning of its identifier suffices."""

    session: str
    process: str
    tabs: int
    """Open tabs of this browser."""


class Progress(BaseModel):
    """The progress of a job."""

    tab: str
    """The beginning of the client process whose job it is."""
    percent: int
    darts: int
    pi: float
    shown: list[tuple[float, float]]


class Tabs(BaseModel):
    """The open tabs: their client processes, and the sessions of these."""

    sessions: dict[str, str] = {}


router = APIRouter()
tabs = Kept(Tabs())


@comet.unlimited("me")
async def me(process: ClientProcess) -> AsyncIterator[Me]:
    """Yield the name of a tab. Read on demand: a tab that reconnects gets the current state."""
    told = None
    while not process.closed:
        now = look(process)
        if now != told:
            told = now
            yield now
        else:
            await changes.wait()


def look(process: ClientProcess) -> Me:
    """Count a tab, and return its name."""
    session = process.session.id
    sessions = tabs.read().sessions
    if sessions.get(process.id) != session:
        with tabs.change() as now:
            now.sessions[process.id] = session
        sessions = now.sessions
    count = [*sessions.values()].count(session)
    return Me(session=session[:6], process=process.id[:6], tabs=count)


@comet.on_process_close
async def forget(process: str) -> None:
    """Count a tab no more; called in one worker."""
    with tabs.change() as now:
        now.sessions.pop(process, None)


@router.post("/me")
async def introduce(process: Process) -> Channel[Me]:
    """Tell a tab whose client process is a new one where it is told who it is."""
    return me.channel(process)


@router.post("/job", status_code=201)
async def start_job(process: Process) -> Channel[Progress]:
    """Start a job; only this tab gets its progress."""
    source = throw_darts(process.id[:6])
    return comet.create(source, name="job", type=Progress)


async def throw_darts(tab: str) -> AsyncIterator[Progress]:
    """Throw darts at a disc in a square: the share that hits it is a quarter of pi."""
    inside = 0
    for step in range(1, STEPS + 1):
        hits, shown = await to_thread.run_sync(throw)
        inside += hits
        darts = step * DARTS
        yield Progress(
            tab=tab, percent=100 * step // STEPS, darts=darts, pi=4 * inside / darts, shown=shown
        )
        await sleep(PACE)


def throw() -> tuple[int, list[tuple[float, float]]]:
    """Throw some darts; return how many hit, and where the first of them went."""
    points = random.choices(range(-1000, 1001), k=2 * DARTS)  # noqa: S311 - a game, no secret
    darts = list(zip(points[::2], points[1::2], strict=True))
    hits = sum(x * x + y * y <= 1_000_000 for x, y in darts)
    return hits, [(x / 1000, y / 1000) for x, y in darts[:SHOWN]]
