"""The rooms that a request passes through, in one frozen value. Holds no logic."""

from __future__ import annotations

from dataclasses import dataclass

from .activation import Activation
from .channels import Channels
from .clock import Clock
from .fanout import Fanout
from .origin import OriginRule
from .settings import Settings
from .threads import LoopThread
from .timers import Timers

__all__ = ["Hub"]


@dataclass(frozen=True, slots=True)
class Hub:
    """What transports and admin work on. One per `Comet`."""

    settings: Settings
    clock: Clock
    loop: LoopThread
    timers: Timers
    fanout: Fanout
    channels: Channels
    activation: Activation
    origins: OriginRule
