from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

import anyio
import pytest
from anyio import to_thread, wait_all_tasks_blocked

from asgi_comet import Comet, lifespan
from asgi_comet.notify.pool import Pool
from asgi_comet.testing._inspect import inside
from tests.kit.running import advance, make, running
from tests.kit.turns import until

pytestmark = pytest.mark.anyio

SPARE = 0.1
SOON = 2 * SPARE + 0.1  # the timers' resolution


@pytest.fixture
def quick_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server that stops not wait for what is stuck."""
    monkeypatch.setattr(lifespan, "PATIENCE", 0.1)


class Work:
    """Work that is stuck at some items until they are released, and that remembers the others."""

    def __init__(self, *stuck: Any) -> None:
        self.stuck = {item: anyio.Event() for item in stuck}
        self.begun: list[Any] = []
        self.done: list[Any] = []

    async def __call__(self, items: Iterator[Any]) -> None:
        for item in items:
            self.begun.append(item)
            if item in self.stuck:
                await self.stuck[item].wait()
            self.done.append(item)


def make_pool(comet: Comet, work: Any, *, limit: int, spare: float = 0.0) -> Pool[Any]:
    return Pool(inside(comet).runtime, work, limit=limit, spare=spare)


def add_all(pool: Pool[Any], items: Any) -> None:
    for item in items:
        pool.add(item)


def check_idle(comet: Comet, pool: Pool[Any]) -> None:
    assert len(pool.waiting) == len(inside(comet).background) == len(inside(comet).timers) == 0


async def test_items_are_taken_in_order_and_nothing_is_left() -> None:
    async with running() as (comet, _):
        work = Work()
        pool = make_pool(comet, work, limit=1)
        for _ in range(2):
            add_all(pool, "abc")
            await wait_all_tasks_blocked()
            check_idle(comet, pool)
        assert work.done == [*"abcabc"]


async def test_no_more_workers_than_the_limit_run_at_a_time() -> None:
    async with running() as (comet, _):
        work = Work(*range(5))
        pool = make_pool(comet, work, limit=2)
        add_all(pool, range(5))
        for released in range(5):
            await wait_all_tasks_blocked()
            assert len(work.begun) == min(released + 2, 5)
            work.stuck[released].set()
        await wait_all_tasks_blocked()
        assert work.done == [*range(5)]
        check_idle(comet, pool)


async def test_a_stuck_worker_delays_only_its_own_item() -> None:
    async with running() as (comet, _):
        work = Work("stuck")
        pool = make_pool(comet, work, limit=2)
        add_all(pool, ["stuck", *range(100)])
        await wait_all_tasks_blocked()
        assert work.done == [*range(100)]
        work.stuck["stuck"].set()
        await wait_all_tasks_blocked()
        assert work.done[-1] == "stuck"
        check_idle(comet, pool)


async def test_a_spare_worker_helps_once_items_have_waited() -> None:
    async with running() as (comet, clock):
        work = Work("stuck", "stuck, too")
        pool = make_pool(comet, work, limit=3, spare=SPARE)
        add_all(pool, ["stuck", "stuck, too", "a", "b"])
        await wait_all_tasks_blocked()
        assert (work.begun, len(pool.waiting)) == (["stuck"], 3)
        await advance(clock, SOON)
        assert (work.begun, len(pool.waiting)) == (["stuck", "stuck, too"], 2)
        await advance(clock, SOON)
        assert work.done == ["a", "b"]
        for event in work.stuck.values():
            event.set()
        await wait_all_tasks_blocked()
        check_idle(comet, pool)


async def test_while_no_item_waits_no_timer_runs_and_the_next_item_starts_one() -> None:
    async with running() as (comet, clock):
        work = Work("stuck")
        pool = make_pool(comet, work, limit=2, spare=SPARE)
        pool.add("stuck")
        await wait_all_tasks_blocked()
        await advance(clock, SOON)
        assert len(inside(comet).timers) == 0
        add_all(pool, "ab")  # with one timer
        assert len(inside(comet).timers) == 1
        await advance(clock, SOON)
        assert work.done == ["a", "b"]
        work.stuck["stuck"].set()
        await wait_all_tasks_blocked()
        check_idle(comet, pool)


async def test_spare_workers_are_bounded_too(quick_end: None) -> None:
    async with running() as (comet, clock):
        work = Work(*range(5))
        pool = make_pool(comet, work, limit=2, spare=SPARE)
        add_all(pool, range(5))
        for expected in (2, 2):
            await advance(clock, SOON)
            assert (len(work.begun), len(pool.waiting)) == (expected, 5 - expected)
        pool.add(5)
        await advance(clock, SOON)
        assert (len(work.begun), len(pool.waiting)) == (2, 4)


async def test_an_item_that_is_added_again_by_its_own_work_keeps_its_order() -> None:
    """A subscription with many jobs: each worker does one, and adds the subscription again."""
    async with running() as (comet, _):
        left = {name: [*range(20)] for name in "abcde"}
        done: dict[str, list[int]] = {name: [] for name in left}
        busy = set[str]()

        async def work(items: Iterator[str]) -> None:
            for name in items:
                assert name not in busy
                busy.add(name)
                job = left[name].pop(0)
                for _ in range(ord(name) % 3):
                    await anyio.lowlevel.checkpoint()
                done[name].append(job)
                busy.remove(name)
                if left[name]:
                    pool.add(name)

        pool = make_pool(comet, work, limit=3)
        add_all(pool, left)
        await wait_all_tasks_blocked()
        assert done == {name: [*range(20)] for name in left}
        check_idle(comet, pool)


async def test_threads_take_each_item_once_and_one_may_add_to_the_pool() -> None:
    stuck, taken = threading.Event(), list[int]()

    def take(items: Iterator[int]) -> None:
        for item in islice(items, 7):
            if item == 0:
                assert stuck.wait(20)
            if item == 50:
                pool.add(1000)
            taken.append(item)

    async def work(items: Iterator[int]) -> None:
        await to_thread.run_sync(take, items)

    async with running() as (comet, clock):
        pool = make_pool(comet, work, limit=2, spare=SPARE)
        await to_thread.run_sync(add_all, pool, range(100))
        await until(lambda: len(pool.waiting) == 99)
        clock.advance(SOON)
        await until(lambda: len(taken) == 100)
        assert sorted(taken) == [*range(1, 100), 1000]
        stuck.set()
        await inside(comet).background.wait_idle()
        assert taken[-1] == 0
        check_idle(comet, pool)


async def test_a_worker_that_finds_no_item_ends() -> None:
    seen = list[list[str]]()

    async def work(items: Iterator[str]) -> None:
        pool.waiting.clear()  # as if another worker was faster
        seen.append(list(items))

    async with running() as (comet, _):
        pool = make_pool(comet, work, limit=1)
        pool.add("a")
        await wait_all_tasks_blocked()
        assert seen == [[]]
        check_idle(comet, pool)


async def test_cancelled_workers_leave_their_places_to_those_of_the_next_lifespan(
    quick_end: None,
) -> None:
    comet, work = make(), Work("a", "b")
    pool = make_pool(comet, work, limit=2, spare=SPARE)
    async with comet.lifespan():
        add_all(pool, "abc")
        await wait_all_tasks_blocked()
    assert (work.begun, work.done) == (["a"], [])
    assert len(inside(comet).background) == len(inside(comet).timers) == 0
    async with comet.lifespan():
        pool.add("d")
        await wait_all_tasks_blocked()
        assert work.begun == ["a", "b"]  # the first worker
        work.stuck["b"].set()
        await wait_all_tasks_blocked()
        assert work.done == ["b", "c", "d"]
        check_idle(comet, pool)
