"""What runs beside the requests, in one frozen value that most rooms need. Holds no logic."""

from __future__ import annotations

from dataclasses import dataclass

from asgi_comet._runtime.clock import Clock
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.tasks import Background
from asgi_comet._runtime.timers import Timers

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
