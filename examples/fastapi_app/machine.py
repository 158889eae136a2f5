"""The machine that serves the demo: its figures each second, and how late its event loop is."""

import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from anyio import sleep, to_thread

from asgi_comet import SITE, Channel
from examples.fastapi_app.figures import CHANNELS, UNREADABLE, Sample, figures, take_sample
from examples.fastapi_app.push import comet
from examples.fastapi_app.wall import wall

logger = logging.getLogger(__name__)

MINUTE = 60
"""Figures that are kept: a new page shows the last minute at once."""

INTERVAL = 1.0
"""Seconds between two figures."""

channels: dict[str, Channel[dict[str, Any]]] = {
    name: comet.create(scope=SITE, name=name, size=MINUTE) for name in CHANNELS
}


def publish(before: Sample, now: Sample) -> None:
    """Publish the figures of all channels in the same instant."""
    for name, figure in figures(before, now, posts=wall.read().latest).items():
        channels[name].publish(figure)


@comet.channel("figures")
async def one_worker() -> AsyncIterator[None]:
    """Publish the figures of the machine in one worker: the one that reads this source."""
    await publish_figures()
    yield  # never; it makes this a source


async def publish_figures() -> None:
    """Publish the figures of each interval, until cancelled."""
    before = await measure()
    while True:
        await sleep(INTERVAL)
        now = await measure()
        if before and now:
            publish(before, now)
        before = now


async def measure() -> Sample | None:
    """Take a sample in a thread; `None`, with a line in the log, if that fails."""
    try:
        return await to_thread.run_sync(take_sample)
    except UNREADABLE:
        logger.exception("no figures this time")
        return None


@comet.newest("lateness")
async def lateness() -> AsyncIterator[float]:
    """Yield the longest delay of the loop, in ms."""
    while True:
        yield max([await oversleep(0.05) for _ in range(10)])


async def oversleep(seconds: float) -> float:
    """Sleep, and return how many milliseconds too long the sleep was."""
    asleep = time.perf_counter()
    await sleep(seconds)
    return round(1000 * (time.perf_counter() - asleep - seconds), 3)
