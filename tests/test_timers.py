from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from asgi_comet._runtime.timers import BATCH, RESOLUTION, Timeout, Timer, Timers
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import buckets, sleepers
from tests.kit.running import advance
from tests.kit.stage import on_every_loop
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio
anyio_backend = on_every_loop


class Note(Timer):
    def __init__(self, expired: list[str], name: str = "") -> None:
        super().__init__()
        self.expired = expired
        self.name = name

    def expire(self) -> None:
        self.expired.append(self.name)


@asynccontextmanager
async def sweeping(clock: ManualClock) -> AsyncIterator[Timers]:
    timers = Timers(clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(timers.run)
        await wait_all_tasks_blocked()
        yield timers
        tasks.cancel_scope.cancel()


async def test_timers_expire_in_order_of_their_deadlines_never_early() -> None:
    clock, expired = ManualClock(), list[str]()
    async with sweeping(clock) as timers:
        timers.start(Note(expired, "late"), 5)
        timers.start(Note(expired, "early"), 2)  # the sweeper is woken from its longer nap
        await advance(clock, 1.99)
        assert expired == []
        await advance(clock, 0.01 + RESOLUTION)
        assert expired == ["early"]
        await advance(clock, 3 + RESOLUTION)
        assert expired == ["early", "late"]
        assert len(timers) == 0


async def test_a_stopped_timer_leaves_nothing_behind() -> None:
    clock, expired = ManualClock(), list[str]()
    async with sweeping(clock) as timers:
        timer = Note(expired)
        timers.start(timer, 1)
        timers.stop(timer)
        timers.stop(timer)
        assert len(timers) == 0
        await advance(clock, 2)
        assert expired == []
        assert buckets(timers) == (set(), [])


async def test_a_timer_started_again_counts_from_then() -> None:
    clock, expired = ManualClock(), list[str]()
    async with sweeping(clock) as timers:
        timer = Note(expired, "x")
        timers.start(timer, 1)
        timers.start(timer, 3)
        assert len(timers) == 1
        await advance(clock, 2)
        assert expired == []
        await advance(clock, 2)
        assert expired == ["x"]


async def test_many_timers_at_once_let_the_loop_turn() -> None:
    clock, expired, turns = ManualClock(), list[str](), list[int]()

    async def watch() -> None:
        while len(expired) < 4 * BATCH:
            turns.append(len(expired))
            await anyio.lowlevel.checkpoint()

    async with sweeping(clock) as timers, anyio.create_task_group() as tasks:
        for _ in range(4 * BATCH):
            timers.start(Note(expired), 1)
        clock.advance(2)
        tasks.start_soon(watch)
    steps = [after - before for before, after in itertools.pairwise(turns)]
    assert max(steps) <= 2 * BATCH  # trio takes tasks in any order, so one may get two turns
    assert len(expired) == 4 * BATCH


async def test_nothing_to_wait_for_costs_no_wake_up() -> None:
    clock = ManualClock()
    async with sweeping(clock):
        (sleeper,) = sleepers(clock)
        await advance(clock, 60)
        assert sleepers(clock) == [sleeper]
        await advance(clock, 3600)
        assert sleepers(clock) != [sleeper]


async def test_a_timeout_calls_its_function_once() -> None:
    clock, expired = ManualClock(), list[str]()
    async with sweeping(clock) as timers:
        timers.start(Timeout(lambda: expired.append("x")), 1)
        timers.shut_down()
        assert expired == []
        await advance(clock, 1 + RESOLUTION)
        assert expired == ["x"]


async def test_a_timeout_may_end_at_shutdown() -> None:
    clock, ended = ManualClock(), list[str]()
    async with sweeping(clock) as timers:
        timers.start(Timeout(lambda: ended.append("before"), at_shutdown=True), 1)
        timers.shut_down()
        timers.start(Timeout(lambda: ended.append("after"), at_shutdown=True), 1)
        assert ended == ["before", "after"]


@pytest.mark.parametrize("until_shutdown", [True, False])
async def test_a_wait_for_an_event_ends_in_time(until_shutdown: bool) -> None:
    clock, event = ManualClock(), anyio.Event()
    async with sweeping(clock) as timers, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(timers.wait, event, 1, until_shutdown=until_shutdown))
        await wait_all_tasks_blocked()
        timers.shut_down()
        assert event.is_set() is until_shutdown
        await advance(clock, 1 + RESOLUTION)
        assert event.is_set()


async def test_a_wait_for_an_event_that_comes_leaves_no_timer() -> None:
    clock, event = ManualClock(), anyio.Event()
    async with sweeping(clock) as timers, anyio.create_task_group() as tasks:
        tasks.start_soon(timers.wait, event, 1)
        await wait_all_tasks_blocked()
        assert len(timers) == 1
        event.set()
        await wait_all_tasks_blocked()
        assert len(timers) == 0
