"""The application that the workers of a run serve: channels, sources, and two publishers in it.

Told by the environment: `NEMESIS_RUN` (a name for this run of this worker), `NEMESIS_BROKER` (empty
for memory), `NEMESIS_DURABLE`, `NEMESIS_JOURNAL` (a file), `NEMESIS_SEED`, `NEMESIS_KINDS`,
`NEMESIS_QUIET`, `NEMESIS_FAILS`, `NEMESIS_PAUSE` (seconds), `NEMESIS_PEOPLE` (a folder for rights;
empty for a site without pages), `NEMESIS_NOTIFIERS`, `NEMESIS_HURRIES` (copies of pages
are forgotten after seconds, not a minute).
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
from starlette.requests import HTTPConnection

from asgi_comet import SITE, Channel, Comet, CometMiddleware, Delivery, Settings
from asgi_comet.brokers.redis import caretaker, presence, readings
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.errors import CometError
from asgi_comet.identity import used
from tests.nemesis.history import Journal
from tests.nemesis.names import (
    ADMIN,
    FAILING,
    GUARDED,
    MEMBERS,
    NEVER_CONNECTED,
    NEWEST,
    PROCESS_TIMEOUT,
    ROOM,
    SITES,
    SIZE,
    SOURCES,
    burst,
)
from tests.nemesis.pages import Pages
from tests.nemesis.telling import Teller, why

HOLD = 5.0  # seconds of a poll
HURRIED = 10.0  # seconds between two looks for copies that are not needed any more
LIFE = 60  # values until the source that fails now and then does
FAILURES = 4  # of that source: the pause before it starts again doubles

run = os.environ["NEMESIS_RUN"]
journal = Journal(Path(os.environ["NEMESIS_JOURNAL"]))
kinds = os.environ["NEMESIS_KINDS"].split(",")
pause = float(os.environ["NEMESIS_PAUSE"])  # between two values of a source, or two bursts
chance = random.Random(f"{os.environ['NEMESIS_SEED']} {run}")
fails = bool(os.environ["NEMESIS_FAILS"])
rights = os.environ["NEMESIS_PEOPLE"]
notifies = bool(os.environ["NEMESIS_NOTIFIERS"])
url = os.environ["NEMESIS_BROKER"]
broker = RedisBroker(url, durable=bool(os.environ["NEMESIS_DURABLE"])) if url else None
if os.environ["NEMESIS_HURRIES"]:
    presence.TOUCH = HURRIED
settings = Settings(timeout=HOLD, process_timeout=PROCESS_TIMEOUT)
comet = Comet("k" * 32, broker=broker, admin=ADMIN, settings=settings)
teller = Teller(journal)
generators = itertools.count(1)
failures = itertools.count(1)
loud = threading.Event()
stopping = threading.Event()
if not os.environ["NEMESIS_QUIET"]:
    loud.set()
assert PROCESS_TIMEOUT > NEVER_CONNECTED

Publish = Callable[[dict[str, Any]], Delivery]


@comet.guard
def admits(connection: HTTPConnection) -> bool:
    """Admit visitors, and users whose right was not taken away."""
    session = comet.session() if rights else None
    user = None if session is None else session.user
    return user is None or not (Path(rights) / str(user)).exists()


def make(names: list[str], kind: str, **more: Any) -> dict[str, Channel[Any]]:
    made = names if kind in kinds else []
    return {name: comet.create(scope=SITE, name=name, size=SIZE, **more) for name in made}


sites = {**make(SITES, "site"), **make(GUARDED, "guarded", authorize=admits)}
newest = {name: comet.create_newest(name=name) for name in NEWEST if "newest" in kinds}
rooms = comet.family("room:{room}", size=SIZE)


def declare(name: str) -> None:
    @comet.channel(name, size=SIZE)
    async def values() -> AsyncIterator[dict[str, Any]]:
        fence = f"{run}:{next(generators)}"
        for number in itertools.count(1):
            await asyncio.sleep(pause)
            while not loud.is_set():  # noqa: ASYNC110 - a thread waits for the same event
                await asyncio.sleep(pause)
            if fails and name == FAILING and number % LIFE == 0 and next(failures) <= FAILURES:
                about = {"renews": [name], "loses": broker is None}
                journal.write("fault", name=f"{name} fails", phase="begin", **about)
                journal.write("fault", name=f"{name} fails", phase="end")
                raise ValueError("as it does now and then")
            yield {"id": f"{name}/{fence}:{number}", "sent": time.monotonic(), "fence": fence}


for source in SOURCES if "source" in kinds else ():
    declare(source)


def publish(channel: str, id_: str) -> Delivery:
    """Publish a message on any channel that is written to."""
    value = {"id": id_, "sent": time.monotonic()}
    if pages is not None and channel in pages.channels:
        return pages.channels[channel].publish(value)
    if channel in MEMBERS:
        return rooms.publish(value, room=channel.removeprefix(ROOM))
    return ({**sites, **newest}[channel]).publish(value)


async def stored(channel: str, id_: str) -> dict[str, Any]:
    """Publish, and tell what became of it."""
    try:
        return {"position": str(await publish(channel, id_).stored())}
    except (CometError, KeyError) as error:  # another worker has opened the page
        return why(error)


def choose_burst(publisher: str, numbers: itertools.count[int]) -> tuple[str, list[str]]:
    """Choose a channel of the site, or of a page that was opened here; maybe notify as well."""
    if pages is not None:
        if notifies:
            pages.notify_sometimes(publisher)
        own = pages.burst(publisher, numbers)
        if own is not None:
            return own
    return burst(publisher, numbers, kinds, chance)


async def publish_in_a_task() -> None:
    """Publish in bursts, whose messages wait for one another no more than any others."""
    publisher, numbers = f"task-{run}", itertools.count(1)
    async with asyncio.TaskGroup() as tasks:
        while True:
            await asyncio.sleep(pause * chance.random() * 2)
            if loud.is_set():
                channel, ids = choose_burst(publisher, numbers)
                for id_ in ids:
                    journal.write("call", channel=channel, id=id_, run=publisher)
                    delivery = attempt(channel, id_)
                    if delivery is not None:
                        tasks.create_task(teller.await_stored(id_, delivery))


def attempt(channel: str, id_: str) -> Delivery | None:
    try:
        return publish(channel, id_)
    except (CometError, KeyError) as error:  # the page has just closed
        teller.note(id_, why(error))
        return None


def publish_in_a_thread(loop: asyncio.AbstractEventLoop) -> None:
    """Publish one by one."""
    publisher, numbers = f"thread-{run}", itertools.count(1)
    while not stopping.wait(pause * chance.random() * 2):
        if loud.is_set():
            channel, ids = choose_burst(publisher, numbers)
            for id_ in ids:
                journal.write("call", channel=channel, id=id_, run=publisher)
                delivery = attempt(channel, id_)
                if delivery is not None and not stopping.is_set():
                    asyncio.run_coroutine_threadsafe(teller.await_stored(id_, delivery), loop)


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
pages = Pages(comet, teller, run, Path(rights), chance) if rights else None
if pages is not None:
    app.include_router(pages.router)
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


@app.post("/hurry")
async def hurry() -> None:
    """Keep nothing for clients that may come back, and no channel for workers that may."""
    readings.KEPT = presence.LEFT = used.KEPT = 0.0
    caretaker.SETTLED = 0


@app.post("/runtime")
async def make_from_an_iterator(name: str) -> str:
    """Make a channel of the site from an iterator that only this worker has."""

    async def values() -> AsyncIterator[dict[str, Any]]:
        for number in itertools.count(1):
            await asyncio.sleep(pause)
            yield {"id": f"{name}/{run}:{number}", "sent": time.monotonic(), "fence": run}

    runtime[name] = comet.create(values(), scope=SITE, name=name, size=SIZE)
    return name


runtime: dict[str, Any] = {}
"""Channels of iterators, which are kept until the worker stops."""
