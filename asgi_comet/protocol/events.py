"""Events, and the requests and answers of the JSON poll, as bytes: both halves.

Owns `comet.v1` in JSON, as the server and as a client speaks it. Must not know which channels live.

Source: docs/wire.md#json-poll.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json

from asgi_comet.core.messages import Message, Notice, Start, parse_position, parse_start
from asgi_comet.core.names import check_asked
from asgi_comet.core.runs import Encoder
from asgi_comet.errors import BadRequest
from asgi_comet.position import Position

__all__ = [
    "CONTENT_TYPES",
    "ENVELOPE",
    "NO_DATA",
    "PROCESS_CLOSED",
    "REPLACED",
    "Answer",
    "Event",
    "Poll",
    "decode_ack",
    "decode_answer",
    "decode_events",
    "decode_object",
    "decode_poll",
    "encode_ack",
    "encode_answer",
    "encode_messages",
    "encode_notice",
    "encode_poll",
    "encode_sole",
    "is_acknowledging",
    "make_marked",
    "read_positions",
    "write_events",
    "write_marked",
]

CONTENT_TYPES = (b"application/json", b"application/x-ocsigen-comet+json")
PROCESS_CLOSED = b'{"events":[{"error":"process-closed"}]}'
REPLACED = b'{"events":[],"replaced":true}'

SHORT = 512  # bytes; the results of shorter bodies are cached

_POLL = '{"channels": {"ticker": "now"}, "idle": false}'


@dataclass(frozen=True, slots=True)
class Poll:
    """A request of the JSON poll.

    Attributes:
        channels: Start positions by the name of the channel; at least one.
        idle: Whether the server answers at once.
        own: Whether any channel belongs to the client process.
    """

    channels: dict[str, Start]
    idle: bool
    own: bool


def decode_poll(body: bytes, limit: int) -> Poll:
    """Decode a request. Clients of the same channels send equal requests, so short ones are cached.

    Args:
        body: JSON.
        limit: The maximal count of channels.

    Raises:
        BadRequest: The request does not conform to docs/wire.md; the text gives the reason.
    """
    return (_decode_short if len(body) <= SHORT else _decode_poll)(body, limit)


def _decode_poll(body: bytes, limit: int) -> Poll:
    asked = decode_object(body, _POLL)
    channels = asked.pop("channels", None)
    idle = asked.pop("idle", False)
    if asked:
        raise BadRequest(f"expected only 'channels' and 'idle', got {next(iter(asked))!r:.40} too")
    if not isinstance(idle, bool):
        raise BadRequest(f"expected 'idle' to be true or false, got {idle!r:.40}")
    starts = {name: parse_start(text) for name, text in read_positions(channels, limit).items()}
    return Poll(starts, idle, any(name.startswith("~") for name in starts))


_decode_short = lru_cache(maxsize=1024)(_decode_poll)


def is_acknowledging(query: bytes) -> bool:
    """Return whether a client declares, by `ack=1`, that it acknowledges consumed messages.

    Args:
        query: The query of the URL: of a poll, an event stream or a WebSocket.
    """
    return bool(query) and b"ack=1" in query.split(b"&")


def decode_ack(body: bytes, limit: int) -> dict[str, Position]:
    """Decode an acknowledgement.

    Args:
        body: JSON.
        limit: The maximal count of channels.

    Raises:
        BadRequest: The request does not conform to docs/wire.md; the text gives the reason.
    """
    positions = read_positions(decode_object(body, '{"~inbox": "k3x9Qp.3"}'), limit)
    return {name: parse_position(text) for name, text in positions.items()}


def decode_object(body: bytes, example: str) -> dict[str, Any]:
    """Decode a JSON object.

    Args:
        body: JSON.
        example: An example for the error.

    Raises:
        BadRequest: The body is not a JSON object.
    """
    try:
        found = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"expected JSON like {example}, got something else: {error}") from None
    if not isinstance(found, dict):
        raise BadRequest(f"expected an object like {example}, got {type(found).__name__}")
    return found


def read_positions(channels: object, limit: int) -> dict[str, str]:
    """Check that a decoded value is an object with a text for each channel.

    Args:
        channels: The decoded value.
        limit: The maximal count of channels.

    Raises:
        BadRequest: The value is not such an object.
    """
    if not isinstance(channels, dict) or not channels:
        came = "none" if channels in ({}, None) else f"{type(channels).__name__}"
        raise BadRequest(
            f'expected an object with at least one channel, like {{"ticker": "now"}}, got {came}'
        )
    if len(channels) > limit:
        raise BadRequest(f"expected at most {limit} channels, got {len(channels)}")
    for name, start in channels.items():
        check_asked(name)
        if not isinstance(start, str):
            raise BadRequest(f"expected a position for channel {name!r:.80}, got {start!r:.40}")
    return channels


def encode_notice(notice: Notice) -> bytes:
    """Encode an event that is not a message: a position or an error."""
    fields = [b'{"channel":' + _text(notice.channel)]
    if notice.error is not None:
        fields.append(b'"error":"' + notice.error.encode() + b'"')
    if notice.reason is not None:
        fields.append(b'"reason":"' + notice.reason.encode() + b'"')
    if notice.position is not None:
        fields.append(b'"position":"' + str(notice.position).encode() + b'"')
    return b",".join(fields) + b"}"


def encode_answer(events: list[bytes]) -> bytes:
    """Encode the answer to a poll."""
    return b'{"events":[' + b",".join(events) + b"]}"


def _text(text: str) -> bytes:
    return json.dumps(text).encode()


def write_events(name: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
    """Encode messages of a channel as events.

    Args:
        name: The channel.
        epoch: The incarnation of the channel.
        messages: The messages, in order.
    """
    head = b'{"channel":' + _text(name) + b',"position":"' + epoch.encode() + b"."
    return [head + b'%d","data":' % m.offset + m.data + b"}" for m in messages]


def write_marked(ahead: int) -> Callable[[str, str, Sequence[Message]], list[bytes]]:
    """Return an encoding function for an on-demand channel and a client that acknowledges.

    Args:
        ahead: How many messages the server sends before it waits for an acknowledgement.
    """
    end = b',"ahead":%d}' % ahead

    def write(name: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
        head = b'{"channel":' + _text(name) + b',"position":"' + epoch.encode() + b"."
        return [head + b'%d","data":' % m.offset + m.data + end for m in messages]

    return write


ENVELOPE = len(encode_answer([]))  # bytes around the events of an answer

encode_messages: Encoder = Encoder(write_events, b",".join, gap=1, around=ENVELOPE)
"""Encodes messages of a channel as events, joined by commas."""

encode_sole: Encoder = Encoder(write_events, encode_answer, gap=1, around=ENVELOPE)
"""Encodes messages of a channel as a whole answer."""


@lru_cache(maxsize=64)
def make_marked(ahead: int) -> Encoder:
    """Return `encode_messages` for an on-demand channel, see `write_marked`."""
    return Encoder(write_marked(ahead), b",".join, gap=1, around=ENVELOPE)


# What a client speaks

NO_DATA: Any = object()
"""The data of an event that is not a message: `None` is a value."""


class Event(NamedTuple):
    """An event for a client: a message, its place in a channel, or an error.

    Attributes:
        channel: The name; empty if the event concerns the whole connection.
        position: The place of the message; without a message, where to go on from. Empty if no
            messages follow.
        data: The value, as JSON has it, or `NO_DATA`.
        error: `full`, `closed`, `forbidden`, `process-closed`; of an event stream also `replaced`
            and `deactivated`. Empty without an error.
        reason: The reason of `closed`.
        ahead: For a message of an on-demand channel, how many messages the server sends before it
            waits for an acknowledgement.

    Source: docs/wire.md#events.
    """

    channel: str = ""
    position: str = ""
    data: Any = NO_DATA
    error: str = ""
    reason: str = ""
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a poll.

    Attributes:
        events: The events, in order.
        replaced: Whether another connection reads the channels of the client process.
    """

    events: list[Event]
    replaced: bool = False


