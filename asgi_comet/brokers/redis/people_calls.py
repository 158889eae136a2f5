"""The values that the scripts of people are called with: readers, their progress, and copies.

Owns nothing. Must not know the scripts, nor connections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from asgi_comet.brokers.redis.keys import ChannelKeys

__all__ = ["Announced", "Mark", "Reader"]


class Reader(NamedTuple):
    """The connection that reads the own channels of a client process.

    Attributes:
        worker: The worker that has the connection.
        number: A number that rises in the worker.
        again: Whether the connection has claimed the process before, and must not replace
            another reader.
        formerly: The id of the worker at that time; `""` for the same.
        came: Between which times of Redis the connection came, in microseconds; infinite for now.
    """

    worker: str
    number: int
    again: bool = False
    formerly: str = ""
    came: tuple[float, float] = (-math.inf, math.inf)

    def __str__(self) -> str:
        return f"{self.worker}:{self.number}"

    @property
    def former(self) -> str:
        """The name of the reader at the claim before; `""` if there was none."""
        return f"{self.formerly or self.worker}:{self.number}" if self.again else ""


@dataclass(frozen=True, slots=True)
class Mark:
    """The progress of the reader of an own channel.

    Attributes:
        keys: The channel.
        epoch: The epoch of the offsets; offsets of another epoch change nothing.
        sent: The highest offset sent; `None` if unchanged.
        acknowledged: The highest offset that the client has; `None` if unchanged.
        skipped: The highest offset that the client had when it was told `full`, and the one that
            the client goes on after; `None` if unchanged.
    """

    keys: ChannelKeys
    epoch: str
    sent: int | None = None
    acknowledged: int | None = None
    skipped: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Announced:
    """The copy of a client process in a worker.

    Attributes:
        worker: The worker.
        connected: Whether the worker has a connection of the process.
        held: Whether the worker keeps state of the process.
        idle: For how many milliseconds the process is not connected.
        user: The user of the session as JSON; `None` for a visitor.
        default: Whether the process is the default one.
        defaults: How many default client processes the session has had.
        kept: Whether the session is kept without a client process.
        followed: The id that had followed the session's id when that id was in use again.
    """

    worker: str
    connected: bool
    held: bool
    idle: int = 0
    user: bytes | None = None
    default: bool = False
    defaults: int = 0
    kept: bool = False
    followed: str = ""
