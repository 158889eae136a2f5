"""Changes that every worker makes: a right is revoked, push is switched off.

Owns the events by which workers tell each other of such changes. This worker makes a change at
once, and again, to no effect, when its own event comes back. Must not know the changes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator
from typing import Any

from asgi_comet.brokers.base import Broker
from asgi_comet.errors import BrokerUnavailable, Unconfirmed
from asgi_comet.identity.announcing import Announcement, Announcer
from asgi_comet.log_events import event

__all__ = ["Changes", "Confirmation"]

_logger = logging.getLogger(__name__)

Make = Callable[[Any], None]
"""Makes a change in this worker, given its details. Idempotent; called in any thread."""


class Confirmation:
    """The confirmation of a change by all workers. This worker has made the change already.

    Await it, in the event loop of the server, for the number of workers that have made the change,
    this one included; or drop it. In a worker thread, the call that returned it has waited. Without
    a broker the number is 1.

    Raises:
        Unconfirmed: The other workers could not be reached, so some may not have made the change.
    """

    __slots__ = ("_announcement", "_workers")

    def __init__(self) -> None:
        self._announcement: Announcement | None = None
        self._workers = 1

    def __await__(self) -> Generator[object, object, int]:
        return self._wait().__await__()

    async def _wait(self) -> int:
        await self._settled()
        return self._workers

    async def _settled(self) -> None:
        if self._announcement is not None:
            try:
                await self._announcement.wait()
            except BrokerUnavailable as error:
                raise Unconfirmed(error.reason) from error


class Changes:
    """The changes that all workers make when one of them does. Thread-safe.

    Args:
        broker: Carries the events.
        announcer: Tells the other workers, one change after the other; `None` without others.
    """

    def __init__(self, broker: Broker, announcer: Announcer | None) -> None:
        self._broker = broker
        self._announcer = announcer
        self._makes: dict[str, Make] = {}

    def add(self, kind: str, make: Make) -> None:
        """Add a kind of change.

        Args:
            kind: Its name in the events: the same in all versions, without a space.
            make: Makes a change of that kind in this worker.
        """
        self._makes[kind] = make

    def make(self, kind: str, details: Any = None, *, lasting: bool = False) -> Confirmation:
        """Make a change in this worker, and have all others make it.

        In a request the answer waits for the others; in a worker thread, this call.

        Args:
            kind: The kind of the change.
            details: Its content, which has a JSON form.
            lasting: Whether workers that start later make the newest change of this kind, too.

        Raises:
            NotRunning: There are other workers, and this one does not run, so nothing is changed.
                A lasting change may be made before the lifespan starts.
            Unconfirmed: In a worker thread: not all others have confirmed.
        """
        announcer = self._announcer
        if announcer is not None and (announcer.loop.running or not lasting):
            announcer.loop.check()
        self._makes[kind](details)
        confirmation, people = Confirmation(), self._broker.people
        if announcer is None or people is None or not announcer.loop.running:
            return confirmation
        news = f"{kind} {json.dumps(details, separators=(',', ':'))}"

        async def tell() -> None:
            told = await people.tell_all(news, lasting=kind if lasting else "")
            confirmation._workers = told

        confirmation._announcement = announcement = announcer.tell(self, tell)
        announcer.settle(confirmation._settled)
        if not announcer.loop.here:
            _block(announcement)
        return confirmation

    def told(self, news: str) -> None:
        """Make a change that a worker has made, maybe this one."""
        kind, _, details = news.partition(" ")
        make = self._makes.get(kind)
        if make is None:  # a worker of newer code
            _logger.warning(
                "an event of another worker is of an unknown kind: %.40r",
                kind,
                extra=event("worker.differs", reason=kind),
            )
        else:
            make(json.loads(details))


def _block(announcement: Announcement) -> None:
    try:
        announcement.block()
    except BrokerUnavailable as error:
        raise Unconfirmed(error.reason) from error
