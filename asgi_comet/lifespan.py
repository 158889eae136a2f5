"""The running time of a `Comet`: its tasks, its loop, and the drain at the end.

Owns the one task group in which everything runs that is not a request. A task that crashes is
logged and started again; when the lifespan ends none is left.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from .hub import Hub
from .signals import chained_signals
from .sources import CLOSE_LIMIT

__all__ = ["Lifespan"]

_logger = logging.getLogger(__name__)

PATIENCE = CLOSE_LIMIT + 2.0  # seconds that all sources and callbacks together may take to end
BACKOFF = 1.0  # seconds before a crashed task is started again


class Lifespan:
    """Starts and stops what runs beside the requests.

    Args:
        hub: The rooms whose tasks run.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._depth = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run while the context lasts. Entered again inside (mounted twice), it counts.

        When the context ends, held requests are answered as at their timeout.
        """
        self._depth += 1
        try:
            if self._depth > 1:
                self._hub.loop.check_here()
                yield
            else:
                async with self._tasks():
                    yield
        finally:
            self._depth -= 1

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[None]:
        hub = self._hub
        failure: BaseException | None = None
        hub.loop.enter()
        hub.drain.reset()
        hub.channels.begin()
        hub.processes.start()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._supervise, hub.fanout.run)
                tasks.start_soon(self._supervise, hub.timers.run)
                tasks.start_soon(self._supervise, hub.background.run)
                with chained_signals(lambda: hub.loop.run_soon(hub.drain.begin)):
                    try:
                        yield
                    except BaseException as error:  # raised again, outside of the group
                        failure = error
                hub.drain.begin()
                await hub.fanout.flush()
                hub.processes.close_all()
                hub.channels.stop()
                with anyio.move_on_after(PATIENCE):
                    await hub.background.wait_idle()
                tasks.cancel_scope.cancel()
        finally:
            hub.loop.leave()
        if failure is not None:
            raise failure

    async def _supervise(self, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
                _logger.error("a task ended and is started again: %s", run)
            except Exception:
                _logger.exception("a task crashed and is started again: %s", run)
            await self._hub.clock.sleep_until(self._hub.clock.now() + BACKOFF)
