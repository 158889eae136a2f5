"""What runs beside the requests, in one frozen value that most rooms need. Holds no logic."""

from __future__ import annotations

from dataclasses import dataclass

from .background import Background
from .clock import Clock
from .threads import LoopThread
from .timers import Timers

__all__ = ["Runtime"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and when things happen. One per `Comet`.

    Attributes:
        loop: The thread of the event loop.
        timers: What expires.
        clock: What time it is.
        background: What runs in tasks of its own.
    """

    loop: LoopThread
    timers: Timers
    clock: Clock
    background: Background
