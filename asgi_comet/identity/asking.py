"""Asking the other workers from code that does not await.

Owns that a worker thread waits, for a bounded time, and that an event loop never does. Must not
know the questions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.core.view import Everywhere
from asgi_comet.errors import BrokerUnavailable, MustAwait
from asgi_comet.settings import Prefetch

__all__ = ["Asking", "Question"]

T = TypeVar("T")

PATIENCE = 5.0  # seconds that a worker thread waits


class Asking:
    """Asks from worker threads. Thread-safe.

    Args:
        runtime: Runs the questions.
        prefetch: See `Settings.prefetch`.
        serves: Whether only a process that serves may ask, and not one that publishes.
    """

    def __init__(self, runtime: Runtime, prefetch: Prefetch, *, serves: bool = True) -> None:
        self._runtime = runtime
        self._serves = serves
        self.prefetch: Prefetch = prefetch

    @property
    def may_block(self) -> bool:
        """Whether this is a worker thread."""
        return not (self._runtime.loop.here or _in_loop())

    def check_thread(self, called: str, instead: str) -> None:
        """Raise in the thread of an event loop.

        Args:
            called: The call of the application.
            instead: The line to write instead.

        Raises:
            MustAwait: An event loop runs in this thread.
            NotRunning: The lifespan does not run.
        """
        self._runtime.loop.check(serves=self._serves)
        if not self.may_block:
            raise MustAwait(called, instead)

    def block(self, called: str, instead: str, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what a coroutine function returns in the event loop of the lifespan.

        Args:
            called: The call of the application.
            instead: The line to write instead.
            ask: The coroutine function.

        Raises:
            BrokerUnavailable: It takes too long.
            MustAwait: An event loop runs in this thread.
            NotRunning: The lifespan does not run.
        """
        self.check_thread(called, instead)
        found = Future[T]()
        self._runtime.background.start(partial(_run, ask, found))
        try:
            return found.result(PATIENCE)
        except TimeoutError:
            raise BrokerUnavailable("the other workers were asked in vain") from None


class Question(Everywhere[T]):
    """The question to all workers behind a view.

    Args:
        asking: Asks from worker threads.
        called: The call of the application.
        everywhere: Asks all workers.
    """

    def __init__(
        self, asking: Asking, called: str, everywhere: Callable[[], Awaitable[list[T]]]
    ) -> None:
        self._asking = asking
        self._called = called
        self._everywhere = everywhere

    async def ask(self) -> list[T]:
        """Return the values in all workers."""
        return await self._everywhere()

    def block(self) -> list[T]:
        """Return the values in all workers, from a worker thread."""
        return self._asking.block(self._called, f"await {self._called}", self._everywhere)


async def _run(ask: Callable[[], Awaitable[T]], found: Future[T]) -> None:
    try:
        found.set_result(await ask())
    except Exception as error:
        found.set_exception(error)


def _in_loop() -> bool:
    """Return whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
