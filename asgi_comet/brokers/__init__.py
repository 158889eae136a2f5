"""Brokers: the storage of messages, and their transport between workers.

Has every name that an author of a broker needs, besides `Message`, `Position` and the errors, which
are in `asgi_comet`.
"""

from asgi_comet.brokers.audience import Audience, Listening, Progress
from asgi_comet.brokers.base import Broker, Host
from asgi_comet.brokers.condition import Condition
from asgi_comet.brokers.logs import (
    ChannelSpec,
    Closed,
    Fenced,
    Full,
    Log,
    Opened,
    Placed,
    State,
    Stored,
    Unknown,
    Unsuitable,
)
from asgi_comet.brokers.memory import MemoryBroker
from asgi_comet.brokers.people import (
    Arrival,
    Found,
    Limits,
    Moved,
    People,
    PeopleHost,
    SessionState,
    Visited,
)
from asgi_comet.core.history import Received
from asgi_comet.core.messages import NEXT_INCARNATION, First, Last, Now, Start

__all__ = [
    "NEXT_INCARNATION",
    "Arrival",
    "Audience",
    "Broker",
    "ChannelSpec",
    "Closed",
    "Condition",
    "Fenced",
    "First",
    "Found",
    "Full",
    "Host",
    "Last",
    "Limits",
    "Listening",
    "Log",
    "MemoryBroker",
    "Moved",
    "Now",
    "Opened",
    "People",
    "PeopleHost",
    "Placed",
    "Progress",
    "Received",
    "SessionState",
    "Start",
    "State",
    "Stored",
    "Unknown",
    "Unsuitable",
    "Visited",
]
