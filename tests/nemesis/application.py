"""The application that the workers of a run serve: channels, sources, and two publishers in it.

Told by the environment: `NEMESIS_RUN` (a name for this run of this worker), `NEMESIS_BROKER`,
`NEMESIS_DURABLE`, `NEMESIS_JOURNAL` (a file), `NEMESIS_SEED`, `NEMESIS_KINDS`, `NEMESIS_QUIET`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from asgi_comet import SITE, Comet, CometMiddleware, Delivery, Settings
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.errors import BrokerUnavailable, CometError
from tests.nemesis.history import Journal
from tests.nemesis.names import FAILING, MEMBERS, NEWEST, ROOM, SITES, SIZE, SOURCES, burst

HOLD = 5.0  # seconds of a poll
PAUSE = 0.3  # seconds between two values of a source, or two bursts of a publisher
LIFE = 60  # values until the source that fails now and then does

run = os.environ["NEMESIS_RUN"]
journal = Journal(Path(os.environ["NEMESIS_JOURNAL"]))
kinds = os.environ["NEMESIS_KINDS"].split(",")
chance = random.Random(f"{os.environ['NEMESIS_SEED']} {run}")
broker = RedisBroker(os.environ["NEMESIS_BROKER"], durable=bool(os.environ["NEMESIS_DURABLE"]))
comet = Comet("k" * 32, broker=broker, settings=Settings(timeout=HOLD))
generators = itertools.count(1)
loud = threading.Event()
stopping = threading.Event()
if not os.environ["NEMESIS_QUIET"]:
    loud.set()

Publish = Callable[[dict[str, Any]], Delivery]

sites = {name: comet.create(scope=SITE, name=name, size=SIZE) for name in SITES if "site" in kinds}
newest = {name: comet.create_newest(name=name) for name in NEWEST if "newest" in kinds}
rooms = comet.family("room:{room}", size=SIZE)


def declare(name: str) -> None:
    @comet.channel(name, size=SIZE)
    async def values() -> AsyncIterator[dict[str, Any]]:
        fence = f"{run}:{next(generators)}"
        for number in itertools.count(1):
            await asyncio.sleep(PAUSE)
            while not loud.is_set():  # noqa: ASYNC110 - a thread waits for the same event
                await asyncio.sleep(PAUSE)
            if name == FAILING and number % LIFE == 0:
                journal.write("fault", name=f"{name} fails", phase="begin", renews=[name])
                journal.write("fault", name=f"{name} fails", phase="end")
                raise ValueError("as it does now and then")
            yield {"id": f"{name}/{fence}:{number}", "sent": time.monotonic(), "fence": fence}


for source in SOURCES if "source" in kinds else ():
    declare(source)


def publish(channel: str, id_: str) -> Delivery:
    """Publish a message on any channel that is written to."""
    value = {"id": id_, "sent": time.monotonic()}
    if channel in MEMBERS:
        return rooms.publish(value, room=channel.removeprefix(ROOM))
    return ({**sites, **newest}[channel]).publish(value)


async def stored(channel: str, id_: str) -> dict[str, Any]:
    """Publish, and tell what became of it."""
    try:
        return {"position": str(await publish(channel, id_).stored())}
    except CometError as error:
        return told(error)


def told(error: CometError) -> dict[str, Any]:
    maybe = isinstance(error, BrokerUnavailable) and error.maybe_stored
    return {"maybe": maybe, "error": f"{type(error).__name__}: {error}"}


def note(id_: str, outcome: dict[str, Any]) -> None:
    journal.write("ok" if "position" in outcome else "fail", id=id_, **outcome)


async def publish_in_a_task() -> None:
    """Publish in bursts, whose messages wait for one another no more than any others."""
    publisher, numbers = f"task-{run}", itertools.count(1)
    while True:
        await asyncio.sleep(PAUSE * chance.random() * 2)
        if loud.is_set():
            channel, ids = burst(publisher, numbers, kinds, chance)
            async with asyncio.TaskGroup() as tasks:
                for id_ in ids:
                    journal.write("call", channel=channel, id=id_, run=publisher)
                    delivery = attempt(channel, id_)
                    if delivery is not None:
                        tasks.create_task(await_stored(id_, delivery))


def attempt(channel: str, id_: str) -> Delivery | None:
    try:
        return publish(channel, id_)
    except CometError as error:
        note(id_, told(error))
        return None


async def await_stored(id_: str, delivery: Delivery) -> None:
    try:
        note(id_, {"position": str(await delivery.stored())})
    except CometError as error:
        note(id_, told(error))


def publish_in_a_thread(loop: asyncio.AbstractEventLoop) -> None:
    """Publish one by one."""
    publisher, numbers = f"thread-{run}", itertools.count(1)
    while not stopping.wait(PAUSE * chance.random() * 2):
        if loud.is_set():
            channel, ids = burst(publisher, numbers, kinds, chance)
            for id_ in ids:
                journal.write("call", channel=channel, id=id_, run=publisher)
                delivery = attempt(channel, id_)
                if delivery is not None and not stopping.is_set():
                    asyncio.run_coroutine_threadsafe(await_stored(id_, delivery), loop)


def end_with_the_run() -> None:
    """End with the process that has started this one: its end of the pipe closes."""
    sys.stdin.buffer.read()
    os._exit(1)


@asynccontextmanager
async def publishing(application: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(publish_in_a_task())
    loop = asyncio.get_running_loop()
    thread = threading.Thread(target=publish_in_a_thread, args=(loop,), daemon=True)
    thread.start()
    threading.Thread(target=end_with_the_run, daemon=True).start()
    yield
    task.cancel()
    stopping.set()
    await asyncio.to_thread(thread.join)


class Burst(BaseModel):
    """What an HTTP publisher asks for."""

    channel: str
    ids: list[str]


app = FastAPI(lifespan=publishing)
app.add_middleware(CometMiddleware, comet=comet)


@app.post("/publish")
async def publish_all(asked: Burst) -> list[dict[str, Any]]:
    """Publish in order, and tell the position of each, or why it has none."""
    async with asyncio.TaskGroup() as tasks:
        found = [tasks.create_task(stored(asked.channel, id_)) for id_ in asked.ids]
    return [one.result() for one in found]


@app.post("/loud")
async def be_loud(on: bool) -> None:
    """Begin or cease to publish."""
    (loud.set if on else loud.clear)()
