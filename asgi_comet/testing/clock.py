"""A clock for tests, advanced by hand."""

from __future__ import annotations

import threading
from itertools import count

import anyio

from asgi_comet._runtime.loop import LoopThread

_moments = count(1)


def moment() -> int:
    """Return a number that tells what came first while the clock stood still. Thread-safe."""
    return next(_moments)


class ManualClock:
    """A clock that stands still until it is advanced. Thread-safe.

    Pass it to `Comet(…, clock=clock)`; then no timeout expires before `advance`.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.Lock()
        self._sleepers: dict[anyio.Event, tuple[float, LoopThread]] = {}

    def now(self) -> float:
        """Return the sum of all advances, in seconds."""
        return self._now

    async def sleep_until(self, moment: float) -> None:
        """Wait until the clock was advanced to that moment."""
        loop = LoopThread()
        loop.enter()
        woken = anyio.Event()
        with self._lock:
            if moment <= self._now:
                woken.set()
            self._sleepers[woken] = moment, loop
        try:
            await woken.wait()
        finally:
            with self._lock:
                del self._sleepers[woken]

    def advance(self, seconds: float) -> None:
        """Advance the clock, and wake the tasks whose sleep ends."""
        with self._lock:
            self._now += seconds
            due = [(w, loop) for w, (until, loop) in self._sleepers.items() if until <= self._now]
        for woken, loop in due:
            loop.run(woken.set)
