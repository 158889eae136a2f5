"""Server push for Starlette and FastAPI that never loses a message silently."""

from .activation import Activation
from .brokers.base import Broker
from .brokers.memory import MemoryBroker
from .channels import Channel, Channels, ExternalChannel
from .clock import Clock
from .comet import Comet
from .delivery import Delivery
from .errors import (
    ChannelClosed,
    ChannelFull,
    CometError,
    InvalidMessage,
    InvalidName,
    MessageTooLarge,
    NoClientProcess,
    NonUniqueChannelName,
    NotRunning,
    ProcessClosed,
    TooManyProcesses,
    TooManyVirtualChannels,
    UnknownCommand,
)
from .messages import Position
from .middleware import CometMiddleware
from .outcomes import Outcome
from .processes import ClientProcess, Session
from .scopes import CLIENT_PROCESS, SITE, Scope
from .settings import Settings

__all__ = [
    "CLIENT_PROCESS",
    "SITE",
    "Activation",
    "Broker",
    "Channel",
    "ChannelClosed",
    "ChannelFull",
    "Channels",
    "ClientProcess",
    "Clock",
    "Comet",
    "CometError",
    "CometMiddleware",
    "Delivery",
    "ExternalChannel",
    "InvalidMessage",
    "InvalidName",
    "MemoryBroker",
    "MessageTooLarge",
    "NoClientProcess",
    "NonUniqueChannelName",
    "NotRunning",
    "Outcome",
    "Position",
    "ProcessClosed",
    "Scope",
    "Session",
    "Settings",
    "TooManyProcesses",
    "TooManyVirtualChannels",
    "UnknownCommand",
]

__version__ = "0.1.0"
