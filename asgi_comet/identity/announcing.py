"""Changes of sessions and client processes that are being told to the other workers.

Owns the order: the changes of a session are told one after the other, each in the background. Must
not know what a change is.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

import anyio

from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.tasks import Background
from asgi_comet.brokers.people import Moved
from asgi_comet.errors import BrokerUnavailable, CometError

__all__ = ["Announcement", "Announcer", "Job"]

Job = Callable[[], Awaitable[None]]

_LATE = "the other workers do not know yet"


class Announcement:
    """One change, on its way to the other workers.

    Args:
        patience: How many seconds a request waits.

    Attributes:
        error: Why the change was refused.
    """

    def __init__(self, patience: float) -> None:
        self.error: CometError | None = None
        self._patience = patience
        self._told = anyio.Event()
        self._blocked = threading.Event()

    @property
    def done(self) -> bool:
        """Whether the change was told, or refused."""
        return self._blocked.is_set()

    def finish(self, error: CometError | None = None) -> None:
        """Record that the change was told, or why it was refused. In the loop's thread."""
        self.error = error
        self._blocked.set()
        self._told.set()

    async def ended(self) -> None:
        """Return once the change was told, or refused."""
        await self._told.wait()

    async def wait(self) -> None:
        """Return once the change was told.

        Raises:
            BrokerUnavailable: It takes too long; it goes on. Or the session has changed meanwhile.
            CometError: The change was refused.
        """
        with anyio.move_on_after(self._patience):
            await self._told.wait()
        self._check()

    def block(self) -> None:
        """Do the same in a worker thread."""
        self._blocked.wait(self._patience)
        self._check()

    def _check(self) -> None:
        if not self.done:
            raise BrokerUnavailable(_LATE, maybe_stored=True)
        if isinstance(self.error, Moved):
            raise BrokerUnavailable(str(self.error)) from self.error
        if self.error is not None:
            raise self.error


class Announcer:
    """Tells changes in the background. Thread-safe.

    Args:
        loop: The thread of the event loop.
        background: Runs the jobs.
        patience: How many seconds a request waits for a change.

    Attributes:
        settle: Delays the answer to the current request, if any, until a function has returned.
    """

    settle: Callable[[Callable[[], Awaitable[None]]], None]  # set by `Comet`

    def __init__(self, loop: LoopThread, background: Background, patience: float) -> None:
        self.loop: LoopThread = loop
        self._background = background
        self._patience = patience
        self._last: dict[object, Announcement] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._last)

    def pending(self, line: object) -> Announcement | None:
        """Return the last change of a line that is still on its way."""
        return self._last.get(line)

    def tell(self, line: object, job: Job) -> Announcement:
        """Tell a change, after all earlier changes of the same line.

        Args:
            line: The session.
            job: Tells the change; raises `CometError` if it is refused.
        """
        announcement = Announcement(self._patience)
        with self._lock:
            before = self._last.get(line)
            self._last[line] = announcement

        async def run() -> None:
            error: CometError | None = BrokerUnavailable("the server stops")
            try:
                if before is not None:
                    await before.ended()
                await job()
                error = None
            except CometError as refused:
                error = refused
            finally:
                with self._lock:
                    if self._last.get(line) is announcement:
                        del self._last[line]
                announcement.finish(error)

        self._background.start(run)
        return announcement
