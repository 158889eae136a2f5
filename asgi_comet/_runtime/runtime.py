"""The loop, timers, clock, background tasks and counters, in one frozen value. Holds no logic."""

from __future__ import annotations

from dataclasses import dataclass, field

from asgi_comet._runtime.clock import ExchangeableClock
from asgi_comet._runtime.counters import Counters
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.tasks import Background
from asgi_comet._runtime.timers import Timers

__all__ = ["Runtime"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """The runtime of one `Comet`.

    Attributes:
        loop: The thread of the event loop.
        timers: The timers.
        clock: The clock.
        background: The background tasks.
        counters: What this worker has counted.
    """

    loop: LoopThread
    timers: Timers
    clock: ExchangeableClock
    background: Background
    counters: Counters = field(default_factory=Counters)
