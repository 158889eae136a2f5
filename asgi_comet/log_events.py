"""The events of the log: a closed list of names, and of fields.

Owns the key `comet` that each record of the package has, so that a program need not read the texts,
and who hears of each event. Must not know loggers, levels or texts. docs/operating.md#logs says
what each event means.

A field never holds a cookie, a key, a token, a password, a message, or the id of a session or a
client process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Literal, TypedDict, Unpack

__all__ = ["Event", "Fields", "Hear", "event", "hear", "owner"]

TEXT_LIMIT = 200  # characters of a field: a client may have chosen them

Event = Literal[
    "admin.acted",
    "admin.refused",
    "answer.lost",
    "authorize.failed",
    "broker.unavailable",
    "change.missed",
    "channel.unknown",
    "channel.unshared",
    "channel.unstarted",
    "connection.lost",
    "function.cut_off",
    "function.failed",
    "identify.failed",
    "internal.failed",
    "key.foreign",
    "loop.blocked",
    "message.lost",
    "message.unserved",
    "origin.refused",
    "process.evicted",
    "push.activated",
    "push.deactivated",
    "request.postponed",
    "setup.advised",
    "source.failed",
    "source.restarted",
    "subscription.ended",
    "timeout.changed",
    "worker.differs",
    "worker.found",
]


class Fields(TypedDict, total=False):
    """The fields that an event may have beside its name.

    Attributes:
        action: The action of an operator.
        channel: The name of a channel, or the pattern of a family.
        count: How many messages, changes or tries.
        function: The name of a function of the application, or of the library.
        notifier: The name of a notifier.
        operator: Who acts: the digest of a token, a user, or an address.
        origin: The origin of a page.
        path: The path of a request, without the token of a client process.
        reason: Why, in words.
        role: The role of an operator.
        seconds: How long.
        server: The URL of a server that a client follows, without a token or a password.
        worker: The identifier of a worker.
    """

    action: str
    channel: str
    count: int
    function: str
    notifier: str
    operator: str
    origin: str
    path: str
    reason: str
    role: str
    seconds: float
    server: str
    worker: str


Hear = Callable[[Mapping[str, object]], None]
"""Takes an event: its name as `event`, and its fields. Called in any thread; must not raise."""

owner: ContextVar[object] = ContextVar("asgi_comet.events", default=None)
"""The parts of the Comet whose request or task is running; `None` is a call of the application."""

_hearers: tuple[tuple[Hear, object], ...] = ()
_lock = threading.Lock()


def hear(function: Hear, of: object, *, stop: bool = False) -> None:
    """Have a function called with each event of one Comet, whether or not the event is logged.

    An event that the application itself causes is told to all Comets of the process.

    Args:
        function: The function.
        of: The value of `owner` in the requests and tasks of that Comet.
        stop: Whether to end that.
    """
    global _hearers  # noqa: PLW0603 - one for the process, as the loggers are
    with _lock:
        others = tuple(one for one in _hearers if one[0] != function)
        _hearers = others if stop else (*others, (function, of))


def event(name: Event, **fields: Unpack[Fields]) -> dict[str, object]:
    """Return the `extra` of a record that is about to be logged, and tell who hears events.

    Args:
        name: The event.
        **fields: What the event is about; a text is cut after 200 characters.
    """
    cut = {key: one[:TEXT_LIMIT] if isinstance(one, str) else one for key, one in fields.items()}
    found: dict[str, object] = {"event": name, **cut}
    mine = owner.get()
    for function, of in _hearers:
        if mine is None or mine is of:
            function(found)
    return {"comet": found}
