"""The warning that workers declare different names for too long.

Owns how long a deployment may take, and the rate of the lines. Must not know how workers compare
their names.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from asgi_comet.brokers.redis.address import Address
from asgi_comet.log_events import event

__all__ = ["Mixture"]

_logger = logging.getLogger(__name__)

DEPLOYMENT = 600.0  # seconds that a deployment may take
PAUSE = 3600.0  # seconds between two lines


class Mixture:
    """Warns that an old version, or another application, uses the same keys.

    Args:
        address: The address of Redis.
        prefix: The beginning of all keys.
        now: Returns the time in seconds.
    """

    def __init__(self, address: Address, prefix: str, now: Callable[[], float]) -> None:
        self._address = address
        self._prefix = prefix
        self._now = now
        self._due = math.inf  # the time of the line, while names differ
        self._next = -math.inf  # the time of the next line, at the earliest

    def look(self, *, mixed: bool) -> None:
        """Take the result of a heartbeat: whether the workers declare different names."""
        now = self._now()
        if not mixed:
            self._due = math.inf
            return
        self._due = min(self._due, max(now + DEPLOYMENT, self._next))
        if now < self._due:
            return
        self._due = self._next = now + PAUSE
        _logger.warning(
            "workers on %s with the prefix %r have declared different names for %g minutes: either "
            "an old version of the application still runs, or another application uses the same "
            "prefix; stop the old version, or give each application a prefix of its own, as in "
            "RedisBroker(url, prefix='shop')",
            self._address,
            self._prefix,
            DEPLOYMENT / 60,
            extra=event("worker.differs"),
        )
