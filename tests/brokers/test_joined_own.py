"""The contract of own channels, on the broker that joins workers for tests."""

from __future__ import annotations

import pytest

from asgi_comet.brokers.base import Broker
from asgi_comet.testing import OwnContract, join

pytestmark = pytest.mark.anyio


class TestJoined(OwnContract):
    def make(self, count: int) -> list[Broker]:
        return [*join(count)]
