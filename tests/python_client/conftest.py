"""Loops over messages, in a thread and in a task."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, aclosing
from typing import Any, TypeVar

import anyio.lowlevel
import pytest
from anyio.from_thread import start_blocking_portal

from asgi_comet.client import AsyncClient, Client, aio_line, blocking_line
from asgi_comet.client.wanted import TRANSPORTS
from tests.kit.serving import Address

T = TypeVar("T")


SHELLS = ["thread", "asyncio", "trio"]


class Loop:
    """One of the clients, and loops over its messages.

    Args:
        shell: In a thread, or on a backend.
        url: Where it connects.
        options: Of the client.
    """

    def __init__(self, shell: str, url: str, **options: Any) -> None:
        self.shell = shell
        self.url = url
        self.options = options
        self.stack = ExitStack()
        self.portal: Any = None
        self.client: Any
        if shell == "thread":
            self.client = self.stack.enter_context(Client(url, **options))
        else:
            self.portal = self.stack.enter_context(start_blocking_portal(shell))
            client = self.portal.call(lambda: AsyncClient(url, **options))
            self.client = self.stack.enter_context(self.portal.wrap_async_context_manager(client))

    def process(self) -> str:
        """Return the token of the client process."""
        found: str = self.portal.call(self.client.process) if self.portal else self.client.process()
        return found

    def read(self, messages: Any, count: int | None = None) -> list[Any]:
        """Return the next messages, dealt with but for the last one; all that come by default."""
        if self.portal is None:
            return read(messages, count)
        found: list[Any] = self.portal.call(read_in_task, messages, count)
        return found

    def take(self, iterator: Any) -> Any:
        """Return the next message of a loop that goes on; the one before is dealt with."""
        return self.portal.call(anext, iterator) if self.portal else next(iterator)

    def begin(self, messages: Any) -> Any:
        """Begin a loop."""
        return aiter(messages) if self.portal else iter(messages)

    def close(self) -> None:
        """Close the client."""
        self.portal.call(self.client.aclose) if self.portal else self.client.close()

    def end(self, iterator: Any) -> None:
        """Leave a loop."""
        self.portal.call(iterator.aclose) if self.portal else iterator.close()


def read(messages: Any, count: int | None) -> list[Any]:
    found = []
    for message in messages:
        found.append(message)
        if len(found) == count:
            break
    return found


async def read_in_task(messages: Any, count: int | None) -> list[Any]:
    found = []
    with anyio.fail_after(20):
        async with aclosing(aiter(messages)) as loop:
            async for message in loop:
                found.append(message)
                if len(found) == count:
                    break
    return found


def in_background(function: Callable[[], T]) -> Future[T]:
    """Call a function in a thread, which does not keep a test that fails from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def loop(server: Address, shell: str, transport: str) -> Iterator[Loop]:
    """A client that speaks one transport."""
    found = Loop(shell, url_of(server), transports=[transport])
    with found.stack:
        yield found


def url_of(server: Address) -> str:
    return f"http://{server.host}:{server.port}/comet"


class Asked(Exception):
    """The client would pause."""


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients come back at once."""

    async def checkpoint(_: float) -> None:
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(blocking_line, "sleep", lambda _: None)
    monkeypatch.setattr(aio_line, "sleep", checkpoint)


@pytest.fixture
def ends_at_a_pause(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """Let clients that would try again raise this."""

    def stop(_: float) -> None:
        raise Asked

    async def stop_task(_: float) -> None:
        raise Asked

    monkeypatch.setattr(blocking_line, "sleep", stop)
    monkeypatch.setattr(aio_line, "sleep", stop_task)
    return Asked
