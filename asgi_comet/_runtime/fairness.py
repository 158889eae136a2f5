"""Time slices: how long work continues before other tasks run. Must not know the work."""

from __future__ import annotations

import time

from anyio.lowlevel import checkpoint

__all__ = ["Slice"]

STRETCH = 0.005  # seconds of work between two turns of the loop


class Slice:
    """A time slice. All tasks that share a `Slice` take `STRETCH` together."""

    __slots__ = ("_began", "_number")

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._number = 0

    @property
    def used(self) -> bool:
        """Whether the time slice is used up."""
        return time.perf_counter() - self._began > STRETCH

    async def yield_(self) -> None:
        """Let other tasks run."""
        number = self._number
        await checkpoint()
        if self._number == number:  # the first task to resume starts the next slice for all
            self._number += 1
            self._began = time.perf_counter()
