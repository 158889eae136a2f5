"""Sources and channels of a worker whose broker refuses what the worker sends."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from asgi_comet import SITE, BrokerUnavailable, Comet
from asgi_comet.brokers.logs import Fenced, Log, Opened, Stored
from asgi_comet.position import Position
from asgi_comet.testing import JoinedBroker
from asgi_comet.testing.store import Store
from tests.kit.stage import KEY
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


class Refusing(JoinedBroker):
    """A broker that refuses some values of sources.

    Attributes:
        clean: How the worker gave the channel up, each time.
    """

    def __init__(self) -> None:
        super().__init__(Store())
        self.clean: list[bool] = []

    def append(self, log: Log, data: bytes, **more: Any) -> Stored:
        if data == b'"fenced"':  # another worker owns the channel
            self.store.release(log.name, self)
            self.host.disowned(log)
            raise Fenced(log.name)
        stored = super().append(log, data, **more)
        assert not isinstance(stored, int)

        async def wait() -> Position:
            place = await stored()
            if data == b'"lost"':
                raise BrokerUnavailable("away")
            return place

        return wait

    def release(self, log: Log, *, clean: bool) -> None:
        self.clean.append(clean)
        super().release(log, clean=clean)


@pytest.mark.parametrize(("values", "clean"), [(["a", "b"], True), (["lost", "b"], False)])
async def test_a_source_of_which_a_value_was_lost_is_not_given_up_in_order(
    values: list[str], clean: bool
) -> None:
    broker = Refusing()
    comet = Comet(KEY, broker=broker)

    @comet.channel("news")
    async def news() -> AsyncIterator[str]:
        for value in values:
            yield value

    async with comet.lifespan():
        await wait_all_tasks_blocked()
        assert broker.clean == [clean]


async def test_a_source_whose_worker_owns_the_channel_no_more_has_not_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    comet = Comet(KEY, broker=Refusing())
    begun: list[str] = []

    @comet.channel("news")
    async def news() -> AsyncIterator[str]:
        begun.append("again" if begun else "first")
        yield begun[-1]
        if begun == ["first"]:
            yield "fenced"
        await anyio.sleep_forever()

    with caplog.at_level(logging.WARNING):
        async with comet.lifespan():
            await wait_all_tasks_blocked()
            assert begun == ["first", "again"]
    assert caplog.messages == []


class Absent(JoinedBroker):
    """A broker that opens no channel, and says so when the server stops."""

    def __init__(self) -> None:
        super().__init__(Store())
        self.left = anyio.Event()

    async def open(self, log: Log, *, make: bool = True) -> Opened:
        await self.left.wait()
        raise BrokerUnavailable("away")

    def leave(self) -> None:
        self.left.set()


async def test_a_channel_that_no_worker_knows_when_the_server_stops_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Absent()
    comet = Comet(KEY, broker=broker)
    with caplog.at_level(logging.WARNING):
        async with comet.lifespan():
            comet.create(scope=SITE, name="news")
            await wait_all_tasks_blocked()
    assert broker.left.is_set()
    assert caplog.messages == []
