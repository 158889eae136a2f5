"""The rooms that a request passes through, in one frozen value. Holds no logic."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from asgi_comet._runtime.clock import Clock
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.tasks import Background
from asgi_comet._runtime.timers import Timers
from asgi_comet.activation import Activation
from asgi_comet.brokers.base import Broker
from asgi_comet.channels.channels import Channels
from asgi_comet.channels.fanout import Fanout
from asgi_comet.declare.declarations import Declarations
from asgi_comet.http.origin import OriginRule
from asgi_comet.identity.current import Visits
from asgi_comet.identity.guard import Guards
from asgi_comet.identity.process import ClientProcess
from asgi_comet.identity.registry import Processes
from asgi_comet.identity.users import Users
from asgi_comet.node.drain import Drain
from asgi_comet.settings import Settings
from asgi_comet.workers.siblings import Siblings

__all__ = ["Hub"]


@dataclass(frozen=True, slots=True)
class Hub:
    """What transports and admin work on. One per `Comet`.

    Attributes:
        notifiers: By name what each is called with, at once, when a client process has closed.
        limits_checked: Set with the first WebSocket: what the server lets in was looked at.
    """

    settings: Settings
    runtime: Runtime
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
