"""The ways to the other workers: questions, changes, and what this worker has.

Owns how a client process is opened and closed in the store. Must not know the tables of this
worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.people import Moved, People
from asgi_comet.errors import BrokerUnavailable, CometError
from asgi_comet.identity.announcing import Announcement, Announcer
from asgi_comet.identity.presence import SharedPresence
from asgi_comet.identity.process import Client
from asgi_comet.identity.spelling import Spelling
from asgi_comet.identity.visiting import Visits

__all__ = ["Neighbours"]

LIMIT = 60.0  # seconds in which a closing is repeated until the store is reached
PAUSE = 1.0  # seconds between two tries


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The ways to the other workers.

    Attributes:
        broker: Shares sessions and client processes.
        announcer: Tells changes.
        presence: Reports connections and state.
        visits: Asks questions.
        spelling: The spelling of users.
        name_default: Returns the id of a default client process.
        clock: The clock.
    """

    broker: Broker
    announcer: Announcer
    presence: SharedPresence
    visits: Visits
    spelling: Spelling
    name_default: Callable[[str, int], str]
    clock: Clock

    @property
    def people(self) -> People:
        """The store."""
        return people_of(self.broker)

    def check_connected(self) -> None:
        """Raise if the broker is away.

        Raises:
            BrokerUnavailable: It is.
        """
        if not self.broker.connected:
            raise BrokerUnavailable(self.broker.trouble or "it is disconnected")

    def open(self, process: Client, *, default: bool) -> Announcement:
        """Open a client process that was made in this worker."""
        session, id_ = process.session.id, process.id

        async def job() -> None:
            try:
                opened = await self.people.open(session, id_, default=default)
                if opened != id_:  # the other worker has another key
                    raise BrokerUnavailable("another worker has opened the default client process")
            except CometError:
                process.end()
                raise

        return self.announcer.tell(process.session, job)

    def close(self, process: Client) -> None:
        """Close a client process that was closed in this worker; in a request, before the answer.

        Where the store cannot be reached, this is tried again for a minute; then the time limit of
        the process ends it.
        """
        session, id_ = process.session.id, process.id

        async def job() -> None:
            nonlocal session
            until = self.clock.now() + LIMIT
            while True:
                try:
                    return await self.people.close(session, id_)
                except Moved as moved:
                    session = moved.session
                except BrokerUnavailable:
                    if self.clock.now() >= until:
                        raise
                    await self.clock.sleep_until(self.clock.now() + PAUSE)

        self.announcer.settle(self.announcer.tell(process.session, job).wait)


def people_of(broker: Broker) -> People:
    """Return the store of a broker that has one."""
    people = broker.people
    assert people is not None  # noqa: S101 - for the type checker
    return people
