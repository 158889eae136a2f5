"""The sessions, client processes and users of one Comet, connected to each other.

Holds no logic: chooses the parts for one worker, or for one of several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.brokers.base import Broker
from asgi_comet.channels.channels import AllChannels
from asgi_comet.identity.announcing import Announcer
from asgi_comet.identity.asking import Asking
from asgi_comet.identity.changes import Changes
from asgi_comet.identity.clients import Clients
from asgi_comet.identity.cookies import Cookie
from asgi_comet.identity.copies import Copies
from asgi_comet.identity.endings import Endings
from asgi_comet.identity.goodbyes import Goodbyes
from asgi_comet.identity.household import Household
from asgi_comet.identity.neighbours import Neighbours, people_of
from asgi_comet.identity.presence import LocalPresence, Presence, SharedPresence
from asgi_comet.identity.process import Client
from asgi_comet.identity.requests import Requests
from asgi_comet.identity.spelling import Spelling
from asgi_comet.identity.tokens import Identity
from asgi_comet.identity.users import Users
from asgi_comet.identity.visiting import Visits
from asgi_comet.node.people import NoPeople, RoomsPeople
from asgi_comet.settings import Settings

__all__ = ["Society"]

MARGIN = 2.0  # seconds that a request waits for other workers, beyond the life of a dead one


@dataclass(frozen=True, slots=True)
class Society:
    """The parts that sessions, client processes and users are made of.

    Attributes:
        settings: The bounds.
        identity: Signs and verifies ids.
        runtime: Runs timers and jobs.
        broker: Says whether workers share people.
        spelling: The spelling of users.
        channels: The channels.
        url: Returns the URL of PREFIX, as seen by the current request.
        birth: Returns the worker and the current time, as a text.
        close: Ends the channels of a client process that has closed.
        endings: The functions that run once for each closed client process.
    """

    settings: Settings
    identity: Identity
    runtime: Runtime
    broker: Broker
    spelling: Spelling
    channels: AllChannels
    url: Callable[[], str]
    birth: Callable[[], str]
    close: Callable[[Client], None]
    endings: Endings = field(default_factory=Endings)

    def make(self) -> tuple[Requests, NoPeople | RoomsPeople, Changes]:
        """Make the parts of one worker, or those of one of several."""
        if not self.broker.shares_people:
            return self._make_alone(), NoPeople(), Changes(self.broker, None)
        return self._make_shared()

    def _make_alone(self) -> Requests:
        presence = LocalPresence(self.runtime, self.settings.process_timeout)
        clients: list[Clients] = []

        def close(process: Client) -> None:
            self.close(process)
            goodbyes = household.goodbyes
            if self.endings:
                goodbyes.start(partial(self.endings.run, process.id))

        household = self._make_household(presence, clients, close, self.birth)
        clients.append(Clients(self.settings, household, self.channels.site.directory.lock))
        strict = self.settings.strict_shared
        return self._make_requests(clients[0], self.spelling if strict else None)

    def _make_shared(self) -> tuple[Requests, NoPeople | RoomsPeople, Changes]:
        runtime, settings, broker = self.runtime, self.settings, self.broker
        people = partial(people_of, broker)
        announcer = Announcer(runtime.loop, runtime.background, settings.heartbeat + MARGIN)
        presence = SharedPresence(people, announcer, runtime)
        neighbours = Neighbours(
            broker=broker,
            announcer=announcer,
            presence=presence,
            visits=Visits(people),
            spelling=self.spelling,
            name_default=self.identity.name_default,
            clock=runtime.clock,
        )
        clients: list[Clients] = []
        household = self._make_household(presence, clients, self.close, lambda: "")
        copies = Copies(settings, household, self.channels.site.directory.lock, neighbours)
        clients.append(copies)
        requests = self._make_requests(copies, self.spelling)
        announcer.settle = requests.settle
        changes = Changes(broker, announcer)
        return requests, RoomsPeople(copies, self.endings, runtime.background, changes), changes

    def _make_household(
        self,
        presence: Presence,
        clients: list[Clients],
        close: Callable[[Client], None],
        birth: Callable[[], str],
    ) -> Household[Client]:
        sign = self.identity.sign_process

        def tell(process: Client) -> None:
            clients[0].tell_closed(process)

        async def ask(process: Client) -> float | None:
            return await clients[0].ask(process)

        return Household(
            runtime=self.runtime,
            presence=presence,
            url=lambda p: f"{self.url()}/p/{sign(p.id, p.birth)}",
            birth=birth,
            close=close,
            let_go=self.channels.let_go,
            tell=tell,
            ask=ask,
            goodbyes=Goodbyes(self.runtime.background),
        )

    def _make_requests(self, clients: Clients, spelling: Spelling | None) -> Requests:
        settings, runtime = self.settings, self.runtime
        users = Users(clients, self.channels, runtime, spelling)
        cookie = Cookie(settings.cookie_name, settings.cookie_samesite)
        asking = Asking(runtime, settings.prefetch)
        return Requests(self.identity, cookie, clients, users, self.broker, asking)
