"""The pages of the application: client processes, users, rights and notifiers.

A page is opened with two channels that the application writes to, and listens on keys of notifiers.
Its two channels are written to by the worker that opened it, for only there are their objects;
notifiers reach it from every worker.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from asgi_comet import CLIENT_PROCESS, Channel, ClientProcess, Comet, Delivery, Notifier
from asgi_comet.errors import CometError
from asgi_comet.testing import _inspect, _inspect_redis
from tests.nemesis.names import (
    FEED,
    GUARDED,
    NOTIFIERS,
    OWN,
    SIZE,
    STEPS,
    TOPICS,
    ids_of,
    own_channels,
    told,
)
from tests.nemesis.telling import Teller, why

OFTEN = 0.5  # the share of bursts that are on a channel of a page
NOTIFIES = 0.15  # the share of bursts before which a notifier tells something
RECEIPTS = 0.2  # the share of notifications whose receipt is awaited
RECEIVED = 8.0  # seconds until a receipt
VALUES = 0.5  # seconds between two values of a declared channel of a page
CHUNK, GAP = 50, 0.005  # messages of a long burst at once, and seconds until the next ones


class Asked(BaseModel):
    """A page that is to be opened: the keys that it listens on, by notifier."""

    topics: dict[str, str]


class User(BaseModel):
    user: str


class Long(BaseModel):
    """A long burst."""

    channel: str
    count: int


class Pages:
    """The pages that one worker knows.

    Args:
        comet: The `Comet`.
        teller: Writes down what becomes of messages.
        run: The name of this run of the worker.
        rights: A folder that all workers share: a file for each user without the right to read.
        chance: What it chooses by.

    Attributes:
        channels: The channels of the pages that were opened here, as the history calls them.
    """

    def __init__(
        self, comet: Comet, teller: Teller, run: str, rights: Path, chance: random.Random
    ) -> None:
        self.channels: dict[str, Channel[Any]] = {}
        self.router = APIRouter()
        self._comet = comet
        self._teller = teller
        self._run = run
        self._rights = rights
        self._chance = chance
        self._generators = itertools.count(1)
        self._numbers = itertools.count(1)
        self._notifiers: dict[str, Notifier[str]] = {
            name: comet.notifier(name, key=str) for name in NOTIFIERS
        }
        self._waiting: set[asyncio.Task[None]] = set()
        comet.channel(FEED, scope=CLIENT_PROCESS, size=SIZE)(self._values(FEED))
        comet.unlimited(STEPS)(self._values(STEPS))
        for path in ("page", "login", "logout", "revoke", "grant", "long", "notify"):
            self.router.post(f"/{path}")(getattr(self, path))
        self.router.get("/tables")(self.tables)

    # Publishers of the worker

    def burst(self, publisher: str, numbers: itertools.count[int]) -> tuple[str, list[str]] | None:
        """Choose a channel of a page, and the ids of what is published on it at once."""
        own = list(self.channels)
        if not own or self._chance.random() > OFTEN:
            return None
        return self._chance.choice(own), ids_of(publisher, numbers, self._chance.choice([1, 2, 5]))

    def notify_sometimes(self, publisher: str) -> None:
        if self._chance.random() < NOTIFIES:
            self._tell(f"notify-{publisher}", self._chance.choice(NOTIFIERS))

    def _tell(self, publisher: str, name: str) -> Any:
        id_ = f"{publisher}-{name}:{next(self._numbers)}"
        value = {"id": id_, "sent": time.monotonic()}
        return id_, self._notifiers[name].notify(self._chance.choice(TOPICS), value)

    # The endpoints

    async def page(self, asked: Asked) -> dict[str, Any]:
        """Open a page."""
        process = self._comet.open_process()
        made = own_channels(process.id)
        self._teller.journal.write("page", process=process.id, channels=made)
        for name, size in OWN.items():
            channel = self._comet.create(scope=process, name=name, size=size)
            self.channels[told(process.id, f"~{name}")] = channel
        for name, topic in asked.topics.items():
            self._notifiers[name].listen(topic, process)
        process.on_close(self._forget)
        return {"process": process.id, "url": process.url, "user": process.user}

    def _forget(self, process: ClientProcess) -> None:
        self._teller.journal.write("on_close", process=process.id, run=self._run)
        for name in OWN:
            self.channels.pop(told(process.id, f"~{name}"), None)

    async def login(self, asked: User) -> None:
        self._comet.login(asked.user)

    async def logout(self) -> None:
        self._comet.logout()

    async def revoke(self, asked: User) -> None:
        """Take the right away, and return once no worker delivers by it."""
        (self._rights / asked.user).touch()
        revoke: Callable[..., object] = self._comet.revoke
        await settled(revoke(GUARDED[0], user=asked.user))

    async def grant(self, asked: User) -> None:
        (self._rights / asked.user).unlink(missing_ok=True)

    async def notify(self, name: str, publisher: str) -> dict[str, Any]:
        """Notify, and wait now and then for the receipt, which is written down."""
        id_, notification = self._tell(f"{publisher}-{self._run}", name)
        if self._chance.random() < RECEIPTS:
            task = asyncio.create_task(self._await_receipt(id_, name, notification))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
        return {"id": id_, "count": await notification}

    async def _await_receipt(self, id_: str, name: str, notification: Any) -> None:
        receipt = await notification.received(RECEIVED)
        found = {told(one.id, f"~{name}") for one in receipt.acknowledged}
        self._teller.journal.write("receipt", id=id_, acknowledged=sorted(found))

    async def long(self, asked: Long) -> int:
        """Publish a long burst on a channel of a page; 404 if it was not opened here."""
        channel = self.channels.get(asked.channel)
        if channel is None:
            raise HTTPException(404, "another worker has opened the page")
        publisher = f"long-{self._run}-{next(self._generators)}"
        numbers = itertools.count(1)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(asked.count // CHUNK):
                for id_ in ids_of(publisher, numbers, CHUNK):
                    self._teller.journal.write("call", channel=asked.channel, id=id_, run=publisher)
                    delivery = self._attempt(channel, id_)
                    if delivery is None:
                        return 0
                    tasks.create_task(self._teller.await_stored(id_, delivery))
                await asyncio.sleep(GAP)
        return asked.count

    def _attempt(self, channel: Channel[Any], id_: str) -> Delivery | None:
        try:
            return channel.publish({"id": id_, "sent": time.monotonic()})
        except CometError as error:
            self._teller.note(id_, why(error))
            return None

    async def tables(self) -> dict[str, int]:
        """Tell how much is in each table of the worker."""
        gc.collect()  # forgotten pages refer to themselves
        left = _inspect.left(self._comet)
        broker = _inspect.inside(self._comet).broker
        redis = {} if not broker.shared else _inspect_redis.redis_tables(broker)  # type: ignore[arg-type]
        return {**left, **{f"redis {name}": size for name, size in redis.items()}}

    def _values(self, name: str) -> Any:
        async def values(process: ClientProcess) -> AsyncIterator[dict[str, Any]]:
            fence = f"{self._run}:{next(self._generators)}"
            for number in itertools.count(1):
                await asyncio.sleep(VALUES)
                id_ = f"{name}/{process.id}/{fence}:{number}"
                yield {"id": id_, "sent": time.monotonic(), "fence": fence}

        return values


async def settled(confirmation: object) -> None:
    """Wait for a confirmation; with the broker in memory there is none."""
    if inspect.isawaitable(confirmation):
        await confirmation
