"""Background tasks: pumps of sources, callbacks.

Owns all of them: they run in one task group of the lifespan, a crash is logged, and none is left
when the lifespan ends. Must not know their work.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from asgi_comet._runtime.clock import Clock
from asgi_comet._runtime.functions import name_of
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.waiting import pass_cancellation
from asgi_comet.log_events import event

__all__ = ["BACKOFF", "Background", "Job", "supervise"]

_logger = logging.getLogger(__name__)

Job = Callable[[], Awaitable[None]]

BACKOFF = 1.0  # seconds before a crashed task is restarted


async def supervise(run: Job, clock: Clock, down: set[Job]) -> None:
    """Run a task that never ends; restart it if it crashes.

    Args:
        run: The task.
        clock: The clock.
        down: Has the task as long as the task has crashed and is not started again.
    """
    while True:
        down.discard(run)
        try:
            await run()
            _logger.error(
                "a task ended and is started again: %s",
                name_of(run),
                extra=event("internal.failed", function=name_of(run)),
            )
        except Exception:
            _logger.exception(
                "a task crashed and is started again: %s",
                name_of(run),
                extra=event("internal.failed", function=name_of(run)),
            )
        down.add(run)
        await clock.sleep_until(clock.now() + BACKOFF)


class Background:
    """Runs jobs during the lifespan.

    Args:
        loop: The thread of the jobs.
    """

    def __init__(self, loop: LoopThread) -> None:
        self._loop = loop
        self._waiting: deque[Job] = deque()
        self._work = anyio.Event()
        self._running = 0
        self._idle: list[anyio.Event] = []

    def __len__(self) -> int:
        return len(self._waiting) + self._running

    def start(self, job: Job) -> None:
        """Run a job soon, or as soon as the lifespan has started. Thread-safe.

        Args:
            job: Called once, in a task of its own; an exception is logged.
        """
        self._waiting.append(job)
        self._loop.run(self._nudge)

    async def run(self) -> None:
        """Run jobs until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                self._work = anyio.Event()
                self._begin(group)
                await self._work.wait()

    async def wait_idle(self) -> None:
        """Wait until no job is running or waiting."""
        while len(self):
            idle = anyio.Event()
            self._idle.append(idle)
            await idle.wait()

    def _begin(self, group: TaskGroup) -> None:
        while self._waiting:
            group.start_soon(self._guard, self._waiting.popleft())
            self._running += 1

    def _nudge(self) -> None:
        self._work.set()

    async def _guard(self, job: Job) -> None:
        try:
            await job()
        except (Exception, asyncio.CancelledError) as error:
            # A task that ends as cancelled would cancel the whole group and all other jobs.
            pass_cancellation(error)
            _logger.exception(
                "a background job failed: %s",
                name_of(job),
                extra=event("internal.failed", function=name_of(job)),
            )
        finally:
            self._running -= 1
            if not len(self):
                idle, self._idle = self._idle, []
                for waiter in idle:
                    waiter.set()
