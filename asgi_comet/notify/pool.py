"""A pool of workers: tasks that take items from one queue, and end when it is empty.

Owns how many workers run, and when another one starts. Must not know the items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import Timer

__all__ = ["Pool"]

T = TypeVar("T")


class Pool(Timer, Generic[T]):
    """Up to `limit` workers, which take items in the order of addition.

    Workers start only when there are items, and end when there are none. A worker that is stuck
    keeps its item; the other workers take the rest.

    Args:
        runtime: Runs the workers.
        work: Called by a worker, again and again while items wait, with an iterator that takes them
            one by one. The iterator ends when no item waits; `work` may stop before, and may
            iterate in another thread.
        limit: How many workers run at a time.
        spare: Seconds until another worker starts while items wait; 0 starts one with each item.
    """

    __slots__ = ("_limit", "_runtime", "_spare", "_work", "_workers", "waiting")

    def __init__(
        self,
        runtime: Runtime,
        work: Callable[[Iterator[T]], Awaitable[None]],
        *,
        limit: int,
        spare: float = 0.0,
    ) -> None:
        super().__init__()
        self._runtime = runtime
        self._work = work
        self._limit = limit
        self._spare = spare
        self._workers = 0
        self.waiting: deque[T] = deque()

    def add(self, item: T) -> None:
        """Add an item at the end. Thread-safe."""
        self.waiting.append(item)
        self._runtime.loop.run(self._employ)

    def expire(self) -> None:
        """Start another worker, if items wait. In the loop's thread."""
        if self.waiting and self._workers < self._limit:
            self._workers += 1
            self._runtime.background.start(self._run)
            if self._spare:
                self._runtime.timers.start(self, self._spare)

    def _employ(self) -> None:
        if self._workers == self._limit:
            return
        if self._workers == 0 or not self._spare:
            self.expire()
        elif self._bucket is None:  # the timer does not run
            self._runtime.timers.start(self, self._spare)

    async def _run(self) -> None:
        try:
            while self.waiting:
                await self._work(self._take())
        finally:
            self._workers -= 1
            if self._workers == 0:
                self._runtime.timers.stop(self)

    def _take(self) -> Iterator[T]:
        with suppress(IndexError):  # no item waits, or another worker took the last one
            while True:
                yield self.waiting.popleft()
