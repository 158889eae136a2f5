"""How notifications get to the processes that listen, off the path of those who notify.

Owns the line in which a notifier's notifications wait, the task that hands them out in that order,
and the tasks and threads that prepare them: a process has at most one in preparation, so its order
holds, and one that takes long holds up nobody else. Must not know keys.

What is the same for all is published straight from the line, a stretch of time per turn of the
loop. What is not goes through an outbox per process. Sync functions run in a worker thread, which
takes `CHUNK` processes and publishes as it goes; another thread helps while there is still somebody
waiting after `SPARE` seconds, for the first one may be stuck. More at once would only wait for
Python's global lock, and have the loop wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from inspect import iscoroutine

from anyio import CapacityLimiter, to_thread

from .errors import ChannelClosed, ChannelFull, NotifierFull
from .hub import Hub
from .interrupts import Deadline, make_interrupt, pass_cancellation
from .outboxes import Errand, Outbox, Rest
from .timers import Timer
from .turns import Turn

__all__ = ["Dispatch"]

_logger = logging.getLogger(__name__)

WAITING = 10_000  # notifications in line, per notifier
WAITING_BYTES = 64 * 2**20  # of those that are the same for all
OUTBOX = 1000  # notifications that wait to be prepared for one process
JOBS = 32  # processes for which something is being prepared in the loop
THREADS = 8  # the same in worker threads
CHUNK = 256  # processes that a worker thread sees to before the loop looks again
SPARE = 0.1  # seconds until another thread helps
LIMIT = 10.0  # seconds that preparing one message may take in the loop


class Dispatch:
    """Hands out the notifications of one notifier. Thread-safe.

    Args:
        hub: Where messages go and tasks run.
        name: The notifier's.
        forget: Called with an outbox whose channel has ended.
    """

    def __init__(self, hub: Hub, name: str, forget: Callable[[Outbox], None]) -> None:
        self._hub = hub
        self._name = name
        self._forget = forget
        self._lock = threading.Lock()
        self._line: deque[Errand] = deque()
        self._bytes = 0
        self._draining = False
        self._for_loop: deque[Outbox] = deque()  # each is in one of the two, or in hand
        self._for_threads: deque[Outbox] = deque()
        self._jobs = 0
        self._threads = 0
        self._spare = _Spare(self._help)
        self._watching = False  # whether the spare timer runs
        self._turn = Turn()

    def add(self, errand: Errand) -> None:
        """Put a notification at the end of the line.

        Raises:
            NotifierFull: The line is as long as it may be.
        """
        size = len(errand.recipe.data or b"")
        with self._lock:
            if len(self._line) >= WAITING or self._bytes + size > WAITING_BYTES:
                raise NotifierFull(self._name, WAITING, WAITING_BYTES)
            self._bytes += size
            self._line.append(errand)
            first, self._draining = not self._draining, True
        if first:
            self._hub.background.start(self._drain)

    def drop(self, outbox: Outbox) -> None:
        """Forget what a client process has still to get."""
        with self._lock:
            outbox.gone = True
            pending = list(outbox.pending)
            outbox.pending.clear()
        for errand in pending:
            errand.record(outbox, None)
            self._finish(errand)
        self._hub.loop.run(partial(_call_off, outbox))

    # In the loop: from the line to the outboxes, or straight to the channels

    async def _drain(self) -> None:
        try:
            while (errand := self._next()) is not None:
                try:
                    await self._hand_out(errand)
                except Exception:  # a user's own `==`: the others' turn comes all the same
                    _logger.exception("a notification of %r was not handed out", self._name)
                finally:
                    self._finish(errand)
        except BaseException:  # the server stops; otherwise `_next` said so, and another may drain
            with self._lock:
                self._draining = False
            raise

    def _next(self) -> Errand | None:
        with self._lock:
            if self._line:
                errand = self._line.popleft()
                self._bytes -= len(errand.recipe.data or b"")
                return errand
            self._draining = False
            return None

    async def _hand_out(self, errand: Errand) -> None:
        turn, data = self._turn, errand.recipe.data
        for outbox in errand.targets:
            if not errand.skips(outbox.process):
                if data is not None and not outbox.pending:
                    self._publish(outbox, errand, data)
                else:
                    self._queue(outbox, errand)
            if turn.over:
                await turn.rest()
        if data is None:
            await turn.rest()  # or a burst would fill the outboxes before anybody sees to them

    def _queue(self, outbox: Outbox, errand: Errand) -> None:
        with self._lock:
            waiting = len(outbox.pending)
            taken = waiting < OUTBOX and not outbox.gone
            if taken:
                errand.left += 1
                outbox.pending.append(errand)
        if not taken:
            errand.record(outbox, None)
            self._end(outbox, "is prepared too slowly")
        elif waiting == 0:
            self._schedule(outbox, errand)

    def _schedule(self, outbox: Outbox, errand: Errand) -> None:
        in_loop = errand.recipe.in_loop or outbox.rest is not None
        (self._for_loop if in_loop else self._for_threads).append(outbox)
        self._hub.loop.run(self._employ)

    def _employ(self) -> None:
        if self._for_loop and self._jobs < JOBS:
            self._jobs += 1
            self._hub.background.start(self._work)
        if self._for_threads:
            if self._threads == 0:
                self._help()
            elif not self._watching:
                self._watch()

    def _help(self) -> None:
        """Have a thread see to those who wait for one, and another if they wait too long."""
        self._watching = False
        if self._for_threads and self._threads < THREADS:
            self._threads += 1
            self._hub.background.start(self._work_in_thread)
            self._watch()

    def _watch(self) -> None:
        self._watching = True
        self._hub.timers.start(self._spare, SPARE)

    # In the loop: what is async

    async def _work(self) -> None:
        try:
            while self._for_loop:
                await self._see_to(self._for_loop.popleft())
                if self._turn.over:
                    await self._turn.rest()
        finally:
            self._jobs -= 1

    async def _see_to(self, outbox: Outbox) -> None:
        errand, rest = self._head(outbox), outbox.rest
        if errand is None:
            if rest is not None and iscoroutine(rest.value):
                rest.value.close()  # nobody waits for it any more
            return
        try:
            data = await self._within_limit(outbox, errand, rest)
        except (Exception, asyncio.CancelledError) as error:
            pass_cancellation(error)
            self._fail(outbox, errand, error)
        else:
            self._deliver(outbox, errand, data)
        self._go_on(outbox, errand)

    async def _within_limit(
        self, outbox: Outbox, errand: Errand, rest: Rest | None
    ) -> bytes | None:
        hub = self._hub
        interrupt = outbox.interrupt = make_interrupt(hub.loop.asyncio)
        late: list[bool] = []
        deadline = Deadline(interrupt, lambda: late.append(True))
        hub.timers.start(deadline, LIMIT)
        try:
            data = await interrupt.run(lambda: errand.recipe.go_on(outbox.process.user, rest))
        finally:
            hub.timers.stop(deadline)
            outbox.interrupt = None
        if late:
            _logger.warning(
                "preparing a notification of %r took more than %g s and was cut off; "
                "one client process does not get it",
                self._name,
                LIMIT,
            )
            errand.record(outbox, None)
        return data

    # In worker threads: what is sync

    async def _work_in_thread(self) -> None:
        limiter = CapacityLimiter(1)  # its own: those of the application's endpoints are theirs
        try:
            while self._for_threads:
                # Abandoned only when the server stops: nothing can end what is stuck in a thread.
                await to_thread.run_sync(self._take, abandon_on_cancel=True, limiter=limiter)
        finally:
            self._threads -= 1
            if self._threads == 0:
                self._watching = False
                self._hub.timers.stop(self._spare)

    def _take(self) -> None:
        for _ in range(CHUNK):
            try:
                outbox = self._for_threads.popleft()
            except IndexError:  # another thread took it
                return
            self._see_to_here(outbox)

    def _see_to_here(self, outbox: Outbox) -> None:
        errand = self._head(outbox)
        if errand is None:
            return
        try:
            made = errand.recipe.begin(outbox.process.user)
        except Exception as error:
            self._fail(outbox, errand, error)
        else:
            if isinstance(made, Rest):
                outbox.rest = made
                self._schedule(outbox, errand)
                return
            self._deliver(outbox, errand, made)
        self._go_on(outbox, errand)

    # Anywhere

    def _head(self, outbox: Outbox) -> Errand | None:
        with self._lock:
            return outbox.pending[0] if outbox.pending else None

    def _go_on(self, outbox: Outbox, errand: Errand) -> None:
        outbox.rest = None
        with self._lock:
            if outbox.gone:
                return
            outbox.pending.popleft()
            after = outbox.pending[0] if outbox.pending else None
        self._finish(errand)
        if after is not None:
            self._schedule(outbox, after)

    def _deliver(self, outbox: Outbox, errand: Errand, data: bytes | None) -> None:
        if data is not None and not outbox.gone:
            self._publish(outbox, errand, data)

    def _publish(self, outbox: Outbox, errand: Errand, data: bytes) -> None:
        # Not `Channels.publish`: measured, a `Delivery` that nobody can await costs a third more.
        try:
            stored = self._hub.broker.append(outbox.feed, data)
        except (ChannelFull, ChannelClosed) as error:
            errand.record(outbox, None)
            self._end(outbox, "is full" if isinstance(error, ChannelFull) else "has ended")
        else:
            errand.record(outbox, stored)

    def _fail(self, outbox: Outbox, errand: Errand, error: BaseException) -> None:
        _logger.error(
            "preparing a notification of %r failed; one client process does not get it",
            self._name,
            exc_info=error,
        )
        errand.record(outbox, None)

    def _end(self, outbox: Outbox, why: str) -> None:
        if outbox.gone:
            return
        _logger.info("a channel of notifier %r %s: its keys are forgotten", self._name, why)
        if why != "has ended":
            self._hub.channels.end(outbox.feed, "full")
        self._forget(outbox)

    def _finish(self, errand: Errand) -> None:
        with self._lock:
            errand.left -= 1
            done = errand.left == 0
        notification = errand.notification()
        if done and notification is not None:
            notification.finish()


def _call_off(outbox: Outbox) -> None:
    if outbox.interrupt is not None:
        outbox.interrupt.fire()
    for wait in list(outbox.waits):
        wait.settle(outbox)


class _Spare(Timer):
    """Sees that one thread is not enough."""

    __slots__ = ("_help",)

    def __init__(self, help_: Callable[[], None]) -> None:
        super().__init__()
        self._help = help_

    def expire(self) -> None:
        """Have another one help, if anybody waits."""
        self._help()
