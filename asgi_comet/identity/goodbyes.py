"""The callbacks of client processes that have closed.

Owns that each runs once, for a bounded time, and by which name the log knows it; and the wait for
all of them. Must not know sessions, channels or transports.
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

__all__ = ["Goodbyes"]

_logger = logging.getLogger(__name__)

CALLBACK_LIMIT = 10.0  # seconds that a callback of `on_close` may take

Callback = Callable[[], object]


class Goodbyes:
    """Runs callbacks while the lifespan does. Thread-safe but for `wait_idle`.

    Args:
        background: Where they run.
    """

    def __init__(self, background: Background) -> None:
        self._background = background
        self._left: set[object] = set()
        self._idle = anyio.Event()

    def start(self, callback: Callback) -> None:
        """Have a callback run: soon, or as soon as the lifespan runs.

        Args:
            callback: Called once, sync or async; what it raises is logged. If a sync one returns a
                coroutine, that is awaited, and nothing else is.
        """
        token = object()
        self._left.add(token)
        self._background.start(partial(self._run, callback, token))

    async def wait_idle(self) -> None:
        """Return once no callback runs or waits to. In the lifespan's event loop."""
        while self._left:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def _run(self, callback: Callback, token: object) -> None:
        try:
            with anyio.move_on_after(CALLBACK_LIMIT) as limit:
                found = callback()
                if inspect.iscoroutine(found):  # not a `Delivery`: nobody asked for its outcome
                    await found
        except (Exception, asyncio.CancelledError) as error:
            pass_cancellation(error)
            _logger.exception("an on_close callback failed: %s", name_of(callback))
        else:
            if limit.cancelled_caught:
                _logger.warning(
                    "an on_close callback took more than %g s and was cut off: %s",
                    CALLBACK_LIMIT,
                    name_of(callback),
                )
        finally:
            self._left.discard(token)
            self._idle.set()
