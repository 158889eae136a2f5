"""One worker, or several on one Redis behind a proxy that gives each request to the next."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from asgi_comet import Channel, Comet
from asgi_comet.brokers.redis import RedisBroker
from asgi_comet.testing._inspect import feed_of, inside
from tests.kit.loop import wait_in_loop
from tests.kit.redis import RedisServer
from tests.kit.rotating import rotate
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY
from tests.kit.streams import PATIENCE


def one_worker(why: str) -> pytest.MarkDecorator:
    """Mark a test that is for one worker only, with the reason."""
    return pytest.mark.one_worker(why)


def own_workers(what: str) -> pytest.MarkDecorator:
    """Mark the tests of a module that start their workers by themselves, with what they start."""
    return pytest.mark.own_workers(what)


Identify = Callable[[HTTPConnection], Any]
"""Says who a client is: the user."""

Build = Callable[[Comet], ASGIApp]
"""Makes the application of one worker."""


class Workers:
    """How the `Comet`s of a test are served.

    Args:
        count: How many workers serve each of them.
        redis: The Redis that joins them; `None` for one worker without a broker.
    """

    def __init__(self, count: int, redis: RedisServer | None) -> None:
        self.count = count
        self._redis = redis
        self._prefixes = (f"test{number}" for number in itertools.count())
        self._others: WeakKeyDictionary[Comet, list[Comet]] = WeakKeyDictionary()

    def make(self, **arguments: Any) -> Comet:
        """Make the `Comet` of the first worker, and those of the others."""
        prefix = next(self._prefixes)
        comet, *others = [self._make(prefix, arguments) for _ in range(self.count)]
        self._others[comet] = others
        return comet

    def of(self, comet: Comet) -> list[Comet]:
        """Return the `Comet`s of all workers, to declare on each the same."""
        return [comet, *self._others[comet]]

    def identify(self, comet: Comet, function: Identify) -> None:
        """Have each worker ask the application who a client is."""
        for one in self.of(comet):
            one.identify(function)

    def store(self, comet: Comet, channel: Channel[Any], *values: Any) -> list[str]:
        """Publish values, and return their positions once all workers may read them."""
        positions: list[str] = []

        async def publish() -> None:
            deliveries = [channel.publish(value) for value in values]
            positions.extend([str(await delivery.stored()) for delivery in deliveries])

        wait_in_loop(comet, publish)
        return positions

    def close(self, comet: Comet, channel: Channel[Any]) -> None:
        """Close a channel of the first worker, and return once all workers know."""
        channel.close()
        sharing = inside(comet).channels.sharing
        wait_in_loop(comet, lambda: sharing.end(feed_of(channel), "ended"))

    def wait_until_sent(self, name: str, offset: int) -> None:
        """Return once all workers know that a message of an own channel was sent."""
        if self._redis is None:
            return
        with self._redis.client() as client:
            (record,) = client.scan_iter(f"*{name}*", _type="HASH")
            deadline = time.monotonic() + PATIENCE
            while int(client.hget(record, "k") or 0) < offset:
                assert time.monotonic() < deadline

    def expire(self, name: str) -> None:
        """Drop what a channel that has ended leaves in Redis for ten minutes."""
        if self._redis is not None:
            with self._redis.client() as client:
                client.delete(*client.scan_iter(f"*{name}*"))

    @contextmanager
    def serve(self, build: Build, comet: Comet, *, rotating: bool = True) -> Iterator[Address]:
        """Serve an application by all workers; return the address of their proxy.

        Args:
            build: Makes the application of a worker.
            comet: That of the first worker.
            rotating: Whether requests go to one worker after the other, rather than to the first.
        """
        with ExitStack() as stack:
            addresses = [stack.enter_context(serve(build(one))) for one in self.of(comet)]
            for one in self.of(comet):
                if isinstance(one, Patient):
                    one.served = True
            alone = self.count == 1 or not rotating
            yield addresses[0] if alone else stack.enter_context(rotate(addresses))

    def _make(self, prefix: str, arguments: dict[str, Any]) -> Comet:
        if self._redis is None:
            return Comet(KEY, **arguments)
        return Patient(KEY, broker=RedisBroker(self._redis.url, prefix=prefix), **arguments)


class Patient(Comet):
    """A `Comet` with which a test makes channels that all workers know at once.

    Attributes:
        served: Whether a server runs, or is about to.
    """

    served = False

    def create(self, *args: Any, **options: Any) -> Any:
        return self._ready(super().create(*args, **options))

    def create_newest(self, *args: Any, **options: Any) -> Any:
        return self._ready(super().create_newest(*args, **options))

    def create_unlimited(self, *args: Any, **options: Any) -> Any:
        return self._ready(super().create_unlimited(*args, **options))

    def _ready(self, channel: Channel[Any]) -> Channel[Any]:
        by_test = threading.current_thread() is threading.main_thread()
        if by_test and self.served:
            wait_in_loop(self, channel.ready)
        return channel
