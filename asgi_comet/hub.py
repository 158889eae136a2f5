"""The rooms that a request passes through, in one frozen value. Holds no logic."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from .activation import Activation
from .authorisation import Guards
from .background import Background
from .brokers.base import Broker
from .channels import Channels
from .clock import Clock
from .declarations import Declarations
from .drain import Drain
from .fanout import Fanout
from .origin import OriginRule
from .processes import ClientProcess
from .registry import Processes
from .settings import Settings
from .siblings import Siblings
from .threads import LoopThread
from .timers import Timers
from .users import Users
from .visits import Visits

__all__ = ["Hub"]


@dataclass(frozen=True, slots=True)
class Hub:
    """What transports and admin work on. One per `Comet`.

    Attributes:
        notifiers: By name what each is called with, at once, when a client process has closed.
        limits_checked: Set with the first WebSocket: what the server lets in was looked at.
    """

    settings: Settings
    clock: Clock
    loop: LoopThread
    timers: Timers
    fanout: Fanout
    channels: Channels
    declarations: Declarations
    activation: Activation
    origins: OriginRule
    broker: Broker
    background: Background
    drain: Drain
    processes: Processes
    visits: Visits
    users: Users
    guard: Guards
    siblings: Siblings
    limits_checked: threading.Event = field(default_factory=threading.Event)
    notifiers: dict[str, Callable[[ClientProcess], None]] = field(default_factory=dict)
