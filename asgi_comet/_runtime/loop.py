"""The loop's thread, and how to enter it from any other.

Owns the only knowledge of asyncio and trio apart from anyio in this package's core.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from asgi_comet.errors import NotRunning

__all__ = ["LoopThread"]

_logger = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds that another thread waits for the loop


class LoopThread:
    """Runs functions in the thread of the lifespan's event loop. Thread-safe."""

    __slots__ = ("_call_soon", "_ident", "asyncio")

    def __init__(self) -> None:
        self._ident: int | None = None
        self._call_soon: Callable[[Callable[[], None]], object] | None = None
        self.asyncio: bool = False

    @property
    def running(self) -> bool:
        """Whether there is a loop to run in."""
        return self._ident is not None

    def enter(self) -> None:
        """Take the current thread and its running loop."""
        try:
            self._call_soon = asyncio.get_running_loop().call_soon_threadsafe
            self.asyncio = True
        except RuntimeError:
            self.asyncio = False
            import trio  # noqa: PLC0415 - only where trio runs, so it is there

            self._call_soon = trio.lowlevel.current_trio_token().run_sync_soon
        self._ident = threading.get_ident()

    def leave(self) -> None:
        """Forget the loop; what is asked from now on is not run."""
        self._ident = None
        self._call_soon = None

    def run(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's thread: at once if this is it, else in its next turn.

        Without a running loop nothing is run, for nobody listens then.
        """
        if self._ident == threading.get_ident():
            function()
        else:
            self.run_soon(function)

    def run_now(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's thread, and return when that is done.

        For what must have happened before the caller goes on. A loop that is blocked is waited for
        `PATIENCE` seconds at most; the function runs then when the loop comes to it.
        """
        if self._ident == threading.get_ident():
            function()
            return
        done = threading.Event()

        def run() -> None:
            try:
                function()
            finally:
                done.set()

        self.run_soon(run)
        if self.running and not done.wait(PATIENCE):
            _logger.warning("the event loop has been blocked for %g s", PATIENCE)

    def run_soon(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's next turn. Also for signal handlers and finalizers."""
        call_soon = self._call_soon
        if call_soon is not None:
            try:
                call_soon(function)
            except RuntimeError:  # the loop ended under us without its lifespan having ended
                self.leave()

    def check_here(self) -> None:
        """Raise unless the current thread is that of the loop.

        Raises:
            RuntimeError: It is another one: a `Comet` serves one event loop at a time.
        """
        if self._ident != threading.get_ident():
            raise RuntimeError(
                "expected the event loop that this Comet's lifespan runs in, got another one: "
                "one event loop per Comet at a time"
            )

    def check(self) -> None:
        """Raise unless the loop runs.

        Raises:
            NotRunning: It does not.
        """
        if self._ident is None:
            raise NotRunning
