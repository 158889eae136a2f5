"""`GET PREFIX/admin/metrics` of three workers on Redis: one scrape is the cluster."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from asgi_comet import SITE, Comet, Settings
from asgi_comet.brokers.redis import RedisBroker
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.testing import JoinedBroker
from asgi_comet.testing.store import Store
from tests.kit.redis import RedisServer
from tests.kit.scraping import OPENMETRICS, Scraped, scrape, scrape_until, understand
from tests.kit.serving import Address, Tab, serve
from tests.kit.stage import KEY, TOKEN, application
from tests.kit.streams import Sse


class Worker:
    """A worker that can be killed: it then does not leave the others."""

    def __init__(self, redis: RedisServer) -> None:
        self.broker = Mortal(redis.url)
        self.comet = Comet(KEY, broker=self.broker, admin=TOKEN, settings=Settings(jitter=0))
        self.news = self.comet.create(scope=SITE, name="news")
        self.app = application(self.comet)


class Mortal(RedisBroker):
    """A broker whose worker does not leave the others when it stops."""

    killed = False

    async def hand_over(self) -> None:
        if not self.killed:
            await super().hand_over()
        self.give_up()


@pytest.fixture
def workers(redis: RedisServer) -> list[Worker]:
    return [Worker(redis) for _ in range(3)]


@pytest.fixture
def servers(workers: list[Worker]) -> Iterator[list[Address]]:
    """Three servers that all take questions."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(worker.app)) for worker in workers]
        for server in servers:
            scrape_until(server, lambda found: found.total("comet_info") == len(servers))
        yield servers


def numbers(found: Scraped) -> set[str]:
    return {sample.labels["worker"] for sample in found.find("comet_info")}


def ids(redis: RedisServer) -> set[bytes]:
    """Return the workers whose heartbeats last."""
    with redis.client() as client:
        return set(client.zrange(Keys().workers, 0, -1))


def expire(redis: RedisServer, workers: set[bytes]) -> None:
    """Have the heartbeats of workers be overdue."""
    if workers:
        with redis.client() as client:
            client.zadd(Keys().workers, dict.fromkeys(workers, 1))


def test_any_worker_tells_of_all(workers: list[Worker], servers: list[Address]) -> None:
    tab, streams = Tab(servers[0]), list[Sse]()
    with ExitStack() as stack:
        for server in servers[:2]:
            stream = stack.enter_context(Sse.open(server, ["news"], tab.url, Cookie=tab.cookie))
            assert stream.next().name == ":open"
            streams.append(stream)
        workers[2].news.publish("x")
        assert [stream.next().value for stream in streams] == ["x", "x"]
        for server in servers:
            found = scrape_until(server, lambda found: found.total("comet_workers") == 9)
            assert found.total("comet_delivered_total") == 2
            assert numbers(found) == {"0", "1", "2"}
            assert found.series == scrape(server, **OPENMETRICS).series
            assert found.total("comet_listeners", transport="sse") == 2
            assert found.total("comet_published_total") == 1
            assert found.total("comet_broker_connected") == 3
            assert found.total("comet_broker_errors_total") == 0
        alone = [scrape(server, "") for server in servers]
        assert [len(numbers(found)) for found in alone] == [1, 1, 1]
        assert sorted(found.total("comet_listeners") for found in alone) == [0, 1, 1]


def test_a_worker_that_was_killed_is_missing_and_the_next_one_has_its_number(
    workers: list[Worker], redis: RedisServer
) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(worker.app)) for worker in workers[:2]]
        scrape_until(servers[0], lambda found: found.total("comet_info") == 2)
        living = ids(redis)
        with serve(workers[2].app) as last:
            full = scrape_until(last, lambda found: found.total("comet_workers") == 9)
            (number,) = numbers(scrape(last, ""))
            workers[2].broker.killed = True
        found = scrape(servers[0])
        assert numbers(found) == numbers(full) - {number}
        assert max(s.value for s in found.find("comet_workers")) == 3
        expire(redis, ids(redis) - living)
        scrape_until(servers[0], lambda found: found.total("comet_workers") == 4)
        with serve(Worker(redis).app) as again:
            assert numbers(scrape(again, "")) == {number}
            found = scrape_until(servers[0], lambda found: found.total("comet_info") == 3)
            assert found.series == full.series


@pytest.mark.slow
def test_a_hundred_restarts_of_a_worker_make_no_series(redis: RedisServer) -> None:
    with serve(Worker(redis).app) as lasting:
        assert numbers(scrape(lasting)) == {"0"}
        series, living = set(), ids(redis)
        for count in range(100):
            worker = Worker(redis)
            worker.broker.killed = count % 4 == 0
            with serve(worker.app) as restarted:
                found = scrape_until(restarted, lambda found: found.total("comet_info") == 2)
            assert numbers(found) == {"0", "1"}
            series |= found.series
            expire(redis, ids(redis) - living)
        assert series == found.series
        assert numbers(scrape(lasting)) == {"0"}


def test_while_redis_is_away_a_worker_tells_of_itself(
    servers: list[Address], redis: RedisServer
) -> None:
    (number,) = numbers(scrape(servers[0], ""))
    redis.send(signal.SIGSTOP)
    try:
        found = scrape_until(servers[0], lambda f: not f.total("comet_broker_connected"))
        assert numbers(found) == {number}
    finally:
        redis.send(signal.SIGCONT)
    found = scrape_until(servers[0], lambda found: found.total("comet_info") == 3)
    assert found.total("comet_broker_reconnects_total") >= 1
    assert found.total("comet_broker_errors_total") >= 1


class Odd(JoinedBroker):
    """A broker of which other workers are of an older version, or claim a number twice."""

    async def ask_all(self, question: str, seconds: float) -> list[str]:
        (own,) = await super().ask_all(question, seconds)
        older = {"number": 7, "rows": {"comet_info": [["0.0", "3.11", "x", 1]]}}
        return ["null", own, own, json.dumps(older)]


def test_an_answer_is_taken_once_and_may_be_of_an_older_version() -> None:
    comet = Comet(KEY, broker=Odd(Store()), admin=TOKEN)
    with serve(application(comet)) as server:
        found = scrape(server)
    assert numbers(found) == {"0", "7"}
    assert found.total("comet_info") == 2
    assert found.find("comet_active", worker="7") == []


def test_a_worker_that_has_not_joined_has_no_number() -> None:
    comet = Comet(KEY, broker=RedisBroker("redis+unix:///nowhere"))
    found = understand(comet.metrics())
    assert numbers(found) == {""}
    assert found.total("comet_broker_connected") == 0
