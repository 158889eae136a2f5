"""The little of HTTP/1.1 that a client needs which is cheaper than the servers it loads."""

from __future__ import annotations

import socket

TIMEOUT = 60.0  # seconds without an answer after which a benchmark gives up
CHUNK = 256 * 1024  # bytes read at once


def connect(port: int) -> socket.socket:
    """Open a connection to a server on this machine."""
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def make_head(method: str, path: str, *headers: str) -> bytes:
    """Write the beginning of a request, to which headers can be added."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, ""]).encode()


def make_tail(body: str = "", *headers: str) -> bytes:
    """Write the rest of a request: further headers, and a body."""
    lines = [*headers, *([f"Content-Length: {len(body)}"] if body else ()), "", body]
    return "\r\n".join(lines).encode()


def split(raw: bytes) -> tuple[bytes, bytes] | None:
    """Return an answer's headers and body; `None` while it is not complete.

    Raises:
        ValueError: It is an error, or has neither a length nor chunks.
    """
    head, found, rest = raw.partition(b"\r\n\r\n")
    if not found:
        return None
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
        raise ValueError(f"expected an answer of status 200 or 201, got {raw[:300]!r}")
    lower = head.lower()
    _, found, length = lower.partition(b"\r\ncontent-length:")
    if found:
        missing = int(length.split(b"\r\n")[0]) - len(rest)
        if missing < 0:
            raise ValueError(f"expected one answer, got more: {rest[missing:][:300]!r}")
        return (head, rest) if missing == 0 else None
    if b"\r\ntransfer-encoding: chunked" not in lower:
        raise ValueError(f"expected an answer with a length or chunks, got {head!r}")
    return (head, _join_chunks(rest)) if rest.endswith(b"0\r\n\r\n") else None


def _join_chunks(rest: bytes) -> bytes:
    chunks: list[bytes] = []
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return b"".join(chunks)
        chunks.append(rest[:length])
        rest = rest[length + 2 :]


def exchange(connection: socket.socket, request: bytes) -> tuple[bytes, bytes]:
    """Send a request and return the headers and the body of the answer."""
    connection.sendall(request)
    return read(connection)


def read(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read the headers and the body of an answer."""
    raw = b""
    while (answer := split(raw)) is None:
        piece = connection.recv(CHUNK)
        if not piece:
            raise ConnectionError(f"expected an answer, the server closed after {raw[:300]!r}")
        raw += piece
    return answer
