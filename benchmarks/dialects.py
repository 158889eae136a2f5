"""The interface of all kinds of clients: open, read, and maybe request again.

Owns no connections and measures nothing.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass

from .control import make_text

COOKIE = "Cookie: comet=" + "x" * 80  # where the peer has no sessions: as long as ours


@dataclass(frozen=True, slots=True)
class Answer:
    """A read result: the messages `first … last`, and the bytes to send for more.

    Attributes:
        first: Number of the first message; 0 where there is none.
        last: Number of the last.
        tail: The rest of the next request; empty where none is needed.
    """

    first: int
    last: int
    tail: bytes = b""


NOTHING = Answer(0, 0)


class Dialect(ABC):
    """One way to be served by one peer.

    Attributes:
        again: Whether a client has to ask anew after each answer.
    """

    again = False

    @abstractmethod
    def open(self, connection: socket.socket) -> tuple[bytes, bytes]:
        """Do what comes before the first message.

        Returns:
            What the client's requests begin with, and what was read already of what comes.
        """

    @abstractmethod
    def decode(self, raw: bytes) -> Answer | None:
        """Read what came; `None` while its end is missing.

        Raises:
            ValueError: It is not what the peer should say, or has a gap.
        """


def span(texts: list[str], tail: bytes = b"") -> Answer:
    """Return what was read: messages that have no gap.

    Args:
        texts: The messages.
        tail: What is sent to get more.

    Raises:
        ValueError: They have, or are none of ours.
    """
    if not texts:
        return NOTHING
    first = int(texts[0][:8])
    if texts != [make_text(first + n) for n in range(len(texts))]:
        raise ValueError(f"expected messages from {first} on in order, got {texts!r:.300}")
    return Answer(first, first + len(texts) - 1, tail)
