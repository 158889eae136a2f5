"""The entering and leaving of a process that publishes and does not serve.

Owns when such a process is connected, also after a fork, and that the application learns of each
message that was not stored. Such a process reads no source, owns no channel, and serves no client.
Must not know how a message gets to the broker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, TypeVar

from asgi_comet.brokers.logs import Stored
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.publisher import Publisher
from asgi_comet.log_events import event
from asgi_comet.node.build import Node
from asgi_comet.publishing.link import Job, Link

__all__ = ["Outlet", "Publishing"]

_logger = logging.getLogger(__name__)

T = TypeVar("T")

LAST = 0  # after the application's own finalizers of a process of `multiprocessing`


class Publishing:
    """Lets a process that does not serve publish. Made by `Comet.publishing`.

    `with` in threads and plain scripts, `async with` in asyncio. Leaving waits until all messages
    published so far are stored; leaving the last of several blocks also disconnects.
    In a process that serves, entering changes nothing: the server stores the messages.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def __enter__(self) -> Publishing:
        """Connect.

        Raises:
            RuntimeError: An event loop runs in this thread.
        """
        if _in_loop():
            raise RuntimeError(
                "expected `async with comet.publishing()` in an event loop, got `with`, which "
                "would block the loop"
            )
        self._outlet.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Wait until all messages are stored.

        Raises:
            BrokerUnavailable: Some messages were not stored; the text says how many.
        """
        settled = False
        try:
            settled = self._outlet.wait_stored().result()
        finally:
            self._outlet.leave(settled, error)

    async def __aenter__(self) -> Publishing:
        """Connect.

        Raises:
            RuntimeError: The event loop is not asyncio's.
        """
        if not _in_loop():
            raise RuntimeError(
                "expected asyncio for `async with comet.publishing()`, got trio: use `with` in a "
                "thread"
            )
        self._outlet.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Wait until all messages are stored.

        Raises:
            BrokerUnavailable: Some messages were not stored; the text says how many.
        """
        settled = False
        try:
            settled = await asyncio.wrap_future(self._outlet.wait_stored())
        finally:
            await asyncio.to_thread(self._outlet.leave, settled, error)


class Outlet(Publisher):
    """The connection of a process that publishes: a thread with an event loop of its own.

    Args:
        node: The parts of the Comet.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._entered = 0
        self._link: Link | None = None
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
            os.register_at_fork(after_in_child=partial(forget, weakref.ref(self)))

    def enter(self) -> None:
        """Connect with the first call."""
        with self._lock:
            self._entered += 1
            self._connect()

    def leave(self, settled: bool, error: BaseException | None) -> None:
        """Disconnect with the last call, and report messages that were not stored.

        Args:
            settled: Whether no message waits any more.
            error: The exception with which the application leaves, which takes precedence.

        Raises:
            BrokerUnavailable: Messages were not stored.
        """
        with self._lock:
            self._entered -= 1
            link = self._link
            if link is None:
                return
            if self._entered == 0:
                self._link, settled = None, False
                link.stop()
                self._node.broker.only_publishes = False
                self._node.channels.publish_by(None)
            lost = link.tell_lost(settled)
        if lost is not None and error is not None:
            _logger.error("%s", lost, extra=event("message.lost", reason=str(lost)))
        elif lost is not None:
            raise lost

    def wait_stored(self) -> Future[bool]:
        """Return whether no message waits, once none waits or the patience has ended."""
        link = self._link
        if link is not None:
            return link.wait_stored()
        nothing = Future[bool]()
        nothing.set_result(True)
        return nothing

    def open(self, feed: Feed) -> None:
        """Announce a channel to the workers; once for each connection."""
        self._connected().open(feed)

    def append(
        self,
        feed: Feed,
        data: bytes,
        *,
        id: str | None = None,  # noqa: A002 - as the parameter of `publish`
    ) -> Stored:
        """Append a message to a channel, after announcing the channel."""
        return self._connected().append(feed, data, id)

    def start(self, job: Job) -> None:
        """Run a job soon, and before the publisher ends."""
        self._connected().start(job)

    def watch(self, stored: Callable[[], Awaitable[object]]) -> None:
        """Wait for something before the publisher ends."""
        self._connected().watch(stored)

    async def carry(self, wait: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the loop of the connection."""
        return await self._connected().carry(wait)

    def forked(self) -> None:
        """Forget the connection, or the server, which belong to the parent process."""
        self._lock = threading.RLock()
        if self._link is not None or self._node.loop.running:
            serves = self._link is None
            self._link = None
            self._node.loop.leave()
            self._node.broker.forked()
            if serves:
                self._node.channels.appending.forked()

    def _connected(self) -> Link:
        link = self._link
        if link is None:  # in a forked process, which has not entered
            with self._lock:
                link = self._connect()
            assert link is not None  # noqa: S101 - this process does not serve
            Finalize(self, link.finish, exitpriority=LAST)
        return link

    def _connect(self) -> Link | None:
        """Connect, unless connected, or the server stores the messages."""
        if self._link is None and not self._node.loop.running:
            self._node.broker.only_publishes = True
            self._link = Link(self._node)
            self._link.begin()
            if self._node.channels.appending.publisher is None:  # not set after a fork
                self._node.channels.publish_by(self)
        return self._link


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def forget(known: weakref.ref[Outlet]) -> None:
    """Forget the connection, in a process that has just been forked."""
    outlet = known()
    if outlet is not None:
        outlet.forked()
