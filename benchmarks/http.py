"""The little of HTTP/1.1 that a client needs which is cheaper than the servers it loads."""

from __future__ import annotations

import socket

TIMEOUT = 60.0  # seconds without an answer after which a benchmark gives up
LAST_CHUNK = b"0\r\n\r\n"
CHUNK = 64 * 1024  # bytes read at once: the most that malloc does not ask of the kernel each time


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
    if not rest.endswith(LAST_CHUNK):
        return None
    body = join_chunks(rest.removesuffix(LAST_CHUNK))
    return None if body is None else (head, body)


def join_chunks(raw: bytes) -> bytes | None:
    """Return the bodies of chunks; `None` while the last is not complete.

    Raises:
        ConnectionError: The chunk that ends an answer came, which is expected only by `split`.
    """
    chunks: list[bytes] = []
    while raw:
        size, found, rest = raw.partition(b"\r\n")
        length = int(size, 16) if found else 0
        if found and length == 0:
            raise ConnectionError("expected chunks without end, got the last")
        if not found or len(rest) < length + 2:
            return None
        chunks.append(rest[:length])
        raw = rest[length + 2 :]
    return b"".join(chunks)


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read the headers of an answer that has no end, and the beginning of its body if it came."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        piece = connection.recv(CHUNK)
        if not piece:
            raise ConnectionError(f"expected an answer, the server closed after {raw[:300]!r}")
        raw += piece
    head, _, rest = raw.partition(b"\r\n\r\n")
    return head, rest


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
