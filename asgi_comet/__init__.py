"""Server push for Starlette and FastAPI that never loses a message silently."""

from .activation import Activation
from .channels import Channel, Channels
from .clock import Clock
from .comet import Comet
from .delivery import Delivery
from .errors import (
    ChannelClosed,
    CometError,
    InvalidName,
    MessageTooLarge,
    NonUniqueChannelName,
    NotRunning,
    TooManyVirtualChannels,
    UnknownCommand,
)
from .messages import Position
from .middleware import CometMiddleware
from .outcomes import Outcome
from .settings import Settings

__all__ = [
    "Activation",
    "Channel",
    "ChannelClosed",
    "Channels",
    "Clock",
    "Comet",
    "CometError",
    "CometMiddleware",
    "Delivery",
    "InvalidName",
    "MessageTooLarge",
    "NonUniqueChannelName",
    "NotRunning",
    "Outcome",
    "Position",
    "Settings",
    "TooManyVirtualChannels",
    "UnknownCommand",
]

__version__ = "0.1.0"
