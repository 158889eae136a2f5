"""The changes that workers in one process are told of, each in its own loop, for tests.

Owns the order of the changes, and the wait for all workers. Must not know what a worker does then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import anyio

from asgi_comet.brokers.base import Host
from asgi_comet.brokers.people import PeopleHost

__all__ = ["News", "Register"]


@dataclass(frozen=True, slots=True)
class News:
    """A change that workers are told of.

    Attributes:
        tell: Tells a worker.
        only: The workers that are concerned; `None` means all.
    """

    tell: Callable[[PeopleHost], None]
    only: frozenset[Hashable] | None = None


class Worker(Protocol):
    """A worker that is told of changes.

    Attributes:
        told: Of how many changes it was told.
    """

    told: int

    @property
    def host(self) -> Host:
        """The worker."""

    @property
    def down(self) -> bool:
        """Whether the store cannot be reached."""

    def catch_up(self) -> None:
        """Tell the worker of the changes since the last call."""


class Register:
    """The running workers, and the changes that they are told of, in order. Thread-safe.

    Args:
        lock: The lock of the store.

    Attributes:
        news: All changes.
        workers: The running workers.
        lasting: The events that workers are told when they start, by name.
    """

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self.news: list[News] = []
        self.lasting: dict[str, str] = {}
        self.workers: dict[Worker, None] = {}
        self._lock = lock
        self._waiting: list[tuple[Host, anyio.Event]] = []

    def post(self, news: News) -> int:
        """Tell all workers of a change; return how many changes there are by now."""
        with self._lock:
            self.news.append(news)
            for worker in self.workers:
                worker.host.run_soon(worker.catch_up)
            return len(self.news)

    async def wait(self, host: Host, count: int) -> int:
        """Wait until every worker was told of the first changes, or is down.

        Returns:
            How many workers were told.
        """
        while True:
            event = anyio.Event()
            with self._lock:
                left = [one for one in self.workers if one.told < count and not one.down]
                if not left:
                    return sum(one.told >= count for one in self.workers)
                self._waiting.append((host, event))
            await event.wait()

    def changed(self) -> None:
        """Let those who wait look again."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for host, event in waiting:
            host.run_soon(event.set)
