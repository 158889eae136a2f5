"""What operators see of a broker: the numbers of the workers, and the life of its connection."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from asgi_comet.brokers.redis import probing
from asgi_comet.brokers.redis.keys import Keys
from tests.kit.redis import Client, RedisServer
from tests.kit.redis_workers import Worker, living, serving

pytestmark = pytest.mark.anyio


def number(worker: Worker) -> int | None:
    return worker.redis.condition.number


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_a_worker_takes_the_number_of_one_that_has_stopped(redis: RedisServer) -> None:
    one, two, three = (Worker(redis.url) for _ in range(3))
    assert number(one) is None
    async with serving(one):
        async with serving(two):
            assert (number(one), number(two)) == (0, 1)
        assert number(two) is None
        async with serving(three):
            assert number(three) == 1


async def test_a_worker_takes_the_number_of_one_that_was_killed(
    redis: RedisServer, client: Client
) -> None:
    killed, two, three = (Worker(redis.url) for _ in range(3))
    async with living(killed):
        await until(lambda: number(killed) == 0)
        (name,) = client.zrange(Keys().workers, 0, -1)
        async with serving(two):
            killed.die()
            client.zadd(Keys().workers, {name: 1})  # its heartbeats are overdue
            async with serving(three):
                assert (number(two), number(three)) == (1, 0)


async def test_a_connection_that_was_lost_is_counted(redis: RedisServer, client: Client) -> None:
    worker = Worker(redis.url)
    async with serving(worker):
        await until(lambda: worker.redis.healthy)
        condition = worker.redis.condition
        assert (condition.reconnects, condition.errors) == (0, 0)
        assert 0 < condition.lag < probing.PATIENCE
        client.client_kill_filter(skipme=True)
        await until(lambda: worker.redis.condition.reconnects == 1)
        condition = worker.redis.condition
        assert (condition.errors, condition.number) == (1, 0)
