"""Workers on Redis that may die."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from asgi_comet.brokers.people import Limits
from asgi_comet.brokers.redis import RedisBroker
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.testing.party import Party, new_id
from tests.kit.redis import Client, RedisServer

KEYS = Keys()


class Worker(Party):
    """A worker on Redis, which can die: it then neither hands over nor leaves."""

    def __init__(self, url: str, limits: Limits | None = None, **options: Any) -> None:
        self.redis = RedisBroker(url, **options)
        super().__init__(self.redis, options.get("clock"), limits)
        self.store = self.redis.people
        self._life = anyio.CancelScope()

    async def serve(self, begun: anyio.Event, stop: anyio.Event) -> None:
        with self._life:
            async with self.running():
                begun.set()
                await stop.wait()

    def die(self) -> None:
        self._life.cancel()


@asynccontextmanager
async def living(*workers: Worker, seconds: float = 60) -> AsyncIterator[None]:
    """Run workers, which may die, for so many seconds at most."""
    with anyio.fail_after(seconds):
        async with anyio.create_task_group() as tasks:
            stop = anyio.Event()
            for worker in workers:
                begun = anyio.Event()
                tasks.start_soon(worker.serve, begun, stop)
                await begun.wait()
            yield
            stop.set()


@asynccontextmanager
async def serving(*workers: Worker) -> AsyncIterator[None]:
    """Run workers, of which each has joined the others."""
    async with living(*workers):
        for worker in workers:
            await worker.redis.serving.up()  # however short its time limit is
            await worker.store.visit([])
        yield


@asynccontextmanager
async def workers_on(redis: RedisServer, count: int) -> AsyncIterator[list[Worker]]:
    """Run so many workers on a Redis, of which each has joined the others."""
    workers = [Worker(redis.url) for _ in range(count)]
    async with serving(*workers):
        yield workers


async def answered(*workers: Worker) -> None:
    """Return when Redis has answered all that the workers have sent."""
    for worker in workers:
        await worker.store.visit([new_id()])


def saved(client: Client) -> dict[bytes, tuple[bytes, int]]:
    """Return all that a replica has which lags from now on."""
    return {key: (client.dump(key), max(client.pttl(key), 0)) for key in client.keys("*")}


def promoted(client: Client, data: dict[bytes, tuple[bytes, int]]) -> None:
    """Have Redis be a replica that was promoted."""
    pipe = client.pipeline()
    pipe.flushall()
    for key, (value, life) in data.items():
        if key != KEYS.lineage.encode():
            pipe.restore(key, life, value)
    pipe.execute()
