"""The contract of brokers, on Redis."""

from __future__ import annotations

import pytest

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.testing.contract import SharedBrokerContract
from tests.kit.redis import RedisServer

pytestmark = pytest.mark.anyio


class TestRedis(SharedBrokerContract):
    @pytest.fixture(autouse=True)
    def find(self, redis: RedisServer) -> None:
        self.url = redis.url

    def make(self, count: int) -> list[Broker]:
        return [RedisBroker(self.url) for _ in range(count)]
