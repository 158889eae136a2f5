"""Siblings: other workers of the same application, each with its own memory.

Owns the reaction to siblings. A worker that is certain of a sibling does not start: under a
supervisor of one of the servers in `launch`, or according to WEB_CONCURRENCY, another worker of the
same parent process keeps the lock file. A worker that only suspects a sibling reports so in the log
and in `PREFIX/admin/status`. A supervisor that replaces a worker may run two for a moment, so the
worker retries the lock for `PATIENCE` seconds, unless the server was told a number of workers.

The other trace of a sibling is an unknown client process that another worker signed after this one
started: the token contains the worker and the time. This works across machines.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from typing import Literal

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.timers import Timeout
from asgi_comet.errors import WORKERS_ADVICE, SeveralWorkers
from asgi_comet.log_events import event
from asgi_comet.workers.launch import Launch
from asgi_comet.workers.lockfile import LockFile

__all__ = ["Policy", "Siblings"]

_logger = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds that two workers may overlap; 3.5 s with granian
EVERY = 1.0  # seconds between two attempts to take the lock
AGAIN = 60.0  # the same, after the sibling was logged
TAG = 8  # characters that identify a worker

Policy = Literal["refuse", "warn"]


class Siblings:
    """Detects other workers while the lifespan runs. Used in the loop's thread.

    Args:
        name: A secret name that all workers of one application share.
        policy: The reaction to a certain sibling: refuse to start, or log a warning. `None` turns
            detection off: a broker joins the workers.
        runtime: The clock and the timers.
        now: The time of day, in seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        policy: Policy | None,
        runtime: Runtime,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._policy = policy
        self._clock = runtime.clock
        self._timers = runtime.timers
        self._now = now
        self._lock: LockFile | None = None
        self._patient_until = 0.0
        self._told = False  # whether the sibling was logged
        self._stranger = False  # whether a client process of another worker was seen
        self._timer = Timeout(self._look)
        self._begin()

    @property
    def found(self) -> bool:
        """Whether another worker is known to serve now, or a client of another worker was seen."""
        lock = self._lock
        beside = lock is not None and (lock.held or self._told) and bool(lock.others())
        return self._stranger or beside

    async def enter(self, launch: Launch | None = None) -> None:
        """Start to serve.

        Args:
            launch: The facts about the server; by default read from the call stack.

        Raises:
            SeveralWorkers: Another worker serves for certain, and the policy is to refuse.
        """
        launch = Launch.read() if launch is None else launch
        if self._policy is None or not launch.serves:
            pass
        elif LockFile.is_supported():
            await self._enter(launch)
        else:
            _logger.warning(
                "several workers are not looked for: this system has no fcntl",
                extra=event("setup.advised"),
            )
        self._begin()

    def leave(self) -> None:
        """Stop to serve: a worker that starts now is not a sibling. Idempotent."""
        self._timers.stop(self._timer)
        if self._lock is not None:
            lock, self._lock = self._lock, None
            lock.release()

    def birth(self) -> str:
        """Return the worker and the time, for the token of a client process opened now."""
        return f"{self._tag}{int(self._now() * 1000):x}"

    def recognise(self, birth: str) -> None:
        """Record an unknown client process, by the `birth` in its token."""
        if self._policy is None or self._stranger or not birth or birth.startswith(self._tag):
            return
        if int(birth[TAG:], 16) / 1000 > self._began:
            self._stranger = True
            _logger.error(
                "a client came with a client process that another worker opened after this one "
                "began: %s",
                WORKERS_ADVICE,
                extra=event("worker.found"),
            )

    def _begin(self) -> None:
        self._tag = secrets.token_urlsafe(TAG * 3 // 4)
        self._began = self._now()
        self._stranger = False

    async def _enter(self, launch: Launch) -> None:
        name = f"asgi-comet-{os.geteuid()}-{self._name}-{os.getppid()}"
        try:
            folder = tempfile.gettempdir()
        except OSError as error:  # a container whose file system is read-only
            _logger.warning(
                "several workers are not looked for: %s",
                error,
                extra=event("setup.advised", reason=str(error)),
            )
            return
        self._lock = lock = LockFile(os.path.join(folder, name))
        self._told = False
        self._patient_until = self._clock.now() + PATIENCE
        if self._take(lock):
            return
        if self._policy == "refuse" and (launch.supervised or launch.told):
            if await self._outlast(lock, launch):
                return
            others = lock.others()
            if others:
                launch.stop_supervisor()
                raise SeveralWorkers(others[0])
        self._timers.start(self._timer, EVERY)

    async def _outlast(self, lock: LockFile, launch: Launch) -> bool:
        """Wait for another worker to leave; return whether this worker then holds the lock."""
        while self._clock.now() < self._patient_until:
            if launch.told and lock.others():
                return False
            await self._clock.sleep_until(self._clock.now() + EVERY)
            if self._take(lock):
                return True
        return False

    def _look(self) -> None:
        if self._lock is None or self._take(self._lock):
            return
        others = self._lock.others()
        patient = self._clock.now() < self._patient_until
        if others and not patient:
            if not self._told:
                level = logging.WARNING if self._policy == "warn" else logging.ERROR
                _logger.log(
                    level,
                    "%s",
                    SeveralWorkers(others[0]),
                    extra=event("worker.found", worker=str(others[0])),
                )
                self._told = True
            self._lock.join()
        self._timers.start(self._timer, EVERY if patient else AGAIN)

    def _take(self, lock: LockFile) -> bool:
        """Return whether this worker holds the lock, or locks do not work."""
        try:
            return lock.take()
        except OSError as error:
            _logger.warning(
                "several workers are not looked for: %s",
                error,
                extra=event("setup.advised", reason=str(error)),
            )
            return True
