"""The contract of own channels, on Redis."""

from __future__ import annotations

import pytest

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.errors import NonUniqueChannelName
from asgi_comet.testing.own_contract import OwnContract
from asgi_comet.testing.reading_contract import PROCESS
from tests.kit.redis import RedisServer

pytestmark = pytest.mark.anyio


class TestRedis(OwnContract):
    @pytest.fixture(autouse=True)
    def find(self, redis: RedisServer) -> None:
        self.redis = redis

    def make(self, count: int) -> list[Broker]:
        return [RedisBroker(self.redis.url) for _ in range(count)]

    async def test_who_makes_a_channel_of_a_taken_name_is_told_to_declare_the_channel(self) -> None:
        async with self.parties(2) as (one, two):
            await one.make_own(PROCESS, "~a")
            with pytest.raises(NonUniqueChannelName, match="scope=CLIENT_PROCESS") as taken:
                await two.make_own(PROCESS, "~a")
        assert "for the client process; choose another name, or declare" in str(taken.value)
        assert "imported" not in str(taken.value)
