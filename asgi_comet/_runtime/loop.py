"""The thread of the event loop, and calls into it from other threads.

Owns the difference between asyncio and trio where anyio does not suffice.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from asgi_comet.errors import NotRunning
from asgi_comet.log_events import event

__all__ = ["LoopThread"]

_logger = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds that another thread waits for the loop


class LoopThread:
    """Runs functions in the thread of the lifespan's event loop. Thread-safe."""

    __slots__ = ("_call_soon", "_ident", "_serves", "asyncio")

    def __init__(self) -> None:
        self._ident: int | None = None
        self._call_soon: Callable[[Callable[[], None]], object] | None = None
        self._serves = True
        self.asyncio: bool = False

    @property
    def running(self) -> bool:
        """Whether there is a loop to run in."""
        return self._ident is not None

    @property
    def here(self) -> bool:
        """Whether the current thread is the loop's."""
        return self._ident == threading.get_ident()

    def enter(self, *, serves: bool = True) -> None:
        """Attach to the running loop of the current thread.

        Args:
            serves: Whether this is the loop of a lifespan, and not that of `Comet.publishing`.
        """
        self._serves = serves
        try:
            self._call_soon = asyncio.get_running_loop().call_soon_threadsafe
            self.asyncio = True
        except RuntimeError:
            self.asyncio = False
            import trio  # noqa: PLC0415 - only where trio runs, so it is there

            self._call_soon = trio.lowlevel.current_trio_token().run_sync_soon
        self._ident = threading.get_ident()

    def leave(self) -> None:
        """Detach from the loop. Later calls are dropped."""
        self._ident = None
        self._call_soon = None

    def run(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's thread: at once if called there, else in the next turn.

        Without a running loop the call is dropped, since there are no listeners.
        """
        if self.here:
            function()
        else:
            self.run_soon(function)

    def run_now(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's thread, and return when it is done.

        If the loop is blocked, return after `PATIENCE` seconds; the function still runs later.
        """
        if self.here:
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
            _logger.warning(
                "the event loop has been blocked for %g s",
                PATIENCE,
                extra=event("loop.blocked", seconds=PATIENCE),
            )

    def run_soon(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's next turn. Also for signal handlers and finalizers."""
        call_soon = self._call_soon
        if call_soon is not None:
            try:
                call_soon(function)
            except RuntimeError:  # the loop was closed before its lifespan ended
                self.leave()

    def check_here(self) -> None:
        """Check that the current thread is the loop's thread.

        Raises:
            RuntimeError: It is another thread: a `Comet` serves one event loop at a time.
        """
        if not self.here:
            raise RuntimeError(
                "expected the event loop that this Comet's lifespan runs in, got another one: "
                "one event loop per Comet at a time"
            )

    def check(self, *, serves: bool = True) -> None:
        """Check that the loop of a lifespan runs. Jobs of `Comet.publishing` may go on.

        Args:
            serves: Whether the loop of `Comet.publishing` does not do.

        Raises:
            NotRunning: There is none, or the process only publishes.
        """
        if self._ident is None:
            raise NotRunning
        if serves and not (self._serves or self.here):
            raise NotRunning(publishes=True)
