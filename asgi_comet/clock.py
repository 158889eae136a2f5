"""The clock that everything reads, so that tests can turn it by hand."""

from __future__ import annotations

import time
from typing import Protocol

import anyio

__all__ = ["Clock", "MonotonicClock"]


class Clock(Protocol):
    """Monotonic time in seconds. `now` is thread-safe."""

    def now(self) -> float:
        """Return the seconds since some fixed moment; never falls."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once `now()` has grown by that much; a checkpoint at least."""
        ...


class MonotonicClock:
    """The machine's own monotonic clock."""

    def now(self) -> float:
        """Return the seconds since some fixed moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return that many seconds later."""
        await anyio.sleep(seconds)
