"""The contract of people, on Redis."""

from __future__ import annotations

import pytest

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.redis import sweeping
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.testing.people_contract import PeopleContract
from tests.kit.redis import RedisServer

pytestmark = pytest.mark.anyio


class TestThree(PeopleContract):
    @pytest.fixture(autouse=True)
    def find(self, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.redis = redis
        monkeypatch.setattr(sweeping, "EVERY", 0.05)

    def make(self, count: int) -> list[Broker]:
        return [RedisBroker(self.redis.url) for _ in range(count)]

    async def calm(self) -> None:
        with self.redis.client() as client:
            client.delete(Keys().calm)


class TestOne(TestThree):
    count = 1
