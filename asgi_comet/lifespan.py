"""The running time of a `Comet`: its tasks, its loop, and the drain at the end.

Owns the one task group in which everything runs that is not a request. A task that crashes is
logged and started again; when the lifespan ends none is left. Also when the sources of declared
channels are read: while the application runs, not while it starts or stops.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from asgi_comet._runtime.signals import chained_signals
from asgi_comet.channels.source import CLOSE_LIMIT
from asgi_comet.node.build import Hub

__all__ = ["Lifespan"]

_logger = logging.getLogger(__name__)

PATIENCE = CLOSE_LIMIT + 2.0  # seconds that all sources and callbacks together may take to end
HEAD_START = 2.0  # seconds that callbacks have before the channels end, besides these
BACKOFF = 1.0  # seconds before a crashed task is started again


class Lifespan:
    """Starts and stops what runs beside the requests.

    Args:
        hub: The rooms whose tasks run.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._depth = 0
        self._users = 0  # how many of these want the sources of declared channels read
        self._begun = False
        self._patience = PATIENCE  # what is left of it

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run while the context lasts, and read the sources of declared channels.

        Entered again inside (mounted twice), it counts. When the context ends, held requests are
        answered as at their timeout.
        """
        async with self.around():
            self.begin()
            self._users += 1
            try:
                yield
            finally:
                self._users -= 1
                if not self._users and self._depth > 1:  # else it ends anyway
                    await self.finish()

    @asynccontextmanager
    async def around(self) -> AsyncIterator[Lifespan]:
        """Run while the context lasts, around an application that has a lifespan of its own.

        The sources of declared channels are read from `begin` to `finish`.
        """
        self._depth += 1
        try:
            if self._depth > 1:
                self._hub.loop.check_here()
                yield self
            else:
                async with self._tasks():
                    yield self
        finally:
            self._depth -= 1

    def begin(self) -> None:
        """The application has started: read the sources of declared channels. Idempotent.

        Raises:
            TooManyVirtualChannels: There are more than `Settings.max_virtual_channels`.
        """
        if self._begun:
            return
        if self._hub.channels.stopping:  # it was finished before
            self._open()
        self._hub.declarations.begin()
        self._begun = True

    async def finish(self) -> None:
        """The application is to stop: let nobody wait, and close all client processes and sources.

        The callbacks of the processes run first, so they can publish to the channels of the site.
        Returns once that is done, but for what takes longer than `HEAD_START` and `PATIENCE`.
        """
        hub = self._hub
        self._begun = False
        hub.drain.begin()
        await hub.fanout.flush()
        hub.processes.close_all()
        with anyio.move_on_after(min(HEAD_START, self._patience)):
            await hub.processes.wait_goodbyes()
        hub.declarations.stop()
        hub.channels.stop()
        before = anyio.current_time()
        with anyio.move_on_after(self._patience):
            await hub.background.wait_idle()
            await hub.broker.hand_over()
        self._patience -= min(anyio.current_time() - before, self._patience)

    def _drain(self) -> None:
        self._hub.siblings.leave()  # a server that replaces this worker may start the next one
        self._hub.drain.begin()

    def _open(self) -> None:
        self._patience = PATIENCE
        self._hub.drain.reset()
        self._hub.channels.begin()
        self._hub.processes.start()

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[None]:
        hub = self._hub
        failure: BaseException | None = None
        hub.loop.enter()
        try:
            await hub.siblings.enter()
            self._open()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._supervise, hub.fanout.run)
                tasks.start_soon(self._supervise, hub.timers.run)
                tasks.start_soon(self._supervise, hub.background.run)
                if hub.broker.shared:
                    tasks.start_soon(self._supervise, hub.broker.run)
                with chained_signals(lambda: hub.loop.run_soon(self._drain)):
                    try:
                        yield
                    except BaseException as error:  # raised again, outside of the group
                        failure = error
                await self.finish()
                tasks.cancel_scope.cancel()
        finally:
            hub.siblings.leave()
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
