"""Brokers: the storage of messages, and their transport between workers."""

from asgi_comet.brokers.base import (
    Broker,
    Bus,
    ChannelSpec,
    Closed,
    Full,
    Host,
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
