"""docs/operating.md#health with a Redis that goes away, over real sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from asgi_comet import Comet, Settings, lifespan
from asgi_comet.brokers.redis import RedisBroker
from asgi_comet.testing import ManualClock
from tests.kit.health import OK, ask, degraded, starting, until
from tests.kit.redis import RedisServer
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY, application

MakeRedis = Callable[..., RedisServer]


def make(redis: RedisServer, clock: ManualClock | None = None, **settings: Any) -> Comet:
    return Comet(KEY, broker=RedisBroker(redis.url, clock=clock), settings=Settings(**settings))


def reconnect(server: Address, clock: ManualClock) -> None:
    """Advance the clock until the broker has come to its next attempt."""
    for _ in range(1000):
        if ask(server, "ready") == OK:
            return
        clock.advance(1)
    raise AssertionError(ask(server, "ready"))


def test_a_worker_is_ready_for_a_minute_without_redis(make_redis: MakeRedis) -> None:
    redis, clock = make_redis(), ManualClock()
    with serve(application(make(redis, clock))) as server:
        assert ask(server, "ready") == OK
        redis.stop()
        until(server, degraded("broker_away"))
        for _ in range(2):
            clock.advance(29.9)
            assert ask(server, "ready") == degraded("broker_away")
        clock.advance(0.2)
        assert ask(server, "ready") == degraded("broker_away_too_long", status=503)
        assert ask(server, "live") == degraded("broker_away_too_long")
        redis.start()
        reconnect(server, clock)


def test_how_long_a_worker_is_ready_without_redis_is_a_setting(make_redis: MakeRedis) -> None:
    redis = make_redis()
    with serve(application(make(redis, ready_without_broker=0))) as server:
        assert ask(server, "ready") == OK
        redis.stop()
        until(server, degraded("broker_away_too_long", status=503))
        redis.start()
        until(server, OK)


def test_a_worker_whose_redis_never_answered_is_not_ready(
    make_redis: MakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifespan, "BROKER_LIMIT", 0.05)
    redis = make_redis()
    redis.stop()
    comet = make(redis)
    with serve(application(comet)) as server:
        assert ask(server, "ready") == starting("broker_never_answered")
        assert ask(server, "live") == starting("broker_never_answered", status=200)
        redis.start()
        until(server, OK)
    redis.stop()
    with serve(application(comet)) as server:  # the start counts, and not what was before
        assert ask(server, "ready") == starting("broker_never_answered")
