"""Waiting until a client process is inactive.

Owns the length of each wait. Must not know when an inactive process is closed.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import RESOLUTION
from asgi_comet.identity.presence import Present

__all__ = ["Watch"]

PAUSE = 1.0  # seconds between two questions to the other workers


class Watch:
    """The waits for one client process.

    Args:
        process: The client process.
        runtime: Runs the timers.
        ask: Returns for how many seconds the process has had no connection in any worker; `None`
            if there is no other worker.
    """

    __slots__ = ("_ask", "_looks", "_process", "_runtime")

    def __init__(
        self, process: Present, runtime: Runtime, ask: Callable[[], Awaitable[float | None]]
    ) -> None:
        self._process = process
        self._runtime = runtime
        self._ask = ask
        self._looks: set[anyio.Event] = set()  # each wakes one wait

    def __len__(self) -> int:
        return len(self._looks)

    def wake(self) -> None:
        """End all waits: the process has closed."""
        for look in self._looks:
            look.set()

    async def wait(self, seconds: float) -> None:
        """Return once the process has been inactive for that many seconds, or has closed.

        Raises:
            BrokerUnavailable: The other workers cannot be asked.
            ValueError: `seconds` is negative or not finite.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"expected a number of seconds, at least 0, got {seconds!r}")
        self._runtime.loop.check()
        while not self._ended:
            left = await self._left(seconds)
            if left <= 0 or self._ended:
                return
            look = anyio.Event()
            self._looks.add(look)
            try:
                await self._runtime.timers.wait(look, left, until_shutdown=True)
            finally:
                self._looks.discard(look)

    @property
    def _ended(self) -> bool:
        return self._process.closed or self._runtime.timers.stopping

    async def _left(self, seconds: float) -> float:
        """Return how long to wait until the next look; 0 if the process is inactive."""
        process = self._process
        here = 0.0 if process.connections else process.inactive_for()
        if process.connections or here < seconds:
            return max(seconds - here, RESOLUTION)
        everywhere = await self._ask()
        if everywhere is None or (everywhere and everywhere >= seconds):
            return 0.0
        return max(seconds - everywhere, PAUSE)