def encode_poll(starts: Mapping[str, str], *, idle: bool = False) -> bytes:
    """Encode a request of the JSON poll.

    Args:
        starts: Start positions by the name of the channel; at least one.
        idle: Whether the server answers at once.
    """
    body: dict[str, Any] = {"channels": dict(starts)}
    if idle:
        body["idle"] = True
    return json.dumps(body).encode()


def encode_ack(positions: Mapping[str, str]) -> bytes:
    """Encode an acknowledgement: positions by the name of the channel."""
    return json.dumps(dict(positions)).encode()


def decode_answer(body: bytes) -> Answer:
    """Decode the answer to a poll.

    Raises:
        BadRequest: The body is not such an answer; the text says what came.
    """
    answer = decode_object(body, '{"events": []}')
    return Answer(decode_events(answer), bool(answer.get("replaced")))


def decode_events(answer: dict[str, Any]) -> list[Event]:
    """Decode the events of an answer or a frame.

    Raises:
        BadRequest: There are none; the text says what came.
    """
    events = answer.get("events")
    if not isinstance(events, list):
        raise BadRequest(f"expected an object like {{'events': []}}, got {answer!r:.80}")
    return [_decode_event(event) for event in events]


def _decode_event(event: object) -> Event:
    if not isinstance(event, dict):
        raise BadRequest(f"expected an event like {{'channel': 'news'}}, got {event!r:.80}")
    return Event(**{name: event[name] for name in Event._fields if name in event})
