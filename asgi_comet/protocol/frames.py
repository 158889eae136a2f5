"""The WebSocket frames of clients and server, as text: both halves.

Owns the frames of `comet.v1`; they contain the events of the poll. Must not know which
channels live.

Source: docs/wire.md#websocket.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

from asgi_comet.core.messages import Notice, Start, parse_position, parse_start
from asgi_comet.core.names import check_asked
from asgi_comet.core.runs import Encoder
from asgi_comet.errors import BadRequest
from asgi_comet.position import Position
from asgi_comet.protocol.events import (
    ENVELOPE,
    Event,
    decode_events,
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
    "decode_heard",
    "encode_asked",
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
    """The codes with which the server closes a WebSocket."""

    TOO_BIG = 1009
    RESTART = 1012
    TRY_AGAIN_LATER = 1013
    REPLACED = 4000
    PROCESS_CLOSED = 4001
    BAD_MESSAGE = 4400


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a client.

    Attributes:
        unsubscribe: Channels to unsubscribe from.
        subscribe: Start positions by the name of the channel.
        ack: Acknowledged positions by the name of the channel.
    """

    unsubscribe: list[str]
    subscribe: dict[str, Start]
    ack: dict[str, Position]


def decode_frame(text: str, limit: int) -> Frame:
    """Decode a frame of a client.

    Args:
        text: JSON.
        limit: The maximal count of channels in each part.

    Raises:
        BadRequest: The frame does not conform to docs/wire.md; the text gives the reason.
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
        {name: parse_position(position) for name, position in ack.items()},
    )


def _read_names(names: Any, limit: int) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadRequest(f"expected 'unsubscribe' to be a list of channels, got {names!r:.80}")
    if len(names) > limit:
        raise BadRequest(f"expected at most {limit} channels to unsubscribe, got {len(names)}")
    return [check_asked(name) for name in names]


def encode_note(notice: Notice) -> str:
    """Encode an event that is not a message, as part of a frame."""
    return encode_notice(notice).decode()


def join_frame(events: Sequence[str]) -> str:
    """Join events to a frame."""
    return '{"events":[' + ",".join(events) + "]}"


def encode_error(reason: str) -> str:
    """Encode the reason why a client's frame is refused."""
    return json.dumps({"error": reason})


def _join_run(events: list[bytes]) -> str:
    return b",".join(events).decode()


def _join_frame(events: list[bytes]) -> str:
    return encode_answer(events).decode()


encode_run: Encoder = Encoder(write_events, _join_run, gap=1, around=ENVELOPE)
"""Encodes messages of a channel as events, as part of a frame."""

encode_frame: Encoder = Encoder(write_events, _join_frame, gap=1, around=ENVELOPE)
"""Encodes messages of a channel as a whole frame."""


@lru_cache(maxsize=64)
def make_marked_run(ahead: int) -> Encoder:
    """Return `encode_run` for an on-demand channel, see `write_marked`."""
    return Encoder(write_marked(ahead), _join_run, gap=1, around=ENVELOPE)


# What a client speaks


def encode_asked(
    *,
    subscribe: Mapping[str, str] | None = None,
    unsubscribe: Sequence[str] = (),
    ack: Mapping[str, str] | None = None,
) -> str:
    """Encode a frame of a client.

    Args:
        subscribe: Start positions by the name of the channel.
        unsubscribe: Channels to unsubscribe from, before any is subscribed to.
        ack: Acknowledged positions by the name of the channel.
    """
    asked = {"unsubscribe": list(unsubscribe), "subscribe": subscribe, "ack": ack}
    return json.dumps({part: value for part, value in asked.items() if value})


def decode_heard(text: str | bytes) -> list[Event]:
    """Decode a frame of the server.

    Raises:
        BadRequest: The frame does not conform to docs/wire.md, or it says what was wrong with a
            frame of this client.
    """
    heard = decode_object(text.encode() if isinstance(text, str) else text, HEARTBEAT)
    if "error" in heard:
        raise BadRequest(str(heard["error"]))
    return decode_events(heard)
