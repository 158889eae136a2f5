"""The contract of brokers, on every one there is."""

from __future__ import annotations

import pytest

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.memory import MemoryBroker
from asgi_comet.testing import join
from asgi_comet.testing.contract import BrokerContract, SharedBrokerContract
from asgi_comet.testing.people_contract import PeopleContract

pytestmark = pytest.mark.anyio


class TestMemory(BrokerContract):
    def make(self, count: int) -> list[Broker]:
        return [MemoryBroker() for _ in range(count)]


class TestJoined(SharedBrokerContract):
    def make(self, count: int) -> list[Broker]:
        return list(join(count))


class TestJoinedPeople(PeopleContract):
    def make(self, count: int) -> list[Broker]:
        return list(join(count))
