"""Messages to many own channels on their way to Redis, several of them in one call.

Owns the outcome of each message. Must not know connections, nor when a call is sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from asgi_comet.brokers.redis.audience_scripts import AudienceScripts, Message, Told
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.queueing import BATCH_BYTES, Entry, Single
from asgi_comet.brokers.redis.replies import Stale

__all__ = ["MOST", "Telling"]

MOST = 256  # channels in one call


class _Part:
    """One message; the future returns what became of it in each channel."""

    __slots__ = ("future", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.future: asyncio.Future[tuple[Told, ...]] = asyncio.get_running_loop().create_future()

    @property
    def bytes(self) -> int:
        return len(self.message.data or b"")


class Telling(Single[tuple[Told, ...] | Stale]):
    """Messages that one call stores, with a number that is used once.

    Args:
        scripts: The scripts.
        message: The first message, to at most `MOST` channels.
        since: When the message was handed in.

    Attributes:
        numbered: The worker and the number under which the call is sent.
    """

    __slots__ = ("_channels", "_parts", "_scripts", "_size", "numbered")

    def __init__(self, scripts: AudienceScripts, message: Message, since: float) -> None:
        super().__init__(scripts.tell("", 0, ()), since, patient=False, again=True)
        part = _Part(message)
        self._scripts = scripts
        self._parts = [part]
        self._channels = len(message.processes)
        self._size = part.bytes
        self.numbered: tuple[str, int] = "", 0

    @property
    def first(self) -> asyncio.Future[tuple[Told, ...]]:
        """The positions of the first message, or why there are none."""
        return self._parts[0].future

    def joins(self, last: Entry) -> bool:
        """Add the first message to an entry that is to be sent, if there is room."""
        return isinstance(last, Telling) and last._take(self._parts[0])

    def _take(self, part: _Part) -> bool:
        channels, size = self._channels + len(part.message.processes), self._size + part.bytes
        fits = channels <= MOST and size <= BATCH_BYTES
        if fits:
            self._parts.append(part)
            self._channels, self._size = channels, size
        return fits

    def number(self, worker: str, number: int) -> None:
        """Make the call, which from then on is repeated as it is."""
        messages = [part.message for part in self._parts]
        self.call: Call[Any] = self._scripts.tell(worker, number, messages)
        self.numbered = worker, number

    def succeed(self, value: tuple[Told, ...] | Stale) -> None:
        """Tell the waiters."""
        told = list(value) if isinstance(value, tuple) else []
        for part in self._parts:
            count = len(part.message.processes)
            if not part.future.done():
                part.future.set_result(tuple(told[:count]))
            del told[:count]

    def fail(self, error: Exception) -> None:
        """Tell the waiters, unless they were told."""
        for part in self._parts:
            if not part.future.done():
                part.future.set_exception(error)
                part.future.exception()  # a waiter may be gone
