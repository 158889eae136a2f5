"""The delivery of notifications to client processes, after `notify` has returned.

Owns the line in which the notifications of a notifier wait, the task that distributes them in
order, and the two pools that prepare messages. An outbox has at most one job in preparation,
so its order holds, and a slow function delays only its own outbox. Must not know keys.

A message that is the same for all is published straight from the line, one time slice per turn of
the loop. Other messages are prepared, for each outbox one after the other. Sync functions run
in a worker thread, which takes `CHUNK` outboxes and publishes each at once. Another thread
starts if outboxes still wait after `SPARE` seconds, because the first one may be stuck; more
threads would only compete with the loop for Python's global lock.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

from anyio import CapacityLimiter, to_thread

from asgi_comet._runtime.fairness import Slice
from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.waiting import Deadline, make_interrupt, pass_cancellation
from asgi_comet.errors import NotifierFull
from asgi_comet.log_events import event
from asgi_comet.notify.jobs import Job, Outbox
from asgi_comet.notify.pool import Pool
from asgi_comet.notify.preparing import Unfinished

__all__ = ["Line", "Queue"]

_logger = logging.getLogger(__name__)

WAITING = 10_000  # notifications in line, per notifier
WAITING_BYTES = 64 * 2**20  # of notifications that are the same for all
OUTBOX = 1000  # notifications that wait to be prepared for one process
TASKS = 32  # tasks that prepare in the loop
THREADS = 8  # worker threads that prepare
CHUNK = 256  # outboxes that a worker thread takes before the loop looks again
SPARE = 0.1  # seconds until another thread starts
LIMIT = 10.0  # seconds that preparing one message may take in the loop

Box = TypeVar("Box", bound=Outbox)


class Line:
    """Jobs that wait to be distributed, in order and bounded, by one task at a time. Thread-safe.

    Attributes:
        taken: Whether a task takes jobs.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self.taken: bool = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> bool:
        """Add a job at the end; return whether the caller has to start a task that takes jobs.

        Raises:
            NotifierFull: The line has `WAITING` jobs or `WAITING_BYTES` already.
        """
        size = len(job.preparation.data or b"")
        with self._lock:
            if len(self._jobs) >= WAITING or self._bytes + size > WAITING_BYTES:
                raise NotifierFull(self._name, WAITING, WAITING_BYTES)
            self._bytes += size
            self._jobs.append(job)
            first, self.taken = not self.taken, True
        return first

    def take(self) -> Job | None:
        """Remove the next job and return it. After `None`, the next `put` needs another task."""
        with self._lock:
            if not self._jobs:
                self.taken = False
                return None
            job = self._jobs.popleft()
            self._bytes -= len(job.preparation.data or b"")
            return job


class Queue(ABC, Generic[Box]):
    """Delivers the notifications of one notifier. Thread-safe.

    Args:
        runtime: Runs the tasks.
        name: The name of the notifier, for the log.
    """

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime = runtime
        self._name = name
        self._line = Line(name)
        self._in_loop = Pool(runtime, self._prepare, limit=TASKS)
        self._in_threads = Pool(runtime, self._prepare_in_thread, limit=THREADS, spare=SPARE)
        self._slice = Slice()

    def add(self, job: Job) -> None:
        """Put a notification at the end of the line.

        Raises:
            NotifierFull: The line is full.
        """
        if self._line.put(job):
            self._runtime.background.start(self._drain)

    async def _drain(self) -> None:
        try:
            while (job := self._line.take()) is not None:
                try:
                    await self._hand_out(job)
                except (
                    Exception
                ):  # from the `==` of a user object: the next notifications are unaffected
                    _logger.exception(
                        "a notification of %r was not handed out",
                        self._name,
                        extra=event("function.failed", notifier=self._name),
                    )
                finally:
                    job.finish()
        except BaseException:  # the server stops
            self._line.taken = False
            raise

    @abstractmethod
    async def _hand_out(self, job: Job) -> None:
        """Publish or enqueue a notification for each of its client processes."""

    @abstractmethod
    def _publish(self, outbox: Box, job: Job, data: bytes | None) -> None:
        """Publish a message to one client process, and record the result; `None` publishes nothing.

        Called in the loop's thread and in worker threads.
        """

    @abstractmethod
    def _end(self, outbox: Box, why: str) -> None:
        """Send nothing more to a client process."""

    def _enqueue(self, outbox: Box, job: Job) -> None:
        if len(outbox.pending) >= OUTBOX:  # only this task adds jobs
            self._end(outbox, "is prepared too slowly")
        if outbox.put(job):
            self._schedule(outbox, job)

    def _schedule(self, outbox: Box, job: Job) -> None:
        (self._in_loop if job.preparation.in_loop else self._in_threads).add(outbox)

    # The pools

    async def _prepare(self, outboxes: Iterator[Box]) -> None:
        for outbox in outboxes:
            job, begun = outbox.first, outbox.begun
            if job is not None:
                try:
                    data = await self._within_limit(outbox, job, begun)
                    self._publish(outbox, job, data)
                except (Exception, asyncio.CancelledError) as error:
                    pass_cancellation(error)
                    self._fail(outbox, job, error)
                if (after := outbox.advance()) is not None:
                    self._schedule(outbox, after)
            elif begun is not None:
                begun.close()  # the outbox is gone
            if self._slice.used:
                await self._slice.yield_()

    async def _within_limit(self, outbox: Box, job: Job, begun: Unfinished | None) -> bytes | None:
        runtime, late = self._runtime, list[bool]()
        interrupt = outbox.interrupt = make_interrupt(runtime.loop.asyncio)
        deadline = Deadline(interrupt, lambda: late.append(True))
        runtime.timers.start(deadline, LIMIT)
        try:
            data = await interrupt.run(lambda: job.preparation.finish(outbox.process.user, begun))
        finally:
            runtime.timers.stop(deadline)
            outbox.interrupt = None
        if late:
            _logger.warning(
                "preparing a notification of %r took more than %g s and was cut off; "
                "one client process does not get it",
                self._name,
                LIMIT,
                extra=event("function.cut_off", notifier=self._name, seconds=LIMIT),
            )
            job.record(outbox, None)
        return data

    async def _prepare_in_thread(self, outboxes: Iterator[Box]) -> None:
        # Abandoned only when the server stops. The default limiter belongs to the application.
        work, one = partial(self._prepare_here, outboxes), CapacityLimiter(1)
        await to_thread.run_sync(work, abandon_on_cancel=True, limiter=one)

    def _prepare_here(self, outboxes: Iterator[Box]) -> None:
        for outbox in islice(outboxes, CHUNK):
            job = outbox.first
            if job is None:
                continue
            try:
                made = job.preparation.begin(outbox.process.user)
                if isinstance(made, Unfinished):
                    outbox.begun = made
                    self._in_loop.add(outbox)
                    continue
                self._publish(outbox, job, made)
            except Exception as error:
                self._fail(outbox, job, error)
            if (after := outbox.advance()) is not None:
                self._schedule(outbox, after)

    def _fail(self, outbox: Box, job: Job, error: BaseException) -> None:
        _logger.error(
            "preparing a notification of %r failed; one client process does not get it",
            self._name,
            exc_info=error,
            extra=event("function.failed", notifier=self._name),
        )
        job.record(outbox, None)
