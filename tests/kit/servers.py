"""Servers in processes of their own, as operators run them, and raw clients of their streams."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.kit.programs import ROOT
from tests.kit.serving import Address, bound_socket, read
from tests.kit.streams import LINGER, Cut

APP = "tests.kit.application:app"
LIMIT = 20.0  # seconds after which a test that hangs gives up
NOTICED = 1.0  # seconds within which a server says that a client has left
STOPPED = 2.0  # seconds within which a server ends after SIGTERM

# Since Python 3.12 asyncio's `Server.wait_closed` waits for all connections, and hypercorn calls it
# before its grace begins: https://github.com/pgjones/hypercorn/issues/308. uvloop's does not wait.
NO_GRACE_ON_ASYNCIO = sys.version_info >= (3, 12)


@dataclass(frozen=True)
class Kind:
    """A server and its options, as one would type them."""

    server: str
    options: tuple[str, ...]

    @property
    def id(self) -> str:
        words = [word for word in self.options if not word.startswith("-") and word not in "0asgi"]
        return "-".join([self.server, *words])


def _granian(*options: str) -> Kind:
    return Kind("granian", ("--interface", "asgi", *options))


def _hypercorn(loop: str) -> Kind:
    return Kind("hypercorn", ("--workers", "0", "--worker-class", loop))


UVICORN = [
    Kind("uvicorn", ("--loop", "asyncio", "--http", "h11", "--ws", "websockets-sansio")),
    Kind("uvicorn", ("--loop", "uvloop", "--http", "httptools", "--ws", "wsproto")),
]
HYPERCORN = [_hypercorn("asyncio"), _hypercorn("uvloop"), _hypercorn("trio")]
GRANIAN = [
    _granian("--loop", "asyncio", "--runtime-mode", "st"),
    _granian("--loop", "uvloop", "--runtime-mode", "mt"),
]
EVERY = [*UVICORN, *HYPERCORN, *GRANIAN]
GUNICORN = Kind(
    "gunicorn", ("--worker-class", "uvicorn_worker.UvicornWorker", "--no-control-socket")
)


@dataclass
class Running:
    """A server that runs. `connections` to it are closed in the end, if they are not before."""

    process: subprocess.Popen[str]
    address: Address
    lines: queue.Queue[str | None]
    connections: ExitStack
    log: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"{self.address.host}:{self.address.port}"

    def wait_for(self, words: str, within: float = LIMIT) -> None:
        """Return once the log says that; at most that long after the line before."""
        while True:
            line = self.lines.get(timeout=within)
            assert line is not None, f"the server ended without {words!r}: {self.log}"
            self.log.append(line)
            if words in line:
                return

    def stop(self, within: float = STOPPED) -> str:
        """Send SIGTERM, and return all that the log says once it has ended."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended(within)

    def ended(self, within: float = STOPPED) -> str:
        self.process.wait(within)
        while (line := self.lines.get(timeout=LIMIT)) is not None:
            self.log.append(line)
        return "".join(self.log)

    def get(self, path: str, within: float = LIMIT) -> Any:
        """Ask the application, at most that long."""
        connection = HTTPConnection(self.address.host, self.address.port, timeout=within)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = read(connection.getresponse())
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def until(self, listeners: int, channel: str = "held0", within: float = LIMIT) -> None:
        """Return once a channel has exactly that many listeners."""
        self.get(f"/until?channel={channel}&listeners={listeners}", within)

    def publish(self, count: int = 1, size: int = 1, channel: str = "held0") -> None:
        self.get(f"/publish?channel={channel}&count={count}&size={size}")


