"""Turns of the event loop: how long work goes on before others have theirs. Must not know whose."""

from __future__ import annotations

import time

from anyio.lowlevel import checkpoint

__all__ = ["Turn"]

STRETCH = 0.005  # seconds of work between two turns of the loop


class Turn:
    """Shares the loop's time: tasks with one `Turn` take `STRETCH` together, however many."""

    __slots__ = ("_began", "_number")

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._number = 0

    @property
    def over(self) -> bool:
        """Whether others have waited long enough."""
        return time.perf_counter() - self._began > STRETCH

    async def rest(self) -> None:
        """Let the loop turn."""
        number = self._number
        await checkpoint()
        if self._number == number:  # the first of those who rested; its time is for all of them
            self._number += 1
            self._began = time.perf_counter()
