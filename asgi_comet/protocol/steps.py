"""The steps of a client that follows channels, and what may come of them.

Owns which answers are final. Must not know which step is next (`following.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from asgi_comet.errors import ProcessClosed, Refused

__all__ = [
    "Close",
    "Lost",
    "OpenProcess",
    "OpenSocket",
    "OpenStream",
    "Pause",
    "Post",
    "Read",
    "Reply",
    "Send",
    "Step",
    "Told",
    "check_reply",
    "is_final",
]

PASSING = frozenset({408, 425, 429})  # of the statuses below 500, those that end by themselves


@dataclass(frozen=True, slots=True)
class Post:
    """Send a request; its `Reply` is the result.

    Attributes:
        path: Below the URL of the client, or of the client process.
        body: JSON.
        within: Seconds until the reply must be complete.
    """

    path: str
    body: bytes
    within: float


@dataclass(frozen=True, slots=True)
class OpenProcess:
    """Have a client process: what follows goes below its URL."""


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Ask for an event stream; the result is its `Reply`, with a body unless the status is 200."""

    path: str
    within: float


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Open a WebSocket of the subprotocol `comet.v1`."""

    path: str
    within: float


@dataclass(frozen=True, slots=True)
class Read:
    """Read the next piece of the stream, empty at its end, or the next frame of the WebSocket."""

    within: float


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame over the WebSocket."""

    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close the stream or the WebSocket, if one is open."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next try.

    Attributes:
        seconds: How long.
        why: What was lost, for the log.
        tries: How many tries in a row have failed, with this one.
    """

    seconds: float
    why: str
    tries: int


@dataclass(frozen=True, slots=True)
class Told:
    """Do nothing, once all events are taken with `Following.take` and dealt with."""


Step = OpenProcess | Post | OpenStream | OpenSocket | Read | Send | Close | Pause | Told


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request.

    Attributes:
        status: The HTTP status.
        body: The body.
        retry_after: Seconds that the server asks to wait, or 0.
        location: Where a redirect leads.
    """

    status: int
    body: bytes = b""
    retry_after: float = 0.0
    location: str = ""


class Lost(ConnectionError):
    """The connection is gone, or could not be opened.

    Attributes:
        code: The status of the answer, or the code with which the WebSocket was closed; 0 for none.
        retry_after: Seconds that the server asks to wait, or 0.
    """

    def __init__(self, why: str, code: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.code: int = code
        self.retry_after: float = retry_after


def check_reply(reply: Reply) -> None:
    """Raise what the status of a reply means, unless the request was served.

    Raises:
        Lost: It may be served later.
        ProcessClosed: The client process has closed.
        Refused: It would be refused again.
    """
    status = reply.status
    if 200 <= status < 300:
        return
    if status == 410:
        raise ProcessClosed
    if not is_final(status):
        raise Lost(f"the server answered {status}", status, reply.retry_after)
    raise Refused(status, reply.body.decode(errors="replace") or reply.location)


def is_final(status: int) -> bool:
    """Return whether the server would give the same answer again.

    Args:
        status: An HTTP status.
    """
    return 300 <= status < 500 and status not in PASSING
