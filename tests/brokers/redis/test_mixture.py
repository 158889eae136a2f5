"""Workers that declare different names for longer than a deployment takes."""

from __future__ import annotations

import anyio
import pytest

from asgi_comet.brokers.redis import RedisBroker
from asgi_comet.brokers.redis.address import parse_address
from asgi_comet.brokers.redis.mixture import Mixture
from asgi_comet.testing.clock import ManualClock
from asgi_comet.testing.party import Party
from tests.kit.redis import RedisServer

LINE = "the prefix 'shop' have declared different names for 10 minutes"


def test_there_is_one_line_an_hour_at_most(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    mixture = Mixture(parse_address("redis://:secret@host"), "shop", clock.now)
    lines = []
    for second in range(0, 12_000, 3):
        # A deployment at the beginning, later a mixture with a short break.
        mixture.look(mixed=second < 600 or (second >= 1200 and not 3000 <= second < 3030))
        if caplog.records:
            lines.append(second)
            assert LINE in caplog.text
            assert "secret" not in caplog.text
            assert "another application uses the same prefix" in caplog.text
            caplog.clear()
        clock.advance(3)
    assert lines == [1800, 5400, 9000]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_workers_that_declare_different_names_are_told(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    one = Party(RedisBroker(redis.url, prefix="shop", clock=clock, timeout=20))
    two = Party(RedisBroker(redis.url, prefix="shop", timeout=20))
    one.digest, two.digest = "one", "two"
    one.heartbeat = two.heartbeat = 100.0  # they beat every 30 seconds
    with anyio.fail_after(60):
        async with two.running(), one.running():
            for worker in (two, one):
                await worker.make("a", adopt=True)  # it is connected by then
            while not one.broker.mixed:
                clock.advance(30)
                await one.broker.find("nothing")
            caplog.clear()
            for _ in range(10):
                clock.advance(50)
                await one.broker.find("nothing")
            assert LINE not in caplog.text
            while LINE not in caplog.text:
                clock.advance(50)
                await one.broker.find("nothing")
