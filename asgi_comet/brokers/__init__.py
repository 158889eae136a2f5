"""Brokers: the storage of messages, and their transport between workers."""

from asgi_comet.brokers.base import Broker, Host
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
)
from asgi_comet.brokers.memory import MemoryBroker
from asgi_comet.brokers.people import People, PeopleHost
from asgi_comet.core.history import Received

__all__ = [
    "Broker",
    "ChannelSpec",
    "Closed",
    "Fenced",
    "Full",
    "Host",
    "Log",
    "MemoryBroker",
    "Opened",
    "People",
    "PeopleHost",
    "Placed",
    "Received",
    "State",
    "Stored",
    "Unknown",
]
