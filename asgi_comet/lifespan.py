"""The lifespan of a `Comet`: its tasks, its loop, and the drain at the end.

Owns the one task group of all tasks besides requests. A task that crashes is logged and restarted;
none is left when the lifespan ends. Owns when the sources of declared channels are read: while the
application runs, not while the application starts or stops.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from asgi_comet._runtime.signals import chained_signals
from asgi_comet._runtime.tasks import supervise
from asgi_comet.admin.dashboard.dashboard import Dashboard
from asgi_comet.channels.source import CLOSE_LIMIT
from asgi_comet.log_events import event, owner
from asgi_comet.node.build import Node

__all__ = ["Lifespan"]

_logger = logging.getLogger(__name__)

PATIENCE = CLOSE_LIMIT + 2.0  # seconds in which all sources and callbacks must end
HEAD_START = 2.0  # seconds for callbacks before the channels end, in addition
BROKER_LIMIT = 10.0  # seconds that the start waits for the broker
LAST = 1.0  # seconds for the broker at the end, in addition


class Lifespan:
    """Starts and stops the tasks besides requests.

    Args:
        node: The parts of the Comet.
        dashboard: The dashboard, which ends last; `None` if there is none.
    """

    def __init__(self, node: Node, dashboard: Dashboard | None) -> None:
        self._node = node
        self._dashboard = dashboard
        self._depth = 0
        self._users = 0  # contexts in which the sources of declared channels are read
        self._begun = False
        self._patience = PATIENCE  # seconds left of it

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run while the context lasts, and read the sources of declared channels.

        Nested contexts are counted (mounted twice). When the last one ends, held requests are
        answered as at their timeout.
        """
        async with self.around():
            self.begin()
            self._users += 1
            try:
                yield
            finally:
                self._users -= 1
                if not self._users and self._depth > 1:  # else `around` ends now
                    await self.finish()

    @asynccontextmanager
    async def around(self) -> AsyncIterator[Lifespan]:
        """Run while the context lasts, around an application with its own lifespan.

        The sources of declared channels are read from `begin` to `finish`.
        """
        self._depth += 1
        try:
            if self._depth > 1:
                self._node.loop.check_here()
                yield self
            else:
                async with self._tasks():
                    yield self
        finally:
            self._depth -= 1

    def begin(self) -> None:
        """Read the sources of declared channels, once the application has started. Idempotent.

        Raises:
            TooManyVirtualChannels: There are more than `Settings.max_virtual_channels`.
        """
        if self._begun:
            return
        if self._node.channels.stopping:  # finished before
            self._open()
        self._node.declarations.begin()
        self._begun = True

    async def finish(self) -> None:
        """End all waits, client processes and sources, because the application stops.

        The callbacks of the processes run first, so they can publish to the channels of the site.
        Returns when all have ended, or after `HEAD_START` and `PATIENCE`.
        """
        node = self._node
        self._begun = False
        node.broker.draining = True
        node.drain.begin()
        await node.fanout.flush()
        node.clients.close_all()
        with anyio.move_on_after(min(HEAD_START, self._patience)):
            await node.clients.wait_goodbyes()
        node.declarations.stop()
        node.channels.stop()
        node.broker.leave()
        before = anyio.current_time()
        with anyio.move_on_after(self._patience):
            await node.background.wait_idle()
        self._patience -= min(anyio.current_time() - before, self._patience)

    def _drain(self) -> None:
        self._node.siblings.leave()  # the server may start a replacement of this worker
        self._node.broker.draining = True
        self._node.drain.begin()
        if self._dashboard is not None:
            self._dashboard.hurry()

    def _open(self) -> None:
        self._patience = PATIENCE
        self._node.drain.reset()
        self._node.broker.draining = False
        self._node.channels.begin()
        self._node.clients.start()
        if self._dashboard is not None:
            self._dashboard.begin()

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[None]:
        node = self._node
        failure: BaseException | None = None
        if node.channels.appending.publisher is not None:
            raise RuntimeError("expected publishing() to have ended before the server starts")
        node.loop.enter()
        try:
            await node.siblings.enter()
            if node.broker.shared:
                node.broker.prepare()
            self._open()
            async with anyio.create_task_group() as tasks:
                before = owner.set(node)
                tasks.start_soon(supervise, node.fanout.run, node.clock, node.down)
                tasks.start_soon(supervise, node.timers.run, node.clock, node.down)
                tasks.start_soon(supervise, node.background.run, node.clock, node.down)
                if node.broker.shared:
                    tasks.start_soon(supervise, node.broker.run, node.clock, node.down)
                if self._dashboard is not None:  # whose tasks say nothing of the worker's health
                    tasks.start_soon(supervise, self._dashboard.run, node.clock, set())
                    tasks.start_soon(supervise, self._dashboard.sample, node.clock, set())
                owner.reset(before)  # the application runs within, and may serve several
                with chained_signals(lambda: node.loop.run_soon(self._drain)):
                    try:
                        await self._wait_for_broker()
                        yield
                    except BaseException as error:  # raised again outside the group
                        failure = error
                await self.finish()
                if self._dashboard is not None:
                    await self._dashboard.end()
                with anyio.move_on_after(LAST + self._patience):
                    await node.broker.hand_over()
                tasks.cancel_scope.cancel()
        finally:
            node.siblings.leave()
            node.loop.leave()
        if failure is not None:
            raise failure

    async def _wait_for_broker(self) -> None:
        """Return once the broker carries messages, or is away: a deployment must not wait for it.

        Raises:
            Unsuitable: The broker never will.
        """
        if not self._node.broker.shared:
            return
        with anyio.move_on_after(BROKER_LIMIT) as scope:
            await self._node.broker.ready()
        if scope.cancelled_caught:
            _logger.error(
                "the broker did not answer within %g s: the worker starts without it, and clients "
                "are told to come back for what needs it",
                BROKER_LIMIT,
                extra=event("broker.unavailable", seconds=BROKER_LIMIT),
            )
