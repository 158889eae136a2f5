"""The registration protocol, `application/x-ocsigen-comet`: requests and answers as bytes.

Owns JavaScript's `escape` in one direction and `encodeURIComponent` in the other.
Must not know which channels live.

Divergences from `ocsigen_comet`:

1. Identifiers in answers are percent-encoded like messages; the original sends them raw.
2. Pairs are always joined by a newline; the original joins ended ones by a colon.
3. A message `ENDED_CHANNEL` is sent as `%45NDED_CHANNEL`, so it is not mistaken for an end.

Source: docs/wire.md#registration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote, unquote

from asgi_comet.core.messages import Message
from asgi_comet.core.names import check_asked
from asgi_comet.core.runs import Encoder
from asgi_comet.errors import BadRequest
from asgi_comet.protocol.events import Event

__all__ = [
    "CONTENT_TYPE",
    "EMPTY",
    "decode_number",
    "decode_pairs",
    "decode_registration",
    "decode_text",
    "encode_ended",
    "encode_messages",
    "encode_registration",
    "spellings",
    "unescape",
]

CONTENT_TYPE = b"application/x-ocsigen-comet"
EMPTY = "Empty or incorrect registration"
ENDED = "ENDED_CHANNEL"
UNRESERVED = "!'()*-._~"  # unescaped by encodeURIComponent, besides letters and digits

_NEWLINE = re.compile(r"\r?\n|%0A|%u000A|%0D%0A", re.IGNORECASE)
_UNICODE = re.compile(r"%u([0-9A-Fa-f]{4})")
_RUN = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


def decode_registration(body: bytes, limit: int) -> list[str]:
    """Decode the identifiers of a request, each once, in the order of the request.

    Args:
        body: `registration=<value>`; several values are joined, other parameters are ignored.
        limit: The maximal count of identifiers.

    Returns:
        The identifiers, still escaped: `spellings` gives the possible names.

    Raises:
        BadRequest: There is no identifier, there are more than `limit`, or one is longer than any
            valid name.
    """
    found: dict[str, None] = {}
    for identifier in _identifiers(body):
        check_asked(unescape(identifier))  # the shortest of the spellings
        found[identifier] = None
        if len(found) > limit:
            raise BadRequest(f"expected at most {limit} channels in a registration, got more")
    if not found:
        raise BadRequest(EMPTY)
    return list(found)


def decode_number(body: bytes) -> str | None:
    """Decode the parameter `number` of a request of a client process; `None` without it.

    Raises:
        BadRequest: The parameter is not a number of at most 16 digits.
    """
    for value in _parameters(body, "number"):
        if not re.fullmatch(r"[0-9]{1,16}", value):
            raise BadRequest(f"expected number to be at most 16 digits, got {value!r:.40}")
        return value
    return None


def _parameters(body: bytes, wanted: str) -> Iterator[str]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    for parameter in text.split("&"):
        name, _, value = parameter.partition("=")
        if unescape(name) == wanted:
            yield value


def _identifiers(body: bytes) -> Iterator[str]:
    for value in _parameters(body, "registration"):
        start = 0
        for newline in _NEWLINE.finditer(value):  # not `split`: the limit may stop the loop early
            if newline.start() > start:
                yield value[start : newline.start()]
            start = newline.end()
        if start < len(value):
            yield value[start:]


def spellings(identifier: str) -> Iterator[str]:
    """Yield the names that an escaped identifier may mean, the likeliest first.

    Runs of `%XX` are decoded as UTF-8 if valid (`encodeURIComponent`), then as Latin-1 (`escape`),
    then with `+` as space (form encoders).
    """
    yield unescape(identifier)
    yield unescape(identifier, latin=True)
    yield unescape(identifier.replace("+", " "))


def unescape(text: str, *, latin: bool = False) -> str:
    """Undo JavaScript's `escape`: `%XX` and `%uXXXX`; other characters are kept.

    Args:
        text: The escaped text.
        latin: Decode every run of `%XX` as Latin-1, even one that is valid UTF-8.

    Returns:
        The text, with lone surrogates replaced by U+FFFD.
    """
    if "%" not in text:
        return text

    def read(run: re.Match[str]) -> str:
        raw = bytes.fromhex(run[0].replace("%", ""))
        if not latin:
            try:
                return raw.decode()
            except UnicodeDecodeError:
                pass
        return raw.decode("latin-1")

    # Runs and `%uXXXX` are decoded in one pass, so a decoded `%` is not decoded again.
    pieces = []
    start = 0
    for unit in _UNICODE.finditer(text):
        pieces += [_RUN.sub(read, text[start : unit.start()]), chr(int(unit[1], 16))]
        start = unit.end()
    joined = "".join([*pieces, _RUN.sub(read, text[start:])])
    return joined.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encode_ended(name: str) -> bytes:
    """Encode the pair for a channel that has ended."""
    return f"{quote(name, safe=UNRESERVED, errors='replace')}:{ENDED}".encode()


def _encode(data: bytes) -> str:
    text = json.loads(data) if data.startswith(b'"') else data
    if text == ENDED:
        return f"%{ord(text[0]):X}{text[1:]}"
    return quote(text, safe=UNRESERVED)


def _write(name: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
    identifier = quote(name, safe=UNRESERVED)
    return [f"{identifier}:{_encode(message.data)}".encode() for message in messages]


encode_messages: Encoder = Encoder(_write, b"\n".join, gap=1, around=1)
"""Encodes messages of a channel as pairs joined by newlines.

A text value is sent as such, any other value as JSON; the protocol has no positions.
"""


# What a client speaks


def encode_registration(names: Iterable[str], number: int) -> bytes:
    """Encode a request at the endpoint of a client process.

    Args:
        names: The channels.
        number: The number of the answer that is asked for: the next one, or the last one again.
    """
    joined = "%0A".join(quote(name, safe=UNRESERVED) for name in names)
    return f"registration={joined}&number={number}".encode()


def decode_pairs(body: bytes) -> list[Event]:
    """Decode an answer: messages, and `closed` for channels that have ended; without positions."""
    return [_decode_pair(pair) for pair in body.decode().split("\n") if pair]


def _decode_pair(pair: str) -> Event:
    name, _, message = pair.partition(":")
    if message == ENDED:
        return Event(unquote(name), error="closed", reason="ended")
    return Event(unquote(name), data=decode_text(unquote(message)))


def decode_text(text: str) -> Any:
    """Decode JSON, or return the text: texts are sent as they are, so `"7"` is read as a number."""
    try:
        return json.loads(text)
    except ValueError:
        return text
