"""The parts of one Comet that serve requests, in one frozen value. Holds no logic."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from asgi_comet._runtime.clock import Clock
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.tasks import Background, Job
from asgi_comet._runtime.timers import Timers
from asgi_comet.activation import Switch
from asgi_comet.brokers.base import Broker
from asgi_comet.channels.channels import AllChannels
from asgi_comet.channels.fanout import Fanout
from asgi_comet.declare.declarations import Declarations
from asgi_comet.http.origin import OriginRule
from asgi_comet.identity.clients import Clients
from asgi_comet.identity.endings import Endings
from asgi_comet.identity.guard import Guards
from asgi_comet.identity.process import Client
from asgi_comet.identity.requests import Requests
from asgi_comet.identity.users import Users
from asgi_comet.node.drain import Drain
from asgi_comet.settings import Settings
from asgi_comet.workers.siblings import Siblings

__all__ = ["Node"]


@dataclass(frozen=True, slots=True)
class Node:
    """The parts of a Comet, for transports and admin. One per `Comet`.

    Attributes:
        endings: The functions that run once for each closed client process.
        down: The tasks of the lifespan that have crashed, until they are started again.
        notifiers: By name, functions called at once when a client process has closed.
        limits_checked: Set by the first WebSocket, which checks the limits of the ASGI server.
    """

    settings: Settings
    runtime: Runtime
    clock: Clock
    loop: LoopThread
    timers: Timers
    fanout: Fanout
    channels: AllChannels
    declarations: Declarations
    activation: Switch
    origins: OriginRule
    broker: Broker
    background: Background
    drain: Drain
    clients: Clients
    requests: Requests
    users: Users
    guard: Guards
    siblings: Siblings
    endings: Endings
    limits_checked: threading.Event = field(default_factory=threading.Event)
    down: set[Job] = field(default_factory=set)
    notifiers: dict[str, Callable[[Client], None]] = field(default_factory=dict)
