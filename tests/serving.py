"""A real server on a real socket, in a thread of the test's own process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse

import uvicorn
from starlette.types import ASGIApp

COMET = "application/x-ocsigen-comet"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def pairs(self) -> list[bytes]:
        return self.body.split(b"\n") if self.body else []


@dataclass
class Address:
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=20)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            return read(connection.getresponse())
        finally:
            connection.close()

    def register(self, body: bytes | str, path: str = "/", **headers: str) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", path, body, {"Content-Type": COMET, **names})


def read(response: HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


class Held:
    """A request that is held, sent from another thread; `answer()` waits for what came."""

    def __init__(self, address: Address, body: bytes | str, path: str = "/") -> None:
        self._found: list[Answer | Exception] = []
        self._thread = threading.Thread(target=self._run, args=(address, body, path), daemon=True)
        self._thread.start()

    def _run(self, address: Address, body: bytes | str, path: str) -> None:
        try:
            self._found.append(address.register(body, path))
        except Exception as error:
            self._found.append(error)

    def answer(self) -> Answer:
        self._thread.join(20)
        assert self._found, "the request is still held"
        found = self._found[0]
        if isinstance(found, Exception):
            raise found
        return found


def bound_socket() -> socket.socket:
    """A listening socket on a free port: clients may connect before the server accepts."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    return listening


@contextmanager
def serve(app: ASGIApp, *, loop: str = "uvloop", http: str = "httptools") -> Iterator[Address]:
    """Serve an application with uvicorn while the context lasts."""
    listening = bound_socket()
    config = uvicorn.Config(app, loop=loop, http=http, log_config=None, ws="none")
    server = uvicorn.Server(config)
    crashed: list[BaseException] = []

    def run() -> None:
        try:
            server.run(sockets=[listening])
        except BaseException as error:
            crashed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield Address(*listening.getsockname())
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()
        assert not crashed, crashed
