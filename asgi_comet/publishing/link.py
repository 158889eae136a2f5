"""The connection of a process that publishes: a thread with an event loop of its own.

Owns which messages wait to be stored, and which were lost. Must not know when the application
enters and leaves.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import anyio.lowlevel

from asgi_comet._runtime.functions import name_of
from asgi_comet._runtime.tasks import supervise
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import Stored, Unsuitable
from asgi_comet.channels.feed import Feed
from asgi_comet.errors import BrokerUnavailable, CometError
from asgi_comet.log_events import event
from asgi_comet.node.build import Node
from asgi_comet.position import Position

__all__ = ["Job", "Link"]

_logger = logging.getLogger(__name__)

Job = Callable[[], Awaitable[None]]
T = TypeVar("T")


class Link:
    """One connection, from the first `enter` to the last `leave`.

    Args:
        node: The parts of the Comet.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._broker: Broker = node.broker
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._main, name="comet.publishing", daemon=True)
        self._opened: weakref.WeakSet[Feed] = weakref.WeakSet()
        self._pending: deque[Callable[[], Awaitable[object]]] = deque()
        self._waiting = 0  # messages in `_pending`
        self._lost: list[CometError] = []  # the first error
        self._lost_count = 0
        self._jobs: set[asyncio.Task[None]] = set()
        self._work: asyncio.Event
        self._refused: asyncio.Event
        self._refusal: Unsuitable | None = None

    # In any thread

    def begin(self) -> None:
        """Start the thread; return when the loop of the thread runs."""
        self._thread.start()
        self._begun.wait()

    def stop(self) -> None:
        """End the thread; give up messages that are not stored."""
        self._call(self._stop)
        self._thread.join()

    def open(self, feed: Feed) -> None:
        """Announce a channel, once."""
        with self._lock:
            known = feed in self._opened
            self._opened.add(feed)
        if not known:
            self.start(partial(self._open, feed))

    def append(self, feed: Feed, data: bytes, id_: str | None) -> Stored:
        """Append a message.

        Raises:
            Unsuitable: The broker never carries messages until an operator changes something.
        """
        self._check()
        self.open(feed)
        stored = self._broker.append(feed, data, id=id_)
        assert not isinstance(stored, int)  # noqa: S101 - a shared broker does not store at once
        self.watch(stored)
        return partial(self._wait, stored)

    def watch(self, stored: Callable[[], Awaitable[object]]) -> None:
        """Wait for something in its turn, and count it as lost if the wait fails."""
        with self._lock:
            self._waiting += 1
            nudge = not self._pending
            self._pending.append(partial(self._settle, stored))
        if nudge:
            self._call(self._nudge)

    async def carry(self, wait: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the loop of the thread, and return its result."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(wait(), self._loop))

    def start(self, job: Job) -> None:
        """Run a job."""
        self._call(partial(self._begin, job))

    def finish(self) -> None:
        """Store all messages, because the process ends without leaving."""
        if self._loop.is_closed():  # the process has left
            return
        if not self.wait_stored().result():
            lost = self.tell_lost(False)
            _logger.error("%s", lost, extra=event("message.lost", reason=str(lost)))

    def wait_stored(self) -> Future[bool]:
        """Return whether no message waits, once none waits or the patience has ended."""
        return asyncio.run_coroutine_threadsafe(self._wait_stored(), self._loop)

    def tell_lost(self, settled: bool) -> BrokerUnavailable | None:
        """Return an error if messages were not stored since the last call.

        Args:
            settled: Whether the waiting messages are those of other blocks.
        """
        with self._lock:
            waiting = 0 if settled else self._waiting
            count, self._lost_count = self._lost_count + waiting, 0
            lost, self._lost = self._lost, []
        if not count:
            return None
        messages = "1 message was" if count == 1 else f"{count} messages were"
        refusal = self._find_refusal()
        why = f": {_reason_of(lost[0])}" if lost else self._tell_trouble(refusal)
        in_doubt = waiting > 0 and refusal is None
        maybe = in_doubt or any(getattr(one, "maybe_stored", False) for one in lost)
        error = BrokerUnavailable(f"{messages} not stored{why}", maybe_stored=maybe)
        error.__cause__ = lost[0] if lost else None
        return error

    def _tell_trouble(self, refusal: Unsuitable | None) -> str:
        """Return why messages still wait."""
        if refusal is not None:
            return f": {refusal.reason}"
        trouble = self._broker.trouble
        return f" within {self._broker.patience:g} s{trouble and ': '}{trouble}"

    def _find_refusal(self) -> Unsuitable | None:
        """Return the error of an unsuitable broker, until an operator has mended the broker."""
        if not self._broker.trouble:
            self._refusal = None
        return self._refusal

    def _check(self) -> None:
        refusal = self._find_refusal()
        if refusal is not None:
            raise Unsuitable(refusal.reason)

    async def _wait(self, stored: Callable[[], Awaitable[Position]]) -> Position:
        """Wait in the loop of the application for a message."""

        async def wait() -> Position:
            return await self._unless_refused(stored())

        if self._loop.is_closed():
            return await stored()  # the message is settled
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(wait(), self._loop))

    def _call(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    # In the thread

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        node = self._node
        self._loop, self._work = asyncio.get_running_loop(), asyncio.Event()
        self._ended, self._refused = asyncio.Event(), asyncio.Event()
        node.loop.enter(serves=False)
        node.broker.prepare()
        tasks = [
            asyncio.create_task(supervise(run, node.clock, node.down))
            for run in (
                node.fanout.run,
                node.timers.run,
                node.broker.run,
                self._watch,
            )
        ]
        tasks.append(asyncio.create_task(self._await_broker()))
        await anyio.lowlevel.checkpoint()  # for imports: a fork must not happen during an import
        self._begun.set()
        await self._ended.wait()
        for task in (*tasks, *self._jobs):
            task.cancel()
        await asyncio.gather(*tasks, *self._jobs, return_exceptions=True)
        node.broker.give_up()
        node.loop.leave()
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*waiting, return_exceptions=True)  # the waiters get their errors now

    def _stop(self) -> None:
        self._ended.set()

    def _nudge(self) -> None:
        self._work.set()

    def _begin(self, job: Job) -> None:
        task = asyncio.create_task(_run_job(job))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _open(self, feed: Feed) -> None:
        try:
            await self._broker.open(feed)
        except CometError as error:
            _logger.error(  # noqa: TRY400 - the text says all
                "channel %.200r is not known to the workers: %s",
                feed.name,
                error,
                extra=event("channel.unshared", channel=feed.name, reason=str(error)),
            )
            self._node.channels.ending.end(feed, "failed", tell=False)

    async def _await_broker(self) -> None:
        """End all waits once the broker is refused."""
        try:
            await self._broker.ready()
        except Unsuitable as error:
            self._refusal = error
            self._refused.set()

    async def _unless_refused(self, waiting: Awaitable[T]) -> T:
        """Wait for the broker, unless waiting is in vain.

        Raises:
            Unsuitable: The broker is refused.
        """
        wanted = asyncio.ensure_future(waiting)
        refused = asyncio.create_task(self._refused.wait())
        try:
            await asyncio.wait({wanted, refused}, return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                self._check()
            return await wanted
        finally:
            wanted.cancel()
            refused.cancel()

    async def _watch(self) -> None:
        """Wait for each message in its turn."""
        while True:
            self._work.clear()
            while self._pending:
                await self._pending[0]()
                with self._lock:
                    self._pending.popleft()
            await self._work.wait()

    async def _settle(self, stored: Callable[[], Awaitable[object]]) -> None:
        try:
            await stored()
        except CometError as error:
            with self._lock:
                self._lost_count += 1
                self._lost = self._lost or [error]
        with self._lock:
            self._waiting -= 1

    async def _wait_stored(self) -> bool:
        reached = asyncio.Event()

        async def reach() -> None:
            reached.set()

        async def settle() -> None:
            await asyncio.gather(*map(asyncio.shield, jobs))
            await reached.wait()

        jobs = list(self._jobs)
        with self._lock:
            self._pending.append(reach)
        self._nudge()
        try:
            async with asyncio.timeout(self._broker.patience):
                await self._unless_refused(settle())
        except (TimeoutError, Unsuitable):
            return False
        return True


def _reason_of(error: CometError) -> str:
    return error.reason if isinstance(error, BrokerUnavailable) else str(error)


async def _run_job(job: Job) -> None:
    try:
        await job()
    except Exception:
        _logger.exception(
            "a background job failed: %s",
            name_of(job),
            extra=event("internal.failed", function=name_of(job)),
        )
