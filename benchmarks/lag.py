"""How long a loop stood still: probes at a fixed rate, those that a stall held up included."""

from __future__ import annotations

import asyncio
import time

INTERVAL = 0.01  # seconds between two probes


class LoopLag:
    """The delays of probes that were due every `INTERVAL`, since they were last taken.

    A stall of a second delays not one probe but a hundred, each a little less than the one before:
    they are counted, so a percentile is that of time and not of turns of the loop.
    """

    def __init__(self) -> None:
        self._delays: list[float] = []

    async def watch(self) -> None:
        """Probe until cancelled."""
        due = time.perf_counter()
        while True:
            due += INTERVAL
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            now = time.perf_counter()
            while due < now - INTERVAL:
                self._delays.append(now - due)
                due += INTERVAL
            self._delays.append(max(0.0, now - due))

    def take(self) -> dict[str, float]:
        """Return the 99th percentile and the maximum in seconds, and begin anew."""
        delays, self._delays = sorted(self._delays), []
        if not delays:
            return {"p99": 0.0, "max": 0.0}
        return {"p99": delays[int(len(delays) * 0.99)], "max": delays[-1]}
