"""The state of a client process that speaks the registration protocol.

Holds no logic; see `transports.registered`.
"""

from __future__ import annotations

from asgi_comet.channels.feed import Feed

__all__ = ["Registered"]


class Registered:
    """The state of a client process that speaks the registration protocol.

    Attributes:
        cursors: For each feed, the last offset that the client has acknowledged.
        expected: Names of channels that the client asked for and that do not exist yet.
        number: The number of the last request; `None` if the request had no number.
        lost: Names of channels that ended while the client asked for others; the server tells each
            of them once.
        answer: The last answer, which the server repeats if the same number comes again. For the
            messages of a channel: the feed, and the offsets after which and up to which they were
            sent; for everything else: the bytes.
        pending: The last offsets of this answer; the client acknowledges them by its next request.
        charge: How many bytes the state takes, according to the last estimate.
    """

    __slots__ = ("answer", "charge", "cursors", "expected", "lost", "number", "pending")

    def __init__(self) -> None:
        self.cursors: dict[Feed, int] = {}
        self.expected: set[str] = set()
        self.lost: dict[str, None] = {}
        self.number: str | None = None
        self.answer: list[tuple[Feed, int, int] | bytes] | None = None
        self.charge: int = 0
        self.pending: dict[Feed, int] = {}
