"""What `GET PREFIX/admin/status` tells of three workers on Redis, over real sockets."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from asgi_comet import SITE, Comet
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.testing import JoinedBroker
from asgi_comet.testing.store import Store
from tests.kit.redis import RedisServer
from tests.kit.serving import Address, Tab, serve
from tests.kit.stage import TOKEN, application
from tests.kit.streams import Sse
from tests.kit.workers import Workers

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def comets(redis: RedisServer) -> list[Comet]:
    """Three workers."""
    workers = Workers(3, redis)
    return workers.of(workers.make(admin=TOKEN))


@pytest.fixture
def servers(comets: list[Comet]) -> Iterator[list[Address]]:
    """Their addresses; each has made a channel when its application was imported."""
    for comet in comets:
        comet.create(scope=SITE, name="news")
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(application(one))) for one in comets]
        for server in servers:
            while ask(server)["all"]["answered"] < len(servers):
                pass  # until all take questions
        yield servers


def ask(server: Address) -> dict[str, Any]:
    answer = server.request("GET", "/comet/admin/status", headers=BEARER)
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def test_any_worker_tells_of_all(servers: list[Address]) -> None:
    tab = Tab(servers[0])
    with ExitStack() as stack:
        for server in servers[:2]:
            stream = stack.enter_context(Sse.open(server, ["news"], tab.url, Cookie=tab.cookie))
            assert stream.next().name == ":open"
        told = [ask(server) for server in servers]
        assert [one["listeners"] for one in told] == [1, 1, 0]
        for one in told:
            assert one["broker"] == {"connected": True, "trouble": ""}
            every = one["all"]
            assert (every["workers"], every["answered"], every["listeners"]) == (3, 3, 2)
            assert sorted(worker["listeners"] for worker in one["workers"]) == [0, 1, 1]
            assert {worker["worker"] for worker in one["workers"]} == {one["worker"]}
        assert told[0]["all"]["processes"] == 1


def test_the_switch_is_told_of_each_worker(servers: list[Address]) -> None:
    answer = servers[1].request("POST", "/comet/admin/deactivate", headers=BEARER)
    assert json.loads(answer.body)["confirmed"] == 3
    assert [worker["active"] for worker in ask(servers[2])["workers"]] == [False] * 3


def test_a_worker_that_does_not_answer_is_missed(
    servers: list[Address], redis: RedisServer
) -> None:
    client = redis.client()
    client.zadd(Keys("test0").workers, {"silent": 2**53})
    while (every := ask(servers[0])["all"])["workers"] < 4:
        pass  # until the next heartbeat
    assert (every["workers"], every["answered"]) == (4, 3)


def test_while_redis_is_away_a_worker_tells_of_itself(
    servers: list[Address], redis: RedisServer
) -> None:
    before = ask(servers[0])
    redis.send(signal.SIGSTOP)
    try:
        told = ask(servers[0])  # on a connection that is taken for good
        assert (told["all"], told["workers"]) == (None, [])
        while "Redis" not in told["broker"]["trouble"]:
            told = ask(servers[0])
        assert (told["all"], told["workers"]) == (None, [])
        assert told["worker"] == before["worker"]
        assert told["active"] is True
    finally:
        redis.send(signal.SIGCONT)
    while ask(servers[0])["all"] is None:
        pass


class Silent(JoinedBroker):
    """A broker through which no worker answers in time, not even this one."""

    async def ask_all(self, question: str, seconds: float) -> list[str]:
        return []


def test_without_any_answer_a_worker_tells_of_itself() -> None:
    with serve(application(Comet("k" * 32, broker=Silent(Store()), admin=TOKEN))) as server:
        told = ask(server)
    assert (told["all"], told["workers"]) == (None, [])
    assert told["broker"] == {"connected": False, "trouble": "no answer from any worker within 2 s"}
