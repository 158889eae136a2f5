"""The interface of what publishes for a process that does not serve, see `Comet.publishing`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from asgi_comet.brokers.logs import Stored
from asgi_comet.channels.feed import Feed

__all__ = ["Publisher"]

T = TypeVar("T")


class Publisher(ABC):
    """Stores messages without a lifespan. Thread-safe."""

    @abstractmethod
    def open(self, feed: Feed) -> None:
        """Announce a channel to the workers; once for each connection."""

    @abstractmethod
    def append(
        self,
        feed: Feed,
        data: bytes,
        *,
        id: str | None = None,  # noqa: A002 - as the parameter of `publish`
    ) -> Stored:
        """Append a message to a channel, which is announced first; see `Broker.append`."""

    @abstractmethod
    def start(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run a job soon, and before the publisher ends; see `Background.start`."""

    @abstractmethod
    def watch(self, stored: Callable[[], Awaitable[object]]) -> None:
        """Count something as not stored unless a wait for it returns before the publisher ends."""

    @abstractmethod
    async def carry(self, wait: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the loop of the publisher, and return its result."""
