"""The channels of one tab: its name, and its job.

Owns the channels of a client process: `~me`, as long as the tab is open, and `~job`, as long as
the job runs. Knows nothing of the page.
"""

import random
from collections.abc import AsyncIterator

from anyio import Event, sleep, to_thread
from fastapi import APIRouter
from pydantic import BaseModel

from asgi_comet import Channel, ClientProcess
from examples.fastapi_app.push import Process, comet

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


class Tabs:
    """Wakes tasks that wait for a tab to open or close. Use it from the loop."""

    def __init__(self) -> None:
        self._changed = Event()

    def announce(self, process: ClientProcess) -> None:
        """Report that a tab has opened or closed."""
        del process
        self._changed.set()
        self._changed = Event()

    async def wait(self) -> None:
        """Wait until a tab opens or closes."""
        await self._changed.wait()


router = APIRouter()
tabs = Tabs()


@comet.unlimited("me")
async def me(process: ClientProcess) -> AsyncIterator[Me]:
    """Yield the name of a tab. Read on demand: a tab that reconnects gets the current state."""
    process.on_close(tabs.announce)
    tabs.announce(process)
    told = None
    while True:
        session = process.session
        now = Me(session=session.id[:6], process=process.id[:6], tabs=len(session.processes))
        if now != told:
            told = now
            yield now
        else:
            await tabs.wait()


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
