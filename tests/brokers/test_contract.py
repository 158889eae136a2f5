"""The contract of brokers, on every one there is, and what it says of a broker that fails."""

from __future__ import annotations

import anyio
import pytest

from asgi_comet.brokers import Broker, MemoryBroker
from asgi_comet.testing import (
    BrokerContract,
    JoinedBroker,
    PeopleContract,
    SharedBrokerContract,
    Store,
    join,
    party,
)
from asgi_comet.testing.party import Party, gather, people_of

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


class Crashing(JoinedBroker):
    async def run(self) -> None:
        raise OSError("no store")


async def test_what_a_test_asserts_is_shown_and_no_group_around_it() -> None:
    with pytest.raises(pytest.fail.Exception, match="three are not two"):
        async with gather(join(2)):
            pytest.fail("three are not two")


async def test_a_broker_that_crashes_ends_the_test_with_its_error() -> None:
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with gather([Crashing(Store())]):
            await anyio.sleep_forever()


async def test_a_test_that_is_cancelled_ends() -> None:
    with anyio.CancelScope() as scope:
        async with gather(join(2)):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_host_that_is_not_called_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(party, "PATIENCE", 0)
    with pytest.raises(TimeoutError, match="expected the broker to call its host within 0 s"):
        await Party(join(1)[0]).until(lambda: False)


def test_a_suite_that_does_not_apply_is_named() -> None:
    (broker,) = join(1, people=False)
    with pytest.raises(AssertionError, match=r"expected Broker\.people, without which"):
        people_of(Party(broker))
