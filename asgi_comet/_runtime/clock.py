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

    async def sleep_until(self, moment: float) -> None:
        """Return once `now()` is that much; a checkpoint at least."""
        ...


class MonotonicClock:
    """The machine's own monotonic clock."""

    def now(self) -> float:
        """Return the seconds since some fixed moment."""
        return time.monotonic()

    async def sleep_until(self, moment: float) -> None:
        """Return at that moment."""
        await anyio.sleep(max(moment - time.monotonic(), 0))
