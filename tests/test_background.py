from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest

from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.tasks import Background
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(background: Background, loop: LoopThread) -> AsyncIterator[None]:
    loop.enter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(background.run)
        yield
        tasks.cancel_scope.cancel()
    loop.leave()


@asynccontextmanager
async def started() -> AsyncIterator[Background]:
    loop = LoopThread()
    background = Background(loop)
    async with running(background, loop):
        await wait_all_tasks_blocked()
        yield background


class Job:
    """A job that tells when it began, and ends when it is let."""

    def __init__(self) -> None:
        self.began = 0
        self.ended = 0
        self.let = anyio.Event()

    async def run(self) -> None:
        self.began += 1
        try:
            await self.let.wait()
        finally:
            self.ended += 1


async def test_jobs_run_each_in_a_task_of_its_own() -> None:
    async with started() as background:
        jobs = [Job() for _ in range(3)]
        for job in jobs:
            background.start(job.run)
        await wait_all_tasks_blocked()
        assert ([job.began for job in jobs], len(background)) == ([1, 1, 1], 3)
        jobs[1].let.set()
        await wait_all_tasks_blocked()
        assert ([job.ended for job in jobs], len(background)) == ([0, 1, 0], 2)


async def test_a_job_from_another_thread_runs_soon() -> None:
    async with started() as background:
        job, ran_in = Job(), list[int]()

        async def note() -> None:
            ran_in.append(threading.get_ident())

        await anyio.to_thread.run_sync(background.start, job.run)
        await anyio.to_thread.run_sync(background.start, note)
        await wait_all_tasks_blocked()
        assert (job.began, ran_in) == (1, [threading.get_ident()])


async def test_jobs_of_many_threads_run_exactly_once() -> None:
    async with started() as background:
        counts = [0] * 800

        def start(first: int) -> None:
            for number in range(first, first + 100):

                async def count(number: int = number) -> None:
                    counts[number] += 1

                background.start(count)

        async with anyio.create_task_group() as tasks:
            for first in range(0, 800, 100):
                tasks.start_soon(anyio.to_thread.run_sync, start, first)
        await background.wait_idle()
        await wait_all_tasks_blocked()
        assert counts == [1] * 800
        assert len(background) == 0


async def test_a_job_started_before_the_lifespan_runs_with_it() -> None:
    loop = LoopThread()
    background, job = Background(loop), Job()
    background.start(job.run)
    assert (len(background), job.began) == (1, 0)
    async with running(background, loop):
        await wait_all_tasks_blocked()
        assert job.began == 1
    assert (job.ended, len(background)) == (1, 0)


async def test_a_job_may_start_another() -> None:
    async with started() as background:
        job = Job()

        async def first() -> None:
            background.start(job.run)

        background.start(first)
        await wait_all_tasks_blocked()
        assert job.began == 1


async def test_a_job_that_raises_is_logged_and_the_others_do_not_notice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with started() as background:
        before, after = Job(), Job()

        async def fail(_: str) -> None:
            raise ZeroDivisionError("on purpose")

        for run in (before.run, partial(fail, "process-id"), after.run):
            background.start(run)
        await wait_all_tasks_blocked()
        assert (before.began, before.ended, after.began, after.ended) == (1, 0, 1, 0)
        assert len(background) == 2
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("asgi_comet._runtime.tasks", "ERROR")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert record.getMessage().endswith("and_the_others_do_not_notice.fail")
    assert "process-id" not in caplog.text


async def test_no_job_is_left_when_it_stops() -> None:
    jobs = [Job() for _ in range(3)]
    async with started() as background:
        for job in jobs:
            background.start(job.run)
        await wait_all_tasks_blocked()
    assert [job.ended for job in jobs] == [1, 1, 1]
    assert len(background) == 0


async def idle(background: Background, told: list[str]) -> None:
    await background.wait_idle()
    told.append("idle")


async def test_idle_is_when_no_job_runs_or_waits_to() -> None:
    async with started() as background, anyio.create_task_group() as tasks:
        await background.wait_idle()  # at once
        first, second, told = Job(), Job(), list[str]()

        async def chain() -> None:
            await first.let.wait()
            background.start(second.run)

        background.start(first.run)
        background.start(chain)
        tasks.start_soon(idle, background, told)
        await wait_all_tasks_blocked()
        assert told == []
        first.let.set()
        await wait_all_tasks_blocked()
        assert (second.began, told) == (1, [])
        second.let.set()
        await wait_all_tasks_blocked()
        assert told == ["idle"]


async def test_one_job_started_twice_is_two_until_idle() -> None:
    async with started() as background, anyio.create_task_group() as tasks:
        lets, told = [anyio.Event(), anyio.Event()], list[str]()
        waiting = iter(lets)

        async def job() -> None:
            await next(waiting).wait()

        background.start(job)
        background.start(job)
        await wait_all_tasks_blocked()
        tasks.start_soon(idle, background, told)
        lets[0].set()
        await wait_all_tasks_blocked()
        assert (len(background), told) == (1, [])
        lets[1].set()
        await wait_all_tasks_blocked()
        assert (len(background), told) == (0, ["idle"])


async def test_many_may_wait_for_idle() -> None:
    async with started() as background, anyio.create_task_group() as tasks:
        job, told = Job(), list[str]()
        background.start(job.run)
        for _ in range(3):
            tasks.start_soon(idle, background, told)
        await wait_all_tasks_blocked()
        job.let.set()
        await wait_all_tasks_blocked()
        try:
            assert told == ["idle"] * 3
        finally:
            tasks.cancel_scope.cancel()
