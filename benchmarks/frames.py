"""The little of WebSocket that a client needs which is cheaper than the servers it loads.

Source: RFC 6455, sections 4 and 5.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct

from .dialects import COOKIE
from .http import make_head, make_tail, read_head

KEY = base64.b64encode(b"sixteen bytes...").decode()  # it need not be a secret
ACCEPT = base64.b64encode(
    hashlib.sha1(
        f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False
    ).digest()
)
MASK = b"\x12\x34\x56\x78"  # nor need this

TEXT = 0x81  # final, and of text
PING = 0x89


def shake_hands(connection: socket.socket, path: str) -> bytes:
    """Open a WebSocket without any extension, and return what was read beyond.

    Raises:
        ValueError: The server will not.
    """
    headers = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        COOKIE,
    )
    connection.sendall(make_head("GET", path, *headers) + make_tail())
    head, rest = read_head(connection)
    if not head.startswith(b"HTTP/1.1 101") or ACCEPT not in head:
        raise ValueError(f"expected a WebSocket, got {head!r:.300}")
    if b"sec-websocket-extensions" in head.lower():
        raise ValueError(f"expected no compression, got {head!r:.300}")
    return rest


def encode_text(text: str) -> bytes:
    """Write a client's frame of fewer than 126 bytes."""
    data = text.encode()
    masked = bytes(byte ^ MASK[n % 4] for n, byte in enumerate(data))
    return bytes([TEXT, 0x80 | len(data)]) + MASK + masked


def decode_texts(raw: bytes) -> list[str] | None:
    """Read a server's frames; `None` while the last is not complete. Pings are passed over.

    Raises:
        ValueError: A frame is not a whole text.
    """
    texts = []
    while raw:
        if len(raw) < 2 or len(raw) < (begin := _begin(raw)):
            return None
        end = begin + _length(raw, begin)
        if len(raw) < end:
            return None
        if raw[0] == TEXT:
            texts.append(raw[begin:end].decode())
        elif raw[0] != PING:
            raise ValueError(f"expected a frame of text, got {raw[:end]!r:.300}")
        raw = raw[end:]
    return texts


def _begin(raw: bytes) -> int:
    return {126: 4, 127: 10}.get(raw[1], 2)


def _length(raw: bytes, begin: int) -> int:
    if begin == 2:
        return raw[1]
    length: int = struct.unpack(">H" if begin == 4 else ">Q", raw[2:begin])[0]
    return length
