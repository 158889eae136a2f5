"""A real server on a real socket, in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from websockets.exceptions import InvalidState

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


class Tab:
    """A page of a browser that speaks the JSON poll: a client process, and a cookie jar.

    Tabs of one browser share the jar.
    """

    def __init__(self, address: Address, jar: dict[str, str] | None = None) -> None:
        self.address = address
        self.jar = {} if jar is None else jar
        opened = self.post("/comet/open")
        assert opened.status == 201, opened
        self.opened = json.loads(opened.body)
        self.url: str = self.opened["url"]

    def post(self, path: str, content: Any = None, kind: str = "application/json") -> Answer:
        headers = {"Content-Type": kind, "Cookie": self.cookie}
        body = content if isinstance(content, str | bytes) else json.dumps(content)
        answer = self.address.request("POST", path, body, headers)
        self.keep(answer)
        return answer

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.jar.items())

    def keep(self, answer: Answer) -> None:
        if "set-cookie" in answer.headers:
            pair = answer.headers["set-cookie"].partition(";")[0]
            name, _, value = pair.partition("=")
            self.jar[name] = value

    def poll(self, channels: dict[str, str], **more: Any) -> list[Any]:
        answer = self.post(f"{self.url}/poll", {"channels": channels, **more})
        assert answer.status == 200, answer
        return events(answer)

    def hold(self, channels: dict[str, str]) -> Held:
        """Poll from another thread."""
        return Held(lambda: self.post(f"{self.url}/poll", {"channels": channels}))


def events(answer: Answer) -> list[Any]:
    """The events of an answer to a poll."""
    found = json.loads(answer.body)["events"]
    assert isinstance(found, list)
    return found


def poll(address: Address, channels: dict[str, str], path: str = "/comet/poll", **more: Any) -> Any:
    """Poll site channels, without a cookie."""
    body = json.dumps({"channels": channels, **more})
    answer = address.request("POST", path, body, {"Content-Type": "application/json"})
    assert answer.status == 200, answer
    return events(answer)


class Held:
    """A request that is held, sent from another thread; `answer()` waits for what came."""

    def __init__(self, send: Callable[[], Answer]) -> None:
        self._found: list[Answer | Exception] = []
        self._thread = threading.Thread(target=self._run, args=(send,), daemon=True)
        self._thread.start()

    def _run(self, send: Callable[[], Answer]) -> None:
        try:
            self._found.append(send())
        except Exception as error:
            self._found.append(error)

    def answer(self) -> Answer:
        self._thread.join(20)
        assert self._found, "the request is still held"
        found = self._found[0]
        if isinstance(found, Exception):
            raise found
        return found


def hold_registration(address: Address, body: bytes | str, path: str = "/") -> Held:
    """Have a registration held."""
    return Held(lambda: address.register(body, path))


def bound_socket() -> socket.socket:
    """A listening socket on a free port: clients may connect before the server accepts."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    return listening


@contextmanager
def serve(
    app: ASGIApp, *, loop: str = "uvloop", http: str = "httptools", ws: str = "auto", **more: Any
) -> Iterator[Address]:
    """Serve an application with uvicorn while the context lasts."""
    listening = bound_socket()
    config = uvicorn.Config(app, loop=loop, http=http, log_config=None, ws=ws, **more)
    server = PromptServer(config)
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
        server.stop()
        thread.join(20)
        listening.close()
        assert not thread.is_alive()
        assert not crashed, crashed


class PromptServer(uvicorn.Server):
    """Uvicorn, except that `stop` ends it at once.

    Uvicorn's own loop looks ten times a second whether it is to end, and again whether its
    connections have: a fifth of a second for each of 2,000 tests. What a connection or the lifespan
    is told, and in which order, stays as it is.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End the server; callable from any thread."""
        self.should_exit = True
        if self._loop is not None:  # otherwise `main_loop` has yet to look
            with suppress(RuntimeError):  # the server has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        if not await self.on_tick(0):
            await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for one in sockets or []:
            one.close()
        state = self.server_state
        for connection in list(state.connections):
            with suppress(InvalidState):  # uvicorn says goodbye to a page that said it just before
                connection.shutdown()
        while state.connections or state.tasks:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.002)
        for server in self.servers:
            await server.wait_closed()
        await self.lifespan.shutdown()


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody else is given; nothing is accepted there unless a server listens."""
    with socket.socket() as reserve:
        reserve.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserve.bind(("127.0.0.1", 0))
        yield reserve.getsockname()[1]
