"""Samples: how long after its publication clients acknowledge a message, for some messages.

Owns which acknowledgement belongs to the message. Must not know channels or transports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from asgi_comet._runtime.counters import TransportCounters

__all__ = ["EVERY", "Sample"]

EVERY = 64  # messages, of which one is measured
FORGOTTEN = 60.0  # seconds after which an acknowledgement is no longer of this message


class Sample:
    """One message, and the clients to which it is delivered when it is published.

    A stream is known again by its connection. A poll is answered, and the next one comes as another
    request: as many requests count as polls were held.

    Args:
        offset: The offset of the message.
        at: When it was published, in seconds of the clock.
        listeners: The connections that wait for it.
    """

    __slots__ = ("_at", "_offset", "_polls", "_streams")

    def __init__(self, offset: int, at: float, listeners: Iterable[Any]) -> None:
        self._offset = offset
        self._at = at
        streams = [one for one in listeners if one.stays]
        self._streams: WeakSet[Any] = WeakSet(streams)
        self._polls = sum(1 for one in listeners if not one.stays)

    def returned(self, offset: int, now: float, counters: TransportCounters) -> None:
        """A request came whose client has everything up to an offset.

        Args:
            offset: The offset.
            now: The current time, in seconds of the clock.
            counters: The counts of the request's transport.
        """
        if offset == self._offset and self._polls > 0 and now - self._at < FORGOTTEN:
            self._polls -= 1
            counters.acknowledge.observe(now - self._at)

    def acknowledged(self, offset: int, now: float, streams: Iterable[Any]) -> None:
        """The client of these streams has everything up to an offset.

        Args:
            offset: The offset.
            now: The current time, in seconds of the clock.
            streams: Connections, of which at most one has the message.
        """
        if offset < self._offset:
            return
        for stream in streams:
            if stream in self._streams:
                self._streams.discard(stream)
                stream.counters.acknowledge.observe(now - self._at)
                return
