"""The callbacks of client processes that have closed.

Owns when a callback runs: once, for a bounded time; the name of a callback in the log; and the wait
for all callbacks. Must not know sessions, channels or transports.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from functools import partial

import anyio

from asgi_comet._runtime.functions import name_of
from asgi_comet._runtime.tasks import Background
from asgi_comet._runtime.waiting import pass_cancellation
from asgi_comet.log_events import event

__all__ = ["Goodbyes"]

_logger = logging.getLogger(__name__)

CALLBACK_LIMIT = 10.0  # seconds that a callback of `on_close` may take

Callback = Callable[[], object]


class Goodbyes:
    """Runs callbacks while the lifespan runs. Thread-safe except for `wait_idle`.

    Args:
        background: Runs the callbacks.
    """

    def __init__(self, background: Background) -> None:
        self._background = background
        self._left: set[object] = set()
        self._idle = anyio.Event()

    def start(self, callback: Callback) -> None:
        """Run a callback soon, or as soon as the lifespan runs.

        Args:
            callback: Called once, sync or async; its exceptions are logged. If a sync callback
                returns a coroutine, the coroutine is awaited; other results are ignored.
        """
        token = object()
        self._left.add(token)
        self._background.start(partial(self._run, callback, token))

    async def wait_idle(self) -> None:
        """Return once no callback runs or waits. In the lifespan's event loop."""
        while self._left:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def _run(self, callback: Callback, token: object) -> None:
        try:
            with anyio.move_on_after(CALLBACK_LIMIT) as limit:
                found = callback()
                if inspect.iscoroutine(found):  # not a `Delivery`: its outcome is not awaited
                    await found
        except (Exception, asyncio.CancelledError) as error:
            pass_cancellation(error)
            _logger.exception(
                "an on_close callback failed: %s",
                name_of(callback),
                extra=event("function.failed", function=name_of(callback)),
            )
        else:
            if limit.cancelled_caught:
                _logger.warning(
                    "an on_close callback took more than %g s and was cut off: %s",
                    CALLBACK_LIMIT,
                    name_of(callback),
                    extra=event(
                        "function.cut_off", function=name_of(callback), seconds=CALLBACK_LIMIT
                    ),
                )
        finally:
            self._left.discard(token)
            self._idle.set()
