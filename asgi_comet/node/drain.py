"""Draining: the server stops, so nobody waits any more.

Owns who is kept waiting beside the listeners of the fan-out: requests whose body is still coming.
Used only in the loop's thread.
"""

from __future__ import annotations

from asgi_comet._runtime.timers import Timers
from asgi_comet._runtime.waiting import Interrupt
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Wake

__all__ = ["Drain"]


class Drain:
    """Ends all waiting.

    Args:
        fanout: Whose listeners are answered as at their timeout.
        timers: Whose waits end that an endpoint may be in.
    """

    def __init__(self, fanout: Fanout, timers: Timers) -> None:
        self._fanout = fanout
        self._timers = timers
        self.begun: bool = False
        self.reading: set[Interrupt] = set()  # requests whose body is still coming

    def reset(self) -> None:
        """The server starts."""
        self.begun = self._timers.hastened = False

    def begin(self) -> None:
        """Let nobody wait from now on. Idempotent."""
        self.begun = True
        self._fanout.end(Wake.TIMEOUT)
        self._timers.hasten()
        for interrupt in list(self.reading):
            interrupt.fire()
