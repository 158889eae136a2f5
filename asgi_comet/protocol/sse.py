"""Server-sent events as bytes, and what a request for them asks.

Owns the text of `text/event-stream` and the ids, which hold the positions of all channels in the
order of the URL. Must not know which channels live.

Source: docs/wire.md#server-sent-events; the HTML standard, "Server-sent events".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from asgi_comet.core.messages import Message, Now, Position, Start, parse_start
from asgi_comet.core.names import check_asked
from asgi_comet.core.runs import Encoder, Rendered
from asgi_comet.errors import BadRequest

__all__ = [
    "COMMENT",
    "CONTENT_TYPE",
    "OVER",
    "Html",
    "Request",
    "decode_request",
    "encode_event",
    "encode_retry",
    "join_id",
    "make_framing",
]

Html = Callable[[bytes], bytes]
"""Makes the HTML, in UTF-8, of a value that is given as JSON."""

CONTENT_TYPE = b"text/event-stream; charset=utf-8"
COMMENT = b":\n"  # without an empty line, at which httpx-sse would see an event
OVER = b"-"  # in an id, in place of the position of a channel that has ended

OBJECT = 48  # bytes that Python takes for a text that is kept apart
SPARE_FIELDS = 32  # parameters of a query that are not ours

_NEWLINE = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Request:
    """A request for server-sent events.

    Attributes:
        starts: Where to begin, by the name of the channel in the order of the URL; `None` for one
            that is over for this client. At least one.
        as_text: Whether values that are texts are written as they are.
    """

    starts: dict[str, Start | None]
    as_text: bool

    @property
    def over(self) -> bool:
        """Whether nothing more comes on any channel: the client is to stop."""
        return not any(self.starts.values())

    @property
    def own(self) -> bool:
        """Whether any of the channels is the client process' own."""
        return any(name.startswith("~") for name, start in self.starts.items() if start)


def decode_request(query: bytes, last_event_id: bytes | None, limit: int) -> Request:
    """Read a request.

    Args:
        query: `channel=…` once per channel; then `position=…` as often or not at all;
            `format=text`. Others are ignored.
        last_event_id: The header of a client that comes back; it wins over `position`.
        limit: The greatest number of channels.

    Raises:
        BadRequest: It is not what docs/wire.md says; the text names what is wrong.
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
    return [None if part == "-" else Position.parse(part) for part in text.split(",")]


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
    """How messages are written for a client that follows other channels as well.

    Events up to their ids are shared by all who follow the channel, wherever they are on others.

    Args:
        before: The positions of the channels before it in the URL, each with a comma after it.
        behind: Those of the channels behind it, each with a comma before it.
        begun: Writes events up to their ids.
    """

    __slots__ = ("_before", "_behind")

    def __init__(self, before: bytes, behind: bytes, begun: Encoder) -> None:
        self.shared = begun
        self._before = before
        self._behind = behind

    def end(self, begun: Rendered, epoch: str, max_bytes: int) -> tuple[Any, int, Rendered]:
        """Write the ids of as many events as fit, and what is behind them."""
        before, behind = self._before + epoch.encode() + b".", self._behind + b"\n\n"
        parts, offset = begun.data, begun.upto - len(begun.data)
        if len(parts) == 1:  # as it comes, mostly
            event = parts[0] + before + b"%d" % begun.upto + behind
            return event, len(event), begun
        events: list[bytes] = []
        size = 0
        for part in parts:
            offset += 1
            event = part + before + b"%d" % offset + behind
            size += len(event)
            if size > max_bytes and events:
                return b"".join(events), size - len(event), Rendered(b"", 0, offset - 1)
            events.append(event)
        return b"".join(events), size, begun


def make_framing(
    before: bytes = b"",
    behind: bytes = b"",
    as_text: bool = False,
    ahead: int = 0,
    html: Html | None = None,
) -> Encoder:
    """Return what writes messages of a channel as whole events; see `Framing`.

    Args:
        before: The positions of the channels before it in the URL, each with a comma after it.
        behind: Those of the channels behind it, each with a comma before it.
        as_text: Whether values that are texts are written as they are.
        ahead: Of an on-demand channel, how many messages the server sends before it waits for an
            acknowledgement: a line that `EventSource` ignores. 0 writes no such line.
        html: Makes the HTML of a value, which is written in its place.
    """
    if before or behind:
        return Framing(before, behind, _make_begun(as_text, ahead, html))
    return _make_whole(as_text, ahead, html)


def join_id(positions: Sequence[bytes]) -> bytes:
    """Write an id: the positions of all channels, or `OVER`, in the order of the URL."""
    return b",".join(positions)


def encode_event(name: bytes, data: dict[str, Any], id_: bytes | None = None) -> bytes:
    """Write an event of ours.

    Args:
        name: Begins with `:`, so no channel has it.
        data: An object for JSON.
        id_: Where the client is now; `None` leaves it where it was.
    """
    last = b"" if id_ is None else b"id: " + id_ + b"\n"
    return b"event: " + name + b"\n" + _write_data(json.dumps(data).encode()) + last + b"\n"


def encode_retry(milliseconds: int) -> bytes:
    """Write after how many milliseconds a browser whose stream has ended comes back."""
    return b"retry: %d\n" % milliseconds


def _write_data(data: bytes) -> bytes:
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_NEWLINE.split(data))
    return b"data: " + data + b"\n"


def _write_text(data: bytes) -> bytes:
    if data.startswith(b'"'):
        # A lone surrogate cannot be in it: it would not have been encoded as JSON in UTF-8.
        data = json.loads(data).encode(errors="replace")
    return _write_data(data)


def _choose_writer(as_text: bool, html: Html | None) -> Callable[[bytes], bytes]:
    if html is not None:
        # Without a value only what is around it is measured.
        return lambda data: _write_data(html(data) if data else data)
    return _write_text if as_text else _write_data


def _write_ahead(ahead: int) -> bytes:
    return b"ahead: %d\n" % ahead if ahead else b""


@lru_cache(maxsize=256)
def _make_whole(as_text: bool, ahead: int, html: Html | None) -> Encoder:
    """Return what writes whole events of a channel that is followed alone."""
    write, mark = _choose_writer(as_text, html), _write_ahead(ahead) + b"id: "

    def write_whole(name: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
        head, position = b"event: " + name.encode() + b"\n", mark + epoch.encode() + b"."
        return [head + write(m.data) + position + b"%d\n\n" % m.offset for m in messages]

    return Encoder(write_whole, b"".join)


@lru_cache(maxsize=256)
def _make_begun(as_text: bool, ahead: int, html: Html | None) -> Encoder:
    """Return what writes events up to their ids."""
    write, mark = _choose_writer(as_text, html), _write_ahead(ahead) + b"id: "

    def write_begun(name: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
        head = b"event: " + name.encode() + b"\n"
        return [head + write(m.data) + mark for m in messages]

    return Encoder(write_begun, list, gap=OBJECT)
