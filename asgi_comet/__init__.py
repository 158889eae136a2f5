"""Server push for Starlette and FastAPI that never loses a message silently."""

from .activation import Activation
from .channels import Channel, Channels, ExternalChannel
from .clock import Clock
from .comet import Comet
from .declarations import DeclaredChannel
from .delivery import Delivery
from .errors import (
    ChannelClosed,
    ChannelFull,
    CometError,
    InvalidDeclaration,
    InvalidKey,
    InvalidMessage,
    InvalidName,
    MessageTooLarge,
    NoClientProcess,
    NonUniqueChannelName,
    NotifierFull,
    NotRunning,
    ProcessClosed,
    SeveralWorkers,
    TooManyFamilyChannels,
    TooManyProcesses,
    TooManyVirtualChannels,
    UnknownCommand,
)
from .handlers import exception_handlers
from .locals import ProcessLocal
from .messages import Position
from .middleware import CometMiddleware
from .notify import Notifier
from .outcomes import Outcome
from .processes import ClientProcess, Session
from .receipts import Notification, Receipt
from .scopes import CLIENT_PROCESS, SITE, Scope
from .settings import Settings

__all__ = [
    "CLIENT_PROCESS",
    "SITE",
    "Activation",
    "Channel",
    "ChannelClosed",
    "ChannelFull",
    "Channels",
    "ClientProcess",
    "Clock",
    "Comet",
    "CometError",
    "CometMiddleware",
    "DeclaredChannel",
    "Delivery",
    "ExternalChannel",
    "InvalidDeclaration",
    "InvalidKey",
    "InvalidMessage",
    "InvalidName",
    "MessageTooLarge",
    "NoClientProcess",
    "NonUniqueChannelName",
    "NotRunning",
    "Notification",
    "Notifier",
    "NotifierFull",
    "Outcome",
    "Position",
    "ProcessClosed",
    "ProcessLocal",
    "Receipt",
    "Scope",
    "Session",
    "Settings",
    "SeveralWorkers",
    "TooManyFamilyChannels",
    "TooManyProcesses",
    "TooManyVirtualChannels",
    "UnknownCommand",
    "exception_handlers",
]

__version__ = "0.1.0"
