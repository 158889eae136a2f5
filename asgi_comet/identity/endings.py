"""The functions that run once for each client process that closes, in whichever worker.

Owns how long they take. Must not know which worker is to run them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio

from asgi_comet._runtime.functions import call, name_of
from asgi_comet.log_events import event

__all__ = ["Endings"]

_logger = logging.getLogger(__name__)

LIMIT = 10.0  # seconds that a function may take

Ending = Callable[[str], Any]


class Endings:
    """The functions that the application has declared."""

    def __init__(self) -> None:
        self._functions: list[Ending] = []

    def __len__(self) -> int:
        return len(self._functions)

    def add(self, function: Ending) -> None:
        """Run a function for each client process that closes from now on."""
        self._functions.append(function)

    async def run(self, process: str, done: Callable[[], None] | None = None) -> None:
        """Run all functions for a closed client process.

        Args:
            process: The id of the process.
            done: Called at the end, unless the server stops meanwhile.
        """
        for function in self._functions:
            await self._run(function, process)
        if done is not None:
            done()

    async def _run(self, function: Ending, process: str) -> None:
        try:
            with anyio.fail_after(LIMIT):
                await call(function, process)
        except TimeoutError:
            _logger.warning(
                "a function of on_process_close took more than %g s and was cut off: %s",
                LIMIT,
                name_of(function),
                extra=event("function.cut_off", function=name_of(function), seconds=LIMIT),
            )
        except Exception:
            _logger.exception(
                "a function of on_process_close failed: %s",
                name_of(function),
                extra=event("function.failed", function=name_of(function)),
            )
