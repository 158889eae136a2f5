"""Messages published in a process that never served, which no client gets.

Owns the warning about such messages. A script that imports the application has its own channels in
its own memory, but clients are connected to another process, the server. Publishing before the
lifespan starts is allowed, so the warning is logged when the process ends. With a shared broker
such a process gets its messages to clients by `comet.publishing()`, so the warning names that.

A process forked by a task queue ends by `os._exit`, which runs no exit handlers, so there the
warning is logged with the first message. A server that forks after the import starts the lifespan
before publishing.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections import Counter

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import Log, Stored
from asgi_comet.log_events import event

__all__ = ["Unserved"]

_logger = logging.getLogger(__name__)

_ADVICE = (
    "no client can get what is published in this process, because clients are connected to "
    "another one, the server; publish there: for example, have this program call an endpoint of "
    "the application that publishes"
)
_SHARED_ADVICE = (
    "no client can get what is published so, because this process is not connected to the broker; "
    "publish within `with comet.publishing():`, or `async with` in an event loop"
)

_lock = threading.Lock()
_every: weakref.WeakSet[Unserved] = weakref.WeakSet()


class Unserved:
    """Counts the messages published before the first lifespan. Thread-safe.

    Args:
        broker: Stores the messages.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._process = os.getpid()
        self._warned = False  # in a process forked from that one
        self._count = 0

    @property
    def advice(self) -> str:
        """The reason why no client gets the messages, and the way out."""
        return _SHARED_ADVICE if self._broker.shared else _ADVICE

    @property
    def count(self) -> int:
        """The number of messages published in this process."""
        return self._count if self._process == os.getpid() else 0

    def append(
        self,
        log: Log,
        data: bytes,
        *,
        id: str | None = None,  # noqa: A002 - as the parameter of `publish`
    ) -> Stored:
        """Append a message to a channel, like `Broker.append`, and count the message."""
        stored = self._broker.append(log, data, id=id)
        self.note()
        return stored

    def note(self) -> None:
        """Count a message."""
        with _lock:
            if self._process != os.getpid():
                self._warn_once()
            else:
                self._count += 1
                if self._count == 1:
                    _every.add(self)
                    atexit.unregister(_warn)
                    atexit.register(_warn)

    def serve(self) -> None:
        """Cancel the warning: the first lifespan starts, so clients get the messages."""
        with _lock:
            _every.discard(self)

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                "a message was published where no server runs: %s",
                self.advice,
                extra=event("message.unserved", count=1),
            )


def _warn() -> None:
    counts = Counter[str]()
    for unserved in _every:
        counts[unserved.advice] += unserved.count
    for advice, count in (+counts).items():
        messages = "1 message was" if count == 1 else f"{count} messages were"
        _logger.warning(
            "%s published where no server ran: %s",
            messages,
            advice,
            extra=event("message.unserved", count=count),
        )
