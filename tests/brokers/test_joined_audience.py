"""The contract for notifiers, on brokers that are joined in one process."""

from __future__ import annotations

import pytest

from asgi_comet.brokers.base import Broker
from asgi_comet.testing import join
from asgi_comet.testing.audience_contract import AudienceContract

pytestmark = pytest.mark.anyio


class TestThree(AudienceContract):
    def make(self, count: int) -> list[Broker]:
        return [*join(count)]


class TestOne(TestThree):
    count = 1
