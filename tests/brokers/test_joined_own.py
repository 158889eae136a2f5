"""The contract of the readers of own channels, on the broker that joins workers for tests."""

from __future__ import annotations

import pytest

from asgi_comet.brokers.base import Broker
from asgi_comet.testing import JoinedBroker, join
from asgi_comet.testing.joined_people import JoinedPeople
from asgi_comet.testing.reading_contract import ReadingContract

pytestmark = pytest.mark.anyio


class TestJoined(ReadingContract):
    def make(self, count: int) -> list[Broker]:
        return list(join(count))

    def claiming(self, broker: Broker) -> JoinedPeople:
        assert isinstance(broker, JoinedBroker)
        assert broker.people is not None
        return broker.people

    async def open_process(self, broker: Broker, session: str, process: str) -> None:
        await self.claiming(broker).open(session, process)
