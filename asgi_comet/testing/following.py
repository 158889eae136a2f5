"""Channels in tests with `fastapi.testclient`: sync tests, with the threads of the client.

Owns the thread that reads one WebSocket. Must not know the protocol (`protocol/following.py`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from asgi_comet.errors import ChannelClosed
from asgi_comet.position import Position
from asgi_comet.protocol.following import Following
from asgi_comet.protocol.steps import Lost, OpenSocket, Pause, Read, Send, Step

__all__ = ["Messages", "follow"]

STARTED = 10.0  # seconds that the server may take to begin


class Messages:
    """The messages of a channel, as they come."""

    def __init__(self) -> None:
        self._found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def next(self, timeout: float = 5.0) -> Any:
        """Return the next value.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: None came in that time.
            ChannelFull: Messages were missed.
            ChannelClosed: The channel has ended.
        """
        try:
            found = self._found.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"expected a message within {timeout:g} s, none came") from None
        if isinstance(found, Exception):
            self._found.put(found)  # for the next call
            raise found
        return found

    def put(self, found: Any) -> None:
        """Add a value, or why no more come."""
        self._found.put(found)


@contextmanager
def follow(
    client: TestClient, name: str, *, start: str | Position = "now", prefix: str = "/comet"
) -> Iterator[Messages]:
    """Follow a channel over a WebSocket, of a client of Starlette or FastAPI.

    What is published from then on comes. A name that begins with `~` is of the default client
    process of the client's session.

    Args:
        client: The client of Starlette or FastAPI, inside `with TestClient(app) as client`.
        name: The channel.
        start: `now`, `first`, `last:10`, or the position after which messages come.
        prefix: The path of the endpoints.

    Raises:
        TimeoutError: The server does not answer.
    """
    follower = _Follower(client, f"{prefix}/socket?ack=1", name, str(start))
    thread = threading.Thread(target=follower.run, name=f"follow {name}", daemon=True)
    thread.start()
    try:
        if not follower.begun.wait(STARTED):
            raise TimeoutError(f"expected the server to answer within {STARTED:g} s")
        yield follower.messages
    finally:
        follower.left.close()
        thread.join(STARTED)


class _Follower:
    """Follows one channel in a thread.

    Attributes:
        messages: What has come.
        begun: Set once the server has answered.
        left: Closed to leave.
    """

    def __init__(self, client: TestClient, url: str, name: str, start: str) -> None:
        self.messages = Messages()
        self.begun = threading.Event()
        self.left = ExitStack()
        self._client = client
        self._url = url
        self._name = name
        self._following = Following(
            {name: start}, resume=False, transports=["websocket"], clock=time.monotonic
        )
        self._session: WebSocketTestSession | None = None

    def run(self) -> None:
        """Follow until the channel has ended, or the connection is lost."""
        try:
            self._run()
        except Exception as error:
            self.messages.put(error)  # raised where the test waits
        else:
            self.messages.put(ChannelClosed(self._name, "ended", followed=True))
        finally:
            self.begun.set()

    def _run(self) -> None:
        result: object = None
        while (step := self._following.go_on(result)) is not None:
            result = self._do(step)
            for event in iter(self._following.take, None):
                self.messages.put(event.data)
            if self._following.positions:
                self.begun.set()

    def _do(self, step: Step) -> object:
        try:
            match step:
                case OpenSocket():
                    socket = self._client.websocket_connect(self._url, ["comet.v1"])
                    self._session = self.left.enter_context(socket)
                case Send() if self._session is not None:
                    self._session.send_text(step.text)
                case Read() if self._session is not None:
                    return self._session.receive_text()
                case Pause():
                    raise ConnectionError(f"expected the connection to last: {step.why}")
        except WebSocketDisconnect as error:
            if self._session is not None:
                return Lost(f"the server has closed the connection: {error.code}", error.code)
            return Lost(
                f"the server accepts no WebSocket at {self._url}: it refuses, and logs why, or "
                "`prefix` is not that of Comet"
            )
        return None
