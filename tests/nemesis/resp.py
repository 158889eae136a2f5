"""RESP3, as far as a proxy must understand it: where a value ends, and what a request asks for."""

from __future__ import annotations

SIMPLE = b"+-:_,#("
BULK = b"$=!"
MANY = {b"*"[0]: 1, b"~"[0]: 1, b">"[0]: 1, b"%"[0]: 2, b"|"[0]: 2}
PUSH = b">"[0]


class Splitter:
    """Cuts a stream of bytes into whole values."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the values that are whole by now."""
        self._rest += data
        found, begin = list[bytes](), 0
        while (end := end_of(self._rest, begin)) is not None:
            found.append(self._rest[begin:end])
            begin = end
        self._rest = self._rest[begin:]
        return found


def end_of(data: bytes, begin: int) -> int | None:
    """Return where the value that begins there ends; `None` if it has not yet."""
    left, at = 1, begin
    while left:
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        kind, head, at = data[at], data[at + 1 : line], line + 2
        left -= 1
        if kind in MANY:
            left += MANY[kind] * max(int(head), 0) + (kind == b"|"[0])
        elif kind in BULK and int(head) >= 0:
            at += int(head) + 2
            if at > len(data):
                return None
        assert kind in MANY or kind in BULK or kind in SIMPLE, f"expected RESP3, got {data[:40]!r}"
    return at


def words_of(request: bytes, count: int) -> list[bytes]:
    """Return the first words of a request."""
    found, at = list[bytes](), request.index(b"\r\n") + 2
    while len(found) < count and at < len(request):
        line = request.index(b"\r\n", at)
        size = int(request[at + 1 : line])
        found.append(request[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
    return found
