"""The copies of sessions and client processes that were used lately.

Owns for how long an unused copy stays. Must not know what a copy is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import Timeout

__all__ = ["Used"]

T = TypeVar("T")

KEPT = 30.0  # seconds after its last use in which a copy stays
SWEEP = 5.0  # seconds between two looks for copies to put away
LIMIT = 100_000  # copies; beyond it the oldest go at once


class Used(Generic[T]):
    """The copies, the longest unused first. The caller holds the lock.

    Args:
        runtime: Runs the timer.
        lock: The lock of the caller, who holds it.
        is_needed: Returns whether a copy is in use; it then stays for another while.
        put_away: Called with each other one.
    """

    def __init__(
        self,
        runtime: Runtime,
        lock: AbstractContextManager[object],
        is_needed: Callable[[T], bool],
        put_away: Callable[[T], None],
    ) -> None:
        self._runtime = runtime
        self._lock = lock
        self._is_needed = is_needed
        self._put_away = put_away
        self._since: dict[T, float] = {}
        self._timer = Timeout(self._sweep)
        self._runs = False

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, one: T) -> bool:
        return one in self._since

    def add(self, one: T) -> None:
        """Record that a copy is used now."""
        self._since.pop(one, None)
        self._since[one] = self._runtime.clock.now()
        if not self._runs:
            self._runs = True
            self._runtime.loop.run(self._start)
        if len(self._since) > LIMIT:
            self._look(next(iter(self._since)))

    def discard(self, one: T) -> None:
        """Forget a copy that was put away."""
        self._since.pop(one, None)

    def clear(self) -> None:
        """Forget all copies."""
        self._since.clear()
        self._runs = False
        self._runtime.timers.stop(self._timer)

    def _start(self) -> None:
        self._runtime.timers.start(self._timer, SWEEP)

    def _sweep(self) -> None:
        until = self._runtime.clock.now() - KEPT
        with self._lock:
            while self._since:
                one, since = next(iter(self._since.items()))
                if since > until:
                    self._start()
                    return
                self._look(one)
            self._runs = False

    def _look(self, one: T) -> None:
        del self._since[one]
        if self._is_needed(one):
            self._since[one] = self._runtime.clock.now()
        else:
            self._put_away(one)
