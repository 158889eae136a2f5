"""What clients and server say to each other over a WebSocket, as text.

Owns the frames of `comet.v1`; the events in them are those of the poll. Must not know which
channels live.

Source: docs/wire.md#websocket.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

from asgi_comet.core.messages import Notice, Position, Start, parse_start
from asgi_comet.core.names import check_asked
from asgi_comet.core.runs import Encoder
from asgi_comet.errors import BadRequest
from asgi_comet.protocol.events import (
    ENVELOPE,
    decode_object,
    encode_answer,
    encode_notice,
    read_positions,
    write_events,
    write_marked,
)

__all__ = [
    "HEARTBEAT",
    "SUBPROTOCOL",
    "CloseCode",
    "Frame",
    "decode_frame",
    "encode_error",
    "encode_frame",
    "encode_note",
    "encode_run",
    "join_frame",
    "make_marked_run",
]

SUBPROTOCOL = "comet.v1"
HEARTBEAT = '{"events":[]}'

_FRAME = '{"subscribe": {"ticker": "now"}}'


class CloseCode(IntEnum):
    """Why the server closes a WebSocket."""

    TOO_BIG = 1009
    RESTART = 1012
    TRY_AGAIN_LATER = 1013
    REPLACED = 4000
    PROCESS_CLOSED = 4001
    BAD_MESSAGE = 4400


@dataclass(frozen=True, slots=True)
class Frame:
    """What a client says.

    Attributes:
        unsubscribe: Channels that it does not follow any more.
        subscribe: Where to begin, by the name of the channel.
        ack: The positions up to which it has everything.
    """

    unsubscribe: list[str]
    subscribe: dict[str, Start]
    ack: dict[str, Position]


def decode_frame(text: str, limit: int) -> Frame:
    """Read what a client says.

    Args:
        text: JSON.
        limit: The greatest number of channels in each of its parts.

    Raises:
        BadRequest: It is not what docs/wire.md says; the text names what is wrong.
    """
    asked = decode_object(text.encode(errors="replace"), _FRAME)
    if not asked or asked.keys() - {"subscribe", "unsubscribe", "ack"}:
        got = ", ".join(map(repr, asked)) or "nothing"
        raise BadRequest(f"expected 'subscribe', 'unsubscribe' or 'ack', got {got:.80}")
    subscribe: dict[str, str] = {}
    ack: dict[str, str] = {}
    if "subscribe" in asked:
        subscribe = read_positions(asked["subscribe"], limit)
    if "ack" in asked:
        ack = read_positions(asked["ack"], limit)
    return Frame(
        _read_names(asked.get("unsubscribe", []), limit),
        {name: parse_start(start) for name, start in subscribe.items()},
        {name: Position.parse(position) for name, position in ack.items()},
    )


def _read_names(names: Any, limit: int) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadRequest(f"expected 'unsubscribe' to be a list of channels, got {names!r:.80}")
    if len(names) > limit:
        raise BadRequest(f"expected at most {limit} channels to unsubscribe, got {len(names)}")
    return [check_asked(name) for name in names]


def encode_note(notice: Notice) -> str:
    """Write an event that is no message, to be joined in a frame."""
    return encode_notice(notice).decode()


def join_frame(events: Sequence[str]) -> str:
    """Write a frame of events."""
    return '{"events":[' + ",".join(events) + "]}"


def encode_error(reason: str) -> str:
    """Write what is wrong with a client's message."""
    return json.dumps({"error": reason})


def _join_run(events: list[bytes]) -> str:
    return b",".join(events).decode()


def _join_frame(events: list[bytes]) -> str:
    return encode_answer(events).decode()


encode_run: Encoder = Encoder(write_events, _join_run, gap=1, around=ENVELOPE)
"""Writes messages of a channel as events, to be joined in a frame."""

encode_frame: Encoder = Encoder(write_events, _join_frame, gap=1, around=ENVELOPE)
"""Writes messages of a channel as a frame of their own."""


@lru_cache(maxsize=64)
def make_marked_run(ahead: int) -> Encoder:
    """Return `encode_run` for an on-demand channel, see `write_marked`."""
    return Encoder(write_marked(ahead), _join_run, gap=1, around=ENVELOPE)
