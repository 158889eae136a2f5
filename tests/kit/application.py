"""The application that the tests of whole processes serve."""

from __future__ import annotations

import os
from typing import Any

import anyio
from fastapi import BackgroundTasks, FastAPI

from asgi_comet import Channel, Comet, CometMiddleware, Settings
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import feed_of

clock = ManualClock() if "MANUAL_CLOCK" in os.environ else None
comet = Comet("k" * 32, admin="t" * 32, clock=clock, settings=Settings.from_env())
channels = {name: comet.channels.create(name) for name in ("held0", "held1")}
notes = comet.notifier("notes")
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


def mounted() -> FastAPI:
    """Make an application that mounts `comet.app`, without the middleware."""
    application = FastAPI(lifespan=comet.lifespan)
    application.mount("/comet", comet.app)
    return application


@app.get("/listeners")
async def listeners(channel: str = "held0") -> int:
    """Tell how many listen."""
    return channels[channel].listeners


@app.get("/until")
async def until(listeners: int, channel: str = "held0") -> int:
    """Answer once that many listen: it looks at every coming and going."""
    await reach(channels[channel], listeners)
    return listeners


@app.get("/publish")
async def publish(count: int, size: int = 1, channel: str = "held0") -> None:
    """Publish texts of that size that begin with their numbers."""
    for number in range(count):
        channels[channel].publish(str(number).ljust(size, "x"))


@app.get("/advance")
async def advance(seconds: float) -> None:
    """Let time pass, on a clock turned by hand."""
    assert clock is not None
    clock.advance(seconds)


@app.get("/wait")
async def wait(tasks: BackgroundTasks) -> None:
    """Wait for clients in the background, much longer than a server should take to stop."""
    process = comet.open_process()
    notes.listen(1, process)

    async def wait_for_clients() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(comet.wait_timeout, 600, process)
            group.start_soon(notes.notify(1, "x").received, 600)
            group.start_soon(outcome)

    tasks.add_task(wait_for_clients)


async def outcome() -> None:
    """Wait for somebody to have a message."""
    await channels["held0"].publish("x")


@app.get("/pid")
async def pid() -> int:
    """Tell which process this is."""
    return os.getpid()


async def reach(channel: Channel[Any], count: int) -> None:
    """Return once a channel has exactly that many listeners."""
    reached = anyio.Event()

    def observe(listeners: int) -> None:
        if listeners == count:
            reached.set()

    feed = feed_of(channel)
    feed.observers = (*feed.observers, observe)
    try:
        observe(channel.listeners)
        await reached.wait()
    finally:
        feed.observers = tuple(one for one in feed.observers if one is not observe)
