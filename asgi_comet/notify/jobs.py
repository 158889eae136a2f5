"""One notification on its way, and what waits to be prepared for one client process.

Owns the order in which a client process gets notifications. Must not know how a message is prepared
or published.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from asgi_comet._runtime.waiting import Interrupt
from asgi_comet.brokers.logs import Stored
from asgi_comet.identity.process import Client, ClientProcess
from asgi_comet.notify.preparing import Preparation, Unfinished

__all__ = ["Job", "Outbox"]


class Recorder(Protocol):
    """Records the results of a job, if the application keeps it: a `Notification`."""

    def _record(self, outbox: Any, stored: Stored | None) -> None:
        """Record what was published to a client process; `None`: nothing could be."""

    def _finish(self) -> None:
        """Record that the job was handed out to all client processes."""


@dataclass(slots=True, eq=False)
class Job:
    """One notification on its way to many client processes. Thread-safe.

    Attributes:
        targets: The client processes when the notification was made.
        not_for: A client process or a user to leave out; `None` for no one.
        preparation: Makes the message for each user.
        recorder: Records the result, if the application keeps it.
        parts: One for distributing the job, and one for each client process that has to prepare
            it. Changed only by the task that distributes the job, which finishes its own part last.
    """

    targets: tuple[Any, ...]
    not_for: Any
    preparation: Preparation
    recorder: Callable[[], Recorder | None]
    parts: int = 1
    _done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def skips(self, process: ClientProcess) -> bool:
        """Return whether a client process is left out."""
        if self.not_for is None:
            return False
        if isinstance(self.not_for, ClientProcess):
            return process is self.not_for
        return bool(process.user == self.not_for)

    def record(self, outbox: Outbox, stored: Stored | None) -> None:
        """Record what was published to a client process; `None`: nothing could be."""
        recorder = self.recorder()
        if recorder is not None:
            recorder._record(outbox, stored)

    def finish(self) -> None:
        """Finish one part; the last one finishes the notification."""
        with self._lock:
            self._done += 1
            last = self._done == self.parts
        if last and (recorder := self.recorder()) is not None:
            recorder._finish()


@dataclass(slots=True, eq=False)
class Outbox:
    """The notifications of one notifier that are still to be prepared for one client process.

    Thread-safe.

    Attributes:
        process: The client process.
        pending: The jobs that are still to be prepared, in order; the first one is in preparation.
        begun: The preparation of the first job, if a worker thread could not finish it.
        gone: Whether nothing more can be sent: the process has closed, or the channel has ended.
        interrupt: Cancels the preparation that runs in the loop.
    """

    process: Client
    pending: deque[Job] = field(default_factory=deque, init=False)
    begun: Unfinished | None = field(default=None, init=False)
    gone: bool = field(default=False, init=False)
    interrupt: Interrupt | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def first(self) -> Job | None:
        """The job to prepare; `None` if nothing is pending."""
        with self._lock:
            return self.pending[0] if self.pending else None

    def put(self, job: Job) -> bool:
        """Add a job, unless the outbox is gone; return whether it is the first one."""
        with self._lock:
            if not self.gone:
                job.parts += 1
                self.pending.append(job)
                return len(self.pending) == 1
        job.record(self, None)
        return False

    def advance(self) -> Job | None:
        """Finish the first job, and return the next one; `None` if nothing is pending."""
        self.begun = None
        with self._lock:
            if self.gone:  # `drop` has finished all of them
                return None
            job = self.pending.popleft()
            after = self.pending[0] if self.pending else None
        job.finish()
        return after

    def drop(self) -> None:
        """Mark the outbox as gone, and finish its jobs without publishing."""
        with self._lock:
            self.gone = True
            jobs = list(self.pending)
            self.pending.clear()
        for job in jobs:
            job.record(self, None)
            job.finish()