@contextmanager
def running(kind: Kind, app: str = APP, **environ: str) -> Iterator[Running]:
    """Run a server while the context lasts."""
    with ExitStack() as connections, ExitStack() as stack:
        if kind.server == "granian":
            # It takes no descriptor; a bound socket that does not listen keeps the port for it.
            kept = stack.enter_context(socket.socket())
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            kept.bind(("127.0.0.1", 0))
            bind, descriptors = ["--port", str(kept.getsockname()[1])], []
        else:
            kept = stack.enter_context(bound_socket())
            number = kept.fileno()
            bind = (
                ["--bind", f"fd://{number}"]
                if kind.server in ("gunicorn", "hypercorn")
                else ["--fd", f"{number}"]
            )
            descriptors = [number]
        process = subprocess.Popen(
            [sys.executable, "-m", kind.server, *bind, *kind.options, app],
            cwd=ROOT,
            env={**os.environ, **environ},
            pass_fds=descriptors,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        lines: queue.Queue[str | None] = queue.Queue()
        thread = threading.Thread(target=_pump, args=(process, lines), daemon=True)
        thread.start()
        stack.callback(thread.join, LIMIT)
        stack.callback(_kill, process)
        server = Running(process, Address(*kept.getsockname()), lines, connections)
        if kind.server == "granian":
            server.wait_for("Started worker-1")
            _knock(server.address)
        try:
            yield server
        except BaseException as error:
            _kill(process)
            thread.join(LIMIT)  # until the log is complete
            with contextlib.suppress(queue.Empty):
                while line := lines.get_nowait():
                    server.log.append(line)
            error.add_note(f"The server said:\n{''.join(server.log)}")
            raise


def _knock(address: Address) -> None:
    """Return once the server listens, which it says a moment too early."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            address.connect().close()
            return


def _pump(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            lines.put(line)
    lines.put(None)


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # granian has its worker in another process
    process.wait(LIMIT)


def raw_connection(server: Running, buffer: int = 0) -> socket.socket:
    """Connect; with `buffer`, the system takes no more bytes than about that for who reads none."""
    connection = server.connections.enter_context(socket.socket())
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(LIMIT)
    connection.connect((server.address.host, server.address.port))
    return connection


class Stream:
    """Server-sent events, byte by byte; it is `Cut` at its end, too.

    Its `ended` tells whether HTTP's own end of the body came.
    """

    def __init__(
        self,
        server: Running,
        path: str = "/comet/events?channel=held0",
        *,
        buffer: int = 0,
        **headers: str,
    ) -> None:
        self.socket = raw_connection(server, buffer)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"GET {path} HTTP/1.1", f"Host: {server.host}"]
        lines += [f"{name}: {value}" for name, value in named.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._raw = b""
        self._text = b""
        self.ended = False

    def head(self) -> str:
        """Read the status line and the headers."""
        head = self._until(b"\r\n\r\n").decode().lower()
        assert "transfer-encoding: chunked" in head, head
        return head

    def event(self) -> dict[str, str]:
        """Read the next event; comments are skipped."""
        while True:
            while b"\n\n" not in self._text:
                chunk = self.chunk()
                if not chunk:
                    raise Cut
                self._text += chunk
            block, _, self._text = self._text.partition(b"\n\n")
            fields = dict(line.partition(": ")[::2] for line in block.decode().split("\n"))
            if "event" in fields:
                return fields

    def all_events(self) -> list[dict[str, str]]:
        """Read all events up to the end, in order or not."""
        found = []
        try:
            while True:
                found.append(self.event())
        except Cut:
            return found

    def chunk(self) -> bytes:
        """Read a chunk of the body; the empty one is its end."""
        size = int(self._until(b"\r\n"), 16)
        while len(self._raw) < size + 2:
            self._receive()
        chunk, self._raw = self._raw[:size], self._raw[size + 2 :]
        self.ended = not chunk
        return chunk

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._raw:
            self._receive()
        found, _, self._raw = self._raw.partition(mark)
        return found

    def _receive(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise Cut
        self._raw += data

    def leave(self) -> None:
        self.socket.close()


def reset(connection: socket.socket) -> None:
    """Have closing a connection cut it off, as when a machine crashes that comes back."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)


def raw_request(server: Running, kind: str, path: str, body: str) -> socket.socket:
    """Send a request whose answer nobody reads."""
    connection = raw_connection(server)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: {server.host}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return connection


def raw_websocket(
    server: Running, start: str = "now", buffer: int = 0, path: str = "/comet/socket"
) -> socket.socket:
    """Open a WebSocket and subscribe; nobody reads its frames."""
    connection = raw_connection(server, buffer)
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)  # and none of what comes after
        assert byte, head
        head += byte
    assert b" 101 " in head.split(b"\r\n")[0], head
    text = json.dumps({"subscribe": {"held0": start}}).encode()
    connection.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    return connection


def open_websocket(server: Running, start: str = "now") -> ClientConnection:
    """Open a WebSocket, subscribe, and read where it begins."""
    url = f"ws://{server.host}/comet/socket"
    opened = server.connections.enter_context(
        connect(url, subprotocols=[Subprotocol("comet.v1")], max_size=None, proxy=None)
    )
    assert opened.subprotocol == "comet.v1"
    opened.send(json.dumps({"subscribe": {"held0": start}}))
    (there,) = frame_events(opened)
    assert "data" not in there
    return opened


def frame_events(opened: ClientConnection) -> list[Any]:
    """Read the events of the next frame."""
    found = json.loads(opened.recv(timeout=LIMIT))["events"]
    assert isinstance(found, list)
    return found
