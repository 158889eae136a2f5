from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from fastapi import FastAPI

from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import sleepers
from tests.kit.newsroom import make_app

pytestmark = pytest.mark.anyio


async def test_a_manual_clock_moves_only_when_it_is_advanced() -> None:
    clock, woken = ManualClock(), list[float]()

    async def sleep(seconds: float) -> None:
        await clock.sleep_until(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (2, 1, 0, -1):
            tasks.start_soon(sleep, seconds)
        await wait_all_tasks_blocked()
        assert sorted(woken) == [-1, 0]
        clock.advance(1)
        await wait_all_tasks_blocked()
        assert sorted(woken) == [-1, 0, 1]
        await anyio.to_thread.run_sync(clock.advance, 1)  # from any thread
    assert sorted(woken) == [-1, 0, 1, 2]
    assert clock.now() == 2
    assert sleepers(clock) == []


# The fixture `comet_app`, where it cannot run


class TestWithoutAnApplication:
    def test_a_fixture_is_asked_for(self, request: pytest.FixtureRequest) -> None:
        with pytest.raises(pytest.UsageError, match="expected a fixture `app` that returns"):
            request.getfixturevalue("comet_app")


class TestWithAnApplicationThatLacksAFixture:
    @pytest.fixture
    def app(self, unknown: object) -> None:
        """Never made."""

    def test_the_lack_is_told(self, request: pytest.FixtureRequest) -> None:
        with pytest.raises(pytest.FixtureLookupError, match="unknown"):
            request.getfixturevalue("comet_app")


class TestASyncTest:
    @pytest.fixture
    def app(self) -> FastAPI:
        return make_app()

    @pytest.fixture
    def comet(self) -> None:
        """The one of the application."""

    def test_an_async_one_is_asked_for(self, request: pytest.FixtureRequest) -> None:
        with pytest.raises(pytest.UsageError, match="expected an async test for comet_app"):
            request.getfixturevalue("comet_app")
