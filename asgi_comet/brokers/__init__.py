"""Brokers: the storage of messages, and their transport between workers."""

from asgi_comet.brokers.base import Broker, Bus, Host
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
from asgi_comet.core.history import Received

__all__ = [
    "Broker",
    "Bus",
    "ChannelSpec",
    "Closed",
    "Fenced",
    "Full",
    "Host",
    "Log",
    "MemoryBroker",
    "Opened",
    "Placed",
    "Received",
    "State",
    "Stored",
    "Unknown",
]
