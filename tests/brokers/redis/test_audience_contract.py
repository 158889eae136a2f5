"""The contract for notifiers, on Redis."""

from __future__ import annotations

import pytest

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.testing.audience_contract import AudienceContract
from tests.kit.redis import RedisServer

pytestmark = pytest.mark.anyio


class TestThree(AudienceContract):
    @pytest.fixture(autouse=True)
    def find(self, redis: RedisServer) -> None:
        self.redis = redis

    def make(self, count: int) -> list[Broker]:
        return [RedisBroker(self.redis.url) for _ in range(count)]


class TestOne(TestThree):
    count = 1
