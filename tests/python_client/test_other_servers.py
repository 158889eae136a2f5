"""Servers that behave as ours do not: on WebSockets, and amid a stream."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websockets

from asgi_comet.client.frames import Frames
from asgi_comet.errors import BadRequest, Replaced
from asgi_comet.protocol import following
from asgi_comet.protocol.steps import Lost
from tests.kit.faults import Proxy
from tests.kit.serving import Address
from tests.python_client.conftest import Loop, url_of


def frame(offset: int, data: Any) -> str:
    return json.dumps({"events": [{"channel": "c", "position": f"e.{offset}", "data": data}]})


@contextmanager
def websockets(say: Callable[[ServerConnection], None]) -> Iterator[Address]:
    """Serve WebSockets by the library of that name."""

    def handle(connection: ServerConnection) -> None:
        for _ in range(2):  # the channel that is none, and the one that is followed
            connection.recv()
        say(connection)

    with serve_websockets(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Address(*server.socket.getsockname())
        server.shutdown()
        thread.join()


class Scripted(Proxy):
    """Says the same to everybody, and hangs up."""

    def __init__(self, said: bytes) -> None:
        super().__init__(Address("", 0))
        self.said = said

    def accept(self, client: socket.socket) -> None:
        with client:
            client.recv(65536)
            client.sendall(self.said)


def read(shell: str, address: Address, transport: str, count: int = 1) -> list[Any]:
    loop = Loop(shell, url_of(address), transports=[transport])
    with loop.stack:
        return [one.data for one in loop.read(loop.client.channel("c", start="e.0"), count)]


def test_long_frames_fragments_pings_and_frames_of_bytes(shell: str) -> None:
    def say(connection: ServerConnection) -> None:
        connection.ping()
        connection.send(b"no text")
        text = frame(2, "ä")
        cut = text.index("\\u00e4")
        connection.send([frame(1, "x" * 200_000)])
        connection.send([text[:cut], text[cut:]])
        connection.recv()

    with websockets(say) as address:
        assert read(shell, address, "websocket", 2) == ["x" * 200_000, "ä"]


def test_a_code_that_says_why_raises(shell: str) -> None:
    with (
        websockets(lambda connection: connection.close(4000)) as address,
        pytest.raises(Replaced),
    ):
        read(shell, address, "websocket")


def test_a_text_that_is_no_json_is_refused(shell: str) -> None:
    with (
        websockets(lambda connection: connection.send(b"\xff", text=True)) as address,
        pytest.raises(BadRequest, match="expected"),
    ):
        read(shell, address, "websocket")


SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "the server closed the connection before it accepted the WebSocket"),
        (
            SWITCHING + b"Sec-WebSocket-Accept: x\r\n\r\n",
            "the server does not accept the WebSocket",
        ),
    ],
)
def test_what_is_no_handshake_is_a_lost_connection(
    shell: str,
    ends_at_a_pause: type[Exception],
    caplog: pytest.LogCaptureFixture,
    said: bytes,
    why: str,
) -> None:
    with Scripted(said).run() as server, pytest.raises(ends_at_a_pause):
        read(shell, server.address, "websocket")
    assert why in caplog.text


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("kind", "got"),
    [(b"Content-Type: text/html\r\n", "text/html"), (b"", "no content type")],
)
@pytest.mark.usefixtures("ends_at_a_pause")
def test_a_page_in_place_of_a_stream_is_refused(shell: str, kind: bytes, got: str) -> None:
    page = b"HTTP/1.1 200 OK\r\n" + kind + b"Content-Length: 13\r\n\r\n<p>Log in</p>"
    expected = f"expected an event stream from /comet/events, got {got}"
    with Scripted(page).run() as server, pytest.raises(BadRequest, match=expected):
        read(shell, server.address, "sse")


def test_a_stream_is_left_amid_what_has_come(shell: str) -> None:
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(event), event)
        for event in (b'event: c\ndata: "%d"\nid: e.%d\n\n' % (n, n) for n in range(1, 4))
    )
    with Scripted(STREAM + chunks).run() as server:
        assert read(shell, server.address, "sse") == ["1"]


class Silent(Proxy):
    """Accepts connections, and says nothing."""

    def __init__(self) -> None:
        super().__init__(Address("", 0))
        self.held: list[socket.socket] = []

    def accept(self, client: socket.socket) -> None:
        self.held.append(client)

    def closed(self) -> None:
        for one in self.held:
            one.close()


def test_a_silent_server_is_left(
    shell: str,
    transport: str,
    ends_at_a_pause: type[Exception],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "FIRST_EVENT", 0.05)
    with Silent().run() as server, pytest.raises(ends_at_a_pause):
        read(shell, server.address, transport)
    assert "the server was silent for too long" in caplog.text


def test_nothing_is_sent_after_the_goodbye_of_the_server() -> None:
    frames = Frames("http://127.0.0.1/comet/socket", {})
    server = ServerProtocol()
    server.receive_data(frames.output())
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    server.send_close(1012)
    frames.feed(b"".join(server.data_to_send()))
    assert frames.opened
    assert frames.output()  # the goodbye of the client
    frames.send("too late")
    frames.close()
    assert frames.output() == b""
    with pytest.raises(Lost, match="with code 1012"):
        frames.next()
