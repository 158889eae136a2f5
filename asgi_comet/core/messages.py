"""Messages, and where readers start, as frozen values.

Must not know channels, histories or any framework.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from asgi_comet.errors import BadRequest
from asgi_comet.position import POSITION, Position

__all__ = [
    "NEXT_INCARNATION",
    "First",
    "Last",
    "Message",
    "Notice",
    "Now",
    "Start",
    "parse_position",
    "parse_relative",
    "parse_start",
]

_LAST = re.compile(r"last:(0|[1-9][0-9]{0,15})")


NEXT_INCARNATION = Position("new", 0)
"""Before the first message of the next incarnation of a channel that does not exist yet."""


@dataclass(frozen=True, slots=True)
class Now:
    """Start with the next message."""


@dataclass(frozen=True, slots=True)
class Last:
    """Start with the last messages.

    Attributes:
        count: How many messages at most; 0 is the same as `Now`.
    """

    count: int


@dataclass(frozen=True, slots=True)
class First:
    """Start with the first message; a gap, if that message is no longer held."""


Start = Position | Now | Last | First
"""The position where a reader begins."""

_NOW = Now()
_FIRST = First()


def parse_start(text: str) -> Start:
    """Parse `now`, `first`, `last:N` or a position.

    Raises:
        BadRequest: `text` is anything else.
    """
    if text == "now":
        return _NOW
    if text == "first":
        return _FIRST
    found = _LAST.fullmatch(text)
    if found is not None:
        return Last(int(found[1]))
    if POSITION.fullmatch(text) is None:
        raise BadRequest(
            f"expected 'now', 'first', 'last:10' or a position like 'k3x9Qp.57', got {text!r:.80}"
        )
    return Position.parse(text)


def parse_position(text: str) -> Position:
    """Parse a position that a client sends.

    Raises:
        BadRequest: `text` is anything else.
    """
    try:
        return Position.parse(text)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def parse_relative(text: str) -> Start:
    """Parse `now`, `first` or `last:N`, for the application.

    Raises:
        ValueError: `text` is anything else.
    """
    if text not in {"now", "first"} and _LAST.fullmatch(text) is None:
        raise ValueError(f"expected start to be 'now', 'first' or like 'last:10', got {text!r}")
    return parse_start(text)


@dataclass(frozen=True, slots=True)
class Message:
    """One value on a channel. Its epoch is the epoch of the history.

    Attributes:
        offset: The place in the channel: 1, 2, 3 …
        data: The value as JSON in UTF-8, encoded once.
    """

    offset: int
    data: bytes

    @property
    def value(self) -> Any:
        """The value, as JSON has it."""
        return json.loads(self.data)


class Notice(NamedTuple):
    """An event of a channel that is not a message. Each transport has its own format.

    Attributes:
        channel: The name.
        error: `full`, `closed` or `forbidden`, which end the subscription; `None` tells the client
            its position.
        position: The client's position, or the position to continue from after `full`; `None` if no
            further messages come.
        reason: The reason of `closed`: `ended`, `failed` or `unknown`.

    Source: docs/wire.md#events.
    """

    channel: str
    error: str | None = None
    position: Position | None = None
    reason: str | None = None
