"""Server-sent events and their requests, as bytes: both halves.

Owns the text of `text/event-stream` and the ids, which contain the positions of all channels in the
order of the URL. Must not know which channels live.

Source: docs/wire.md#server-sent-events; the HTML standard, "Server-sent events".
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from asgi_comet.core.messages import Message, Now, Start, parse_position, parse_start
from asgi_comet.core.names import check_asked
from asgi_comet.core.runs import Chunk, Encoder
from asgi_comet.errors import BadRequest
from asgi_comet.protocol.events import Event

__all__ = [
    "COMMENT",
    "CONTENT_TYPE",
    "ENDED",
    "Decoder",
    "Dispatched",
    "Html",
    "Request",
    "decode_request",
    "encode_event",
    "encode_query",
    "encode_retry",
    "join_id",
    "make_framing",
    "read_events",
]

Html = Callable[[bytes], bytes]
"""Return the HTML, in UTF-8, of a value given as JSON."""

CONTENT_TYPE = b"text/event-stream; charset=utf-8"
COMMENT = b":\n"  # no empty line, which httpx-sse would take for an event
ENDED = b"-"  # in an id, in place of the position of a channel that has ended

OBJECT = 48  # bytes of overhead of a Python bytes object
SPARE_FIELDS = 32  # parameters of a query beside those of the protocol

_NEWLINE = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Request:
    """A request for server-sent events.

    Attributes:
        starts: Start positions by the name of the channel, in the order of the URL; `None` for a
            channel that has ended for this client. At least one.
        as_text: Whether text values are sent without JSON quotes.
    """

    starts: dict[str, Start | None]
    as_text: bool

    @property
    def finished(self) -> bool:
        """Whether all channels have ended for this client, which is to stop."""
        return not any(self.starts.values())

    @property
    def own(self) -> bool:
        """Whether any channel belongs to the client process."""
        return any(name.startswith("~") for name, start in self.starts.items() if start)


def decode_request(query: bytes, last_event_id: bytes | None, limit: int) -> Request:
    """Decode a request.

    Args:
        query: `channel=…` once per channel; then `position=…` as often or not at all;
            `format=text`. Other parameters are ignored.
        last_event_id: The header of a client that reconnects; overrides `position`.
        limit: The maximal count of channels.

    Raises:
        BadRequest: The request does not conform to docs/wire.md; the text gives the reason.
    """
    fields = _read_query(query, limit)
    names = [check_asked(value) for name, value in fields if name == "channel"]
    if not names:
        raise BadRequest("expected at least one channel, like ?channel=ticker")
    if len(names) > limit:
        raise BadRequest(f"expected at most {limit} channels, got {len(names)}")
    for name in names:
        if names.count(name) > 1:
            raise BadRequest(f"expected every channel once, got {name!r:.80} twice")
    if last_event_id:
        starts = _read_id(last_event_id.decode("latin-1"), len(names))
    else:
        starts = _read_starts([value for name, value in fields if name == "position"], len(names))
    return Request(dict(zip(names, starts, strict=True)), _read_format(fields))


def _read_query(query: bytes, limit: int) -> list[tuple[str, str]]:
    most = 2 * limit + SPARE_FIELDS
    count = query.count(b"&") + 1
    if count > most:
        raise BadRequest(
            f"expected at most {limit} channels, and {most} parameters in all, got {count}"
        )
    try:
        return parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        raise BadRequest("expected a query in UTF-8, got something else") from None


def _read_id(text: str, count: int) -> Sequence[Start | None]:
    came = text.count(",") + 1
    if came != count:
        raise BadRequest(
            f"expected a Last-Event-ID with a position for each channel ({count}), got {came}"
        )
    return [None if part == "-" else parse_position(part) for part in text.split(",")]


def _read_starts(texts: list[str], count: int) -> Sequence[Start | None]:
    if not texts:
        return [Now()] * count
    if len(texts) != count:
        raise BadRequest(f"expected a position for each of {count} channels, got {len(texts)}")
    return [parse_start(text) for text in texts]


def _read_format(fields: list[tuple[str, str]]) -> bool:
    found = dict(fields).get("format", "json")
    if found not in ("json", "text"):
        raise BadRequest(f"expected format=json or format=text, got {found!r:.40}")
    return found == "text"


class Framing(Encoder):
    """Encodes messages for a client that follows other channels as well.

    Events up to their ids are shared by all clients of the channel, independent of other channels.

    Args:
        before: The positions of the preceding channels in the URL, each followed by a comma.
        behind: The positions of the following channels, each preceded by a comma.
        begun: Encodes events up to their ids.
    """

    __slots__ = ("_before", "_behind")

    def __init__(self, before: bytes, behind: bytes, begun: Encoder) -> None:
        self.shared = begun
        self._before = before
        self._behind = behind

    def end(self, begun: Chunk, epoch: str, max_bytes: int) -> tuple[Any, int, Chunk]:
        """Add ids to as many events as fit."""
        before, behind = self._before + epoch.encode() + b".", self._behind + b"\n\n"
        parts, offset = begun.data, begun.upto - len(begun.data)
        if len(parts) == 1:  # the usual case
            event = parts[0] + before + b"%d" % begun.upto + behind
            return event, len(event), begun
        events: list[bytes] = []
        size = 0
        for part in parts:
            offset += 1
            event = part + before + b"%d" % offset + behind
            size += len(event)
            if size > max_bytes and events:
                return b"".join(events), size - len(event), Chunk(b"", 0, offset - 1, len(events))
            events.append(event)
        return b"".join(events), size, begun


def make_framing(
    before: bytes = b"",
    behind: bytes = b"",
    as_text: bool = False,
    ahead: int = 0,
    html: Html | None = None,
) -> Encoder:
    """Return the encoder of messages of a channel as whole events; see `Framing`.

    Args:
        before: The positions of the preceding channels in the URL, each followed by a comma.
        behind: The positions of the following channels, each preceded by a comma.
        as_text: Whether text values are sent without JSON quotes.
        ahead: For an on-demand channel, how many messages the server sends before it waits for an
            acknowledgement, in a line that `EventSource` ignores. 0 writes no such line.
        html: Renders a value as HTML, which is sent instead of the value.
    """
    if before or behind:
        return Framing(before, behind, _make_begun(as_text, ahead, html))
    return _make_whole(as_text, ahead, html)


def join_id(positions: Sequence[bytes]) -> bytes:
    """Encode an id: the positions of all channels, or `ENDED`, in the order of the URL."""
    return b",".join(positions)


def encode_event(name: bytes, data: dict[str, Any], id_: bytes | None = None) -> bytes:
    """Encode an event of the protocol itself.

    Args:
        name: Begins with `:`, unlike the name of any channel.
        data: An object for JSON.
        id_: The client's new id; `None` keeps the old one.
    """
    last = b"" if id_ is None else b"id: " + id_ + b"\n"
    return b"event: " + name + b"\n" + _write_data(json.dumps(data).encode()) + last + b"\n"


def encode_retry(milliseconds: int) -> bytes:
    """Encode the milliseconds after which a browser reconnects."""
    return b"retry: %d\n" % milliseconds


def _write_data(data: bytes) -> bytes:
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_NEWLINE.split(data))
    return b"data: " + data + b"\n"


def _write_text(data: bytes) -> bytes:
    if data.startswith(b'"'):
        # There is no lone surrogate: the value was encoded as JSON in UTF-8.
        data = json.loads(data).encode(errors="replace")
    return _write_data(data)


def _choose_writer(as_text: bool, html: Html | None) -> Callable[[bytes], bytes]:
    if html is not None:
        # Empty data only measures the bytes around a value.
        return lambda data: _write_data(html(data) if data else data)
    return _write_text if as_text else _write_data


def _write_ahead(ahead: int) -> bytes:
    return b"ahead: %d\n" % ahead if ahead else b""


@lru_cache(maxsize=256)
def _make_whole(as_text: bool, ahead: int, html: Html | None) -> Encoder:
    """Return the encoder of whole events, for a stream of one channel."""
    write, mark = _choose_writer(as_text, html), _write_ahead(ahead) + b"id: "

    def write_whole(name: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
        head, position = b"event: " + name.encode() + b"\n", mark + epoch.encode() + b"."
        return [head + write(m.data) + position + b"%d\n\n" % m.offset for m in messages]

    return Encoder(write_whole, b"".join)


@lru_cache(maxsize=256)
def _make_begun(as_text: bool, ahead: int, html: Html | None) -> Encoder:
    """Return the encoder of events up to their ids."""
    write, mark = _choose_writer(as_text, html), _write_ahead(ahead) + b"id: "

    def write_begun(name: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
        head = b"event: " + name.encode() + b"\n"
        return [head + write(m.data) + mark for m in messages]

    return Encoder(write_begun, list, gap=OBJECT)


# What a client speaks


def encode_query(starts: Mapping[str, str]) -> str:
    """Encode the query of a request: start positions by the name of the channel, at least one."""
    fields = [("channel", name) for name in starts]
    return urlencode(fields + [("position", start) for start in starts.values()])


class Dispatched(NamedTuple):
    """An event as an `EventSource` dispatches it.

    Attributes:
        name: The type of the event: a channel, or what begins with `:`.
        data: The lines of data, joined by newlines.
        id: The last id that came so far.
        ahead: The field of that name, which `EventSource` ignores; 0 without it.
    """

    name: str
    data: str
    id: str
    ahead: int = 0


class Decoder:
    """Decodes an event stream that comes in pieces.

    Attributes:
        last_id: The id to come back with; empty before the first.
        retry: Milliseconds after which to come back; `None` unless the server has said so.
        comments: How many comments came.

    Source: the HTML standard, "Interpreting an event stream".
    """

    def __init__(self) -> None:
        self.last_id: str = ""
        self.retry: int | None = None
        self.comments: int = 0
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._id = ""
        self._reset()

    @property
    def whole(self) -> bool:
        """Whether all that came so far are whole events."""
        return not self._rest and not self._begun

    def feed(self, piece: bytes) -> list[Dispatched]:
        """Decode a piece, and return the events that are complete with it."""
        text = self._rest + self._decoder.decode(piece)
        if "\r" in text:
            held = "\r" if text.endswith("\r") else ""  # a newline may follow
            text = text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n") + held
        *lines, self._rest = text.split("\n")
        found = []
        for line in lines:
            if line:
                self._take(line)
                continue
            self.last_id = self._id
            if self._data:
                data = "\n".join(self._data)
                found.append(Dispatched(self._name, data, self.last_id, self._ahead))
            self._reset()
        return found

    def _reset(self) -> None:
        self._name, self._ahead, self._begun = "message", 0, False
        self._data: list[str] = []

    def _take(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        self._begun |= field not in {"", "retry"}  # these stand alone, too
        match field:
            case "":
                self.comments += 1
            case "data":
                self._data.append(value)
            case "event":
                self._name = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if _is_number(value):
                self.retry = int(value)
            case "ahead" if _is_number(value):
                self._ahead = int(value)


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit()


def read_events(dispatched: Dispatched, names: Sequence[str]) -> Iterator[Event]:
    """Yield what an event of the stream says, in the shape of the poll.

    Args:
        dispatched: The event.
        names: The channels, in the order of the URL.

    Raises:
        BadRequest: The event is none of docs/wire.md.
    """
    name, data, id_, ahead = dispatched
    value = _read_data(name, data, of_channel := name[:1] != ":" or name in names)
    places = {n: at for n, at in zip(names, id_.split(","), strict=False) if at != "-"}
    if of_channel:
        yield Event(name, places.get(name, ""), value, ahead=ahead)
    elif name == ":open":
        for channel, position in value.get("positions", {}).items():
            yield Event(channel, position)
    else:
        channel = value.get("channel", "")
        reason = value.get("reason", "")
        yield Event(channel, places.get(channel, ""), error=name[1:], reason=reason)


def _read_data(name: str, data: str, any_kind: bool) -> Any:
    with suppress(ValueError):
        value = json.loads(data)
        if any_kind or isinstance(value, dict):
            return value
    raise BadRequest(f"expected another kind of JSON as the data of {name!r:.80}, got {data!r:.80}")
