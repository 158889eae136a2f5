"""Server push for Starlette and FastAPI that never loses a message silently.

The module of a public name is imported when the name is first used. So a part of the package that
needs no server, like `asgi_comet.errors`, loads none. Type checkers read the imports below.
"""

from typing import TYPE_CHECKING

from asgi_comet._runtime.lazy import resolver

if TYPE_CHECKING:
    from asgi_comet._runtime.clock import Clock
    from asgi_comet.activation import Activation
    from asgi_comet.admin.roles import Credential
    from asgi_comet.channels.channel import Channel, ExternalChannel
    from asgi_comet.channels.channels import Channels
    from asgi_comet.channels.delivery import Delivery
    from asgi_comet.channels.outcomes import Outcome
    from asgi_comet.channels.scope import CLIENT_PROCESS, SITE, Scope
    from asgi_comet.comet import Comet
    from asgi_comet.core.messages import Message
    from asgi_comet.core.view import View
    from asgi_comet.declare.declared import DeclaredChannel
    from asgi_comet.errors import (
        BrokerUnavailable,
        ChannelClosed,
        ChannelFull,
        CometError,
        InvalidDeclaration,
        InvalidKey,
        InvalidMessage,
        InvalidName,
        MessageTooLarge,
        MustAwait,
        NoClientProcess,
        NonUniqueChannelName,
        NotifierFull,
        NotRunning,
        NotShared,
        ProcessClosed,
        Refused,
        Replaced,
        SeveralWorkers,
        TooManyFamilyChannels,
        TooManyProcesses,
        TooManyVirtualChannels,
        Unconfirmed,
        UnknownCommand,
    )
    from asgi_comet.http.problems import exception_handlers
    from asgi_comet.identity.changes import Confirmation
    from asgi_comet.identity.local import ProcessLocal
    from asgi_comet.identity.process import ClientProcess, Session
    from asgi_comet.middleware import CometMiddleware
    from asgi_comet.notify.notifier import Notifier
    from asgi_comet.notify.receipts import Notification, Receipt
    from asgi_comet.position import Position
    from asgi_comet.publishing.outlet import Publishing
    from asgi_comet.settings import Settings

__all__ = [
    "CLIENT_PROCESS",
    "SITE",
    "Activation",
    "BrokerUnavailable",
    "Channel",
    "ChannelClosed",
    "ChannelFull",
    "Channels",
    "ClientProcess",
    "Clock",
    "Comet",
    "CometError",
    "CometMiddleware",
    "Confirmation",
    "Credential",
    "DeclaredChannel",
    "Delivery",
    "ExternalChannel",
    "InvalidDeclaration",
    "InvalidKey",
    "InvalidMessage",
    "InvalidName",
    "Message",
    "MessageTooLarge",
    "MustAwait",
    "NoClientProcess",
    "NonUniqueChannelName",
    "NotRunning",
    "NotShared",
    "Notification",
    "Notifier",
    "NotifierFull",
    "Outcome",
    "Position",
    "ProcessClosed",
    "ProcessLocal",
    "Publishing",
    "Receipt",
    "Refused",
    "Replaced",
    "Scope",
    "Session",
    "Settings",
    "SeveralWorkers",
    "TooManyFamilyChannels",
    "TooManyProcesses",
    "TooManyVirtualChannels",
    "Unconfirmed",
    "UnknownCommand",
    "View",
    "exception_handlers",
]

__version__ = "0.1.0"

_MODULES = {  # the module of each public name
    "CLIENT_PROCESS": "asgi_comet.channels.scope",
    "SITE": "asgi_comet.channels.scope",
    "Activation": "asgi_comet.activation",
    "BrokerUnavailable": "asgi_comet.errors",
    "Channel": "asgi_comet.channels.channel",
    "ChannelClosed": "asgi_comet.errors",
    "ChannelFull": "asgi_comet.errors",
    "Channels": "asgi_comet.channels.channels",
    "ClientProcess": "asgi_comet.identity.process",
    "Clock": "asgi_comet._runtime.clock",
    "Comet": "asgi_comet.comet",
    "CometError": "asgi_comet.errors",
    "CometMiddleware": "asgi_comet.middleware",
    "Confirmation": "asgi_comet.identity.changes",
    "Credential": "asgi_comet.admin.roles",
    "DeclaredChannel": "asgi_comet.declare.declared",
    "Delivery": "asgi_comet.channels.delivery",
    "ExternalChannel": "asgi_comet.channels.channel",
    "InvalidDeclaration": "asgi_comet.errors",
    "InvalidKey": "asgi_comet.errors",
    "InvalidMessage": "asgi_comet.errors",
    "InvalidName": "asgi_comet.errors",
    "Message": "asgi_comet.core.messages",
    "MessageTooLarge": "asgi_comet.errors",
    "MustAwait": "asgi_comet.errors",
    "NoClientProcess": "asgi_comet.errors",
    "NonUniqueChannelName": "asgi_comet.errors",
    "NotRunning": "asgi_comet.errors",
    "NotShared": "asgi_comet.errors",
    "Notification": "asgi_comet.notify.receipts",
    "Notifier": "asgi_comet.notify.notifier",
    "NotifierFull": "asgi_comet.errors",
    "Outcome": "asgi_comet.channels.outcomes",
    "Position": "asgi_comet.position",
    "ProcessClosed": "asgi_comet.errors",
    "ProcessLocal": "asgi_comet.identity.local",
    "Publishing": "asgi_comet.publishing.outlet",
    "Receipt": "asgi_comet.notify.receipts",
    "Refused": "asgi_comet.errors",
    "Replaced": "asgi_comet.errors",
    "Scope": "asgi_comet.channels.scope",
    "Session": "asgi_comet.identity.process",
    "Settings": "asgi_comet.settings",
    "SeveralWorkers": "asgi_comet.errors",
    "TooManyFamilyChannels": "asgi_comet.errors",
    "TooManyProcesses": "asgi_comet.errors",
    "TooManyVirtualChannels": "asgi_comet.errors",
    "Unconfirmed": "asgi_comet.errors",
    "UnknownCommand": "asgi_comet.errors",
    "View": "asgi_comet.core.view",
    "exception_handlers": "asgi_comet.http.problems",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # a type checker that sees `__getattr__` accepts every name
    __getattr__ = resolver("asgi_comet", _MODULES)
