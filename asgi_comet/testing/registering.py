"""The next steps of a client of registration, as `protocol/following.py` for the others.

Owns the numbers of answers. The server keeps the positions, so the client is never told of any.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from asgi_comet.errors import ChannelClosed
from asgi_comet.protocol.events import Event
from asgi_comet.protocol.registration import decode_pairs, encode_registration
from asgi_comet.protocol.steps import (
    Lost,
    OpenProcess,
    Pause,
    Reply,
    Step,
    Told,
    check_reply,
)

__all__ = ["Register", "Registering"]


@dataclass(frozen=True, slots=True)
class Register:
    """Send a request of the registration protocol; its `Reply` is the result.

    Attributes:
        body: The form.
    """

    body: bytes


class Registering:
    """Follows channels by registration, at the endpoint of a client process.

    Args:
        names: The channels.

    Attributes:
        starts: The channels that are left, with where another transport would go on.
        positions: Nothing: the server keeps them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.starts: dict[str, str] = dict.fromkeys(names, "now")
        self.positions: dict[str, str] = {}
        self._events: deque[Event] = deque()
        self._steps = self._run()

    def go_on(self, result: Any = None) -> Step | Register | None:
        """Return what to do next; `None` when no channel is left.

        Raises:
            ProcessClosed: The client process has closed.
            Refused: The server refuses, and would refuse again.
        """
        try:
            if isinstance(result, Lost):
                return self._steps.throw(result)
            return self._steps.send(result)
        except StopIteration:
            return None

    def take(self) -> Event | None:
        """Return the next message, or `None` when a step is due.

        Raises:
            ChannelClosed: The channel has ended.
        """
        if not self._events:
            return None
        event = self._events.popleft()
        if event.error:
            self.starts.pop(event.channel, None)
            raise ChannelClosed(event.channel, "ended", followed=True)
        return event

    def _run(self) -> Generator[Step | Register, Any, None]:
        number, tries = 1, 0
        while self.starts:
            try:
                yield OpenProcess()
                reply: Reply = yield Register(encode_registration(self.starts, number))
                check_reply(reply)
            except Lost as lost:
                tries += 1
                yield Pause(lost.retry_after or float(tries), str(lost), tries)
                continue
            number, tries = number + 1, 0
            yield from self._hear(reply)

    def _hear(self, reply: Reply) -> Generator[Step | Register, Any, None]:
        if not reply.body:
            return  # nothing came in time, or another request reads: the next one tells
        self._events.extend(decode_pairs(reply.body))
        yield Told()
