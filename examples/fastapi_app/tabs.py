"""What belongs to one tab: the line that says who it is, and its job.

Owns the channels of a client process: `~me`, as long as the tab is open, and `~job`, as long as
the job runs. Knows nothing of HTTP or of the page.
"""

import random
from collections.abc import AsyncIterator

from anyio import Event, sleep, to_thread
from pydantic import BaseModel

from asgi_comet import Channel, ClientProcess, Comet

STEPS = 50
"""Messages of one job."""

PACE = 0.12
"""Seconds between two of them."""

DARTS = 4000
"""Darts thrown for each; the page draws the first `SHOWN`."""

SHOWN = 12


class Me(BaseModel):
    """Who a tab is; of an identifier its beginning is enough to tell it from others."""

    session: str
    process: str
    tabs: int
    """Open tabs of this browser."""


class Progress(BaseModel):
    """How far a job is."""

    tab: str
    """The client process whose job it is; the page checks that it is its own."""
    percent: int
    darts: int
    pi: float
    shown: list[tuple[float, float]]


class Tabs:
    """Opens tabs, and tells those of a browser how many they are. Use it from the loop."""

    def __init__(self, comet: Comet) -> None:
        self._comet = comet
        self._changed = Event()

    def open(self) -> dict[str, object]:
        """Open a client process for the current request; return what its page needs to know."""
        process = self._comet.open_process()
        process.on_close(lambda _: self._announce())
        me = self._comet.create_unlimited(self._me(process), name="me", type=Me)
        self._announce()
        return {"process": process.id, "url": process.url, "me": me.reference()}

    def start_job(self) -> dict[str, str]:
        """Start the job of the current client process; return where to follow it.

        Raises:
            NonUniqueChannelName: Its last one still runs.
        """
        process = self._comet.process()
        job: Channel[Progress] = self._comet.create(
            throw_darts(process.id), name="job", type=Progress
        )
        return job.reference()

    async def _me(self, process: ClientProcess) -> AsyncIterator[Me]:
        # Read on demand, so a tab that comes back hears how things are, not how they were.
        told = None
        while True:
            session = process.session
            me = Me(session=session.id[:6], process=process.id[:6], tabs=len(session.processes))
            if me != told:
                told = me
                yield me
            else:
                await self._changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = Event()


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
