"""The rooms that a request passes through, in one frozen value. Holds no logic."""

from __future__ import annotations

from dataclasses import dataclass

from .activation import Activation
from .background import Background
from .brokers.base import Broker
from .channels import Channels
from .clock import Clock
from .drain import Drain
from .fanout import Fanout
from .origin import OriginRule
from .registry import Processes
from .settings import Settings
from .threads import LoopThread
from .timers import Timers
from .visits import Visits

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
    broker: Broker
    background: Background
    drain: Drain
    processes: Processes
    visits: Visits
