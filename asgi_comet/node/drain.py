"""Draining: ends all waits when the server stops.

Owns the waits beside the listeners of the fan-out: requests whose body is still coming.
Used only in the loop's thread.
"""

from __future__ import annotations

from asgi_comet._runtime.timers import Timers
from asgi_comet._runtime.waiting import Interrupt
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Wake

__all__ = ["Drain"]


class Drain:
    """Ends all waits.

    Args:
        fanout: Its listeners are answered as at their timeout.
        timers: Timers that endpoints may wait for are settled.
    """

    def __init__(self, fanout: Fanout, timers: Timers) -> None:
        self._fanout = fanout
        self._timers = timers
        self.begun: bool = False
        self.reading: set[Interrupt] = set()  # requests whose body is still coming

    def reset(self) -> None:
        """Reset, when the server starts."""
        self.begun = self._timers.stopping = False

    def begin(self) -> None:
        """End all waits, now and later. Idempotent."""
        self.begun = True
        self._fanout.end(Wake.TIMEOUT)
        self._timers.shut_down()
        for interrupt in list(self.reading):
            interrupt.fire()
