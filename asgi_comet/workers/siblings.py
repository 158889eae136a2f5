"""Whether other workers serve the same application, each with a memory of its own.

Owns what is done about it. A worker whose siblings are certain does not start: under a supervisor
of one of the servers in `launch`, or where WEB_CONCURRENCY says so, another worker of the same
parent process has kept the lock file. A worker that only has reason to believe so says it in the
log and in `PREFIX/admin/status`. A supervisor that replaces a worker may run two of them for a
moment, so the lock is tried again for `PATIENCE` seconds, unless the server was told a number.

The other trace of a sibling is a client process that a worker signed after this one began, and that
this one does not know: its token says which worker opened it, and when. That works across machines.
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
from asgi_comet._runtime.timers import Timer
from asgi_comet.errors import SeveralWorkers
from asgi_comet.workers.launch import Launch
from asgi_comet.workers.lockfile import LockFile

__all__ = ["Policy", "Siblings"]

_logger = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds that two workers may overlap; granian lets them for 3.5
EVERY = 1.0  # seconds until the lock is tried again
AGAIN = 60.0  # seconds until it is tried again once the log has it
TAG = 8  # characters that tell workers apart

Policy = Literal["refuse", "warn"]


class Siblings:
    """Looks for other workers while the lifespan runs. Used in the loop's thread.

    Args:
        name: What workers of one application have in common and others cannot guess.
        policy: What a worker does that is certain of a sibling: refuse to start, or log a warning.
            `None` looks for none: there is a broker between them.
        runtime: What time it is, and what expires.
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
        self._told = False  # whether the log has it
        self._stranger = False  # whether a client process of another worker has come
        self._timer = _Retry(self._look)
        self._begin()

    @property
    def found(self) -> bool:
        """Whether another worker is known to serve right now, or one's client has come."""
        lock = self._lock
        beside = lock is not None and (lock.held or self._told) and bool(lock.others())
        return self._stranger or beside

    async def enter(self, launch: Launch | None = None) -> None:
        """Begin to serve.

        Args:
            launch: How the server began this; by default that is read from the call stack.

        Raises:
            SeveralWorkers: Another worker serves for certain, and the policy is to refuse.
        """
        launch = Launch.read() if launch is None else launch
        if self._policy is None or not launch.serves:
            pass
        elif LockFile.is_supported():
            await self._enter(launch)
        else:
            _logger.warning("several workers are not looked for: this system has no fcntl")
        self._begin()

    def leave(self) -> None:
        """Serve no more: a worker that comes now is not a sibling. Idempotent."""
        self._timers.stop(self._timer)
        if self._lock is not None:
            lock, self._lock = self._lock, None
            lock.release()

    def birth(self) -> str:
        """Return what the token of a client process that is opened now says of it."""
        return f"{self._tag}{int(self._now() * 1000):x}"

    def recognise(self, birth: str) -> None:
        """Take note of a client process that is not known here, of which a token says this."""
        if self._policy is None or self._stranger or not birth or birth.startswith(self._tag):
            return
        if int(birth[TAG:], 16) / 1000 > self._began:
            self._stranger = True
            _logger.error(
                "a client came with a client process that another worker opened after this one "
                "began: %s",
                SeveralWorkers.ADVICE,
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
            _logger.warning("several workers are not looked for: %s", error)
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
        """Wait for another worker to leave; return whether this one holds the lock then."""
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
                _logger.log(level, "%s", SeveralWorkers(others[0]))
                self._told = True
            self._lock.join()
        self._timers.start(self._timer, EVERY if patient else AGAIN)

    def _take(self, lock: LockFile) -> bool:
        """Tell whether this worker holds the lock, or there is no use in trying."""
        try:
            return lock.take()
        except OSError as error:
            _logger.warning("several workers are not looked for: %s", error)
            return True


class _Retry(Timer):
    """Has the lock tried again."""

    __slots__ = ("_look",)

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self._look = look

    def expire(self) -> None:
        """Try it."""
        self._look()
