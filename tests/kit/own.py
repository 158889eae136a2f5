"""Several workers that have the same client processes, which a test opens in each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware

from asgi_comet import Channel, Comet, CometMiddleware, Settings
from asgi_comet.brokers.logs import Log, Opened
from asgi_comet.brokers.people import Arrival, Found, Moved
from asgi_comet.channels.kind import Kind
from asgi_comet.core.messages import Start
from asgi_comet.errors import ProcessClosed
from asgi_comet.identity.process import Client
from asgi_comet.testing import JoinedBroker
from asgi_comet.testing._inspect import client_of, feed_of, inside
from asgi_comet.testing.joined_people import JoinedPeople
from asgi_comet.testing.reading_contract import At
from asgi_comet.testing.store import Store
from tests.kit.loop import wait_in_loop
from tests.kit.serving import Address, Tab, serve
from tests.kit.stage import KEY


class OwnPeople(JoinedPeople):
    """The people of one worker, with claims that are counted, or refused."""

    def __init__(self, broker: OwnBroker) -> None:
        super().__init__(
            broker.store, lambda: broker.host, lambda: broker.down, lambda: broker.claims
        )
        self._broker = broker

    async def claim(
        self,
        session: str,
        process: str,
        reader: int,
        starts: Mapping[str, Start],
        arrival: Arrival | None = None,
    ) -> dict[str, Found]:
        if process in self._broker.moved:
            raise Moved("another")
        if process in self._broker.gone:
            raise ProcessClosed(process)
        if arrival is not None:
            self._broker.arrivals.append(arrival.came)
            arrival = arrival if self._broker.confirms else At(arrival.came)
        found: dict[str, Found] = await super().claim(session, process, reader, starts, arrival)
        self._broker.claimed += 1
        if self._broker.claiming is not None:
            await self._broker.claiming()
        return found

    def unclaim(self, process: str, reader: int) -> None:
        self._broker.unclaimed.append(reader)
        super().unclaim(process, reader)


class OwnBroker(JoinedBroker):
    """A joined broker whose claims are observed.

    Attributes:
        moved: The client processes of another session.
        gone: The client processes that have closed.
        claimed: How often connections of the worker have claimed.
        unclaimed: The readers that have left, in order.
        arrivals: When the connections came whose claims were asked for.
        confirms: Whether claims are refused of clients that have gone.
        opening: Waits before a channel is opened.
        claiming: Waits before a claim is answered.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.moved: set[str] = set()
        self.gone: set[str] = set()
        self.claimed = 0
        self.unclaimed: list[int] = []
        self.arrivals: list[float] = []
        self.confirms = False
        self.opening: Callable[[], Awaitable[object]] | None = None
        self.claiming: Callable[[], Awaitable[object]] | None = None
        self.shared_people = self._people = OwnPeople(self)

    async def open(self, log: Log, *, make: bool = True) -> Opened:
        if self.opening is not None:
            await self.opening()
        return await super().open(log, make=make)

    @property
    def down(self) -> bool:
        """Whether it is disconnected."""
        return not self.connected


SETTINGS = Settings(jitter=0, linger=0.2)


class Worker:
    """A `Comet` with its server."""

    def __init__(
        self, broker: OwnBroker, settings: Settings = SETTINGS, sites: Sequence[str] = ()
    ) -> None:
        self.broker = broker
        self.comet = Comet(KEY, broker=broker, settings=settings)
        self.sites: dict[str, Channel[str]] = {
            name: self.comet.channels.create(name) for name in sites
        }
        self.app = Starlette(middleware=[Middleware(CometMiddleware, comet=self.comet)])
        self.address: Address

    def process_of(self, tab: Tab) -> Client:
        """Return the worker's copy of a tab's client process."""
        id_ = inside(self.comet).requests.identity.unsign_process(tab.opened["process"])
        assert id_ is not None
        return self.find(id_)

    def find(self, id_: str) -> Client:
        """Return the worker's copy of a client process."""
        (found,) = (one for one in self.comet.processes() if one.id == id_)
        return client_of(found)

    def make_default(self, session: str) -> Client:
        """Open the default client process of a session."""
        id_ = f"{session[:2]}{'d' * 22}"

        async def open_() -> None:
            await self.broker.shared_people.open(session, id_, default=True)

        wait_in_loop(self.comet, open_)
        return self.find(id_)

    def make(self, tab: Tab, name: str, size: int = 100) -> Channel[Any]:
        """Make a channel of a tab, and return once the other workers know it."""
        return self.known(self.comet.create(scope=self.process_of(tab), name=name, size=size))

    def adopt(self, tab: Tab, name: str, size: int = 100) -> Channel[Any]:
        """Make a channel of a tab as each worker does, and return once all know it."""
        place, channels = self.process_of(tab).place, inside(self.comet).channels
        return self.known(
            channels.open(Kind.PROCESS, place, None, name=name, size=size, type_=None)
        )

    def known(self, channel: Channel[Any]) -> Channel[Any]:
        """Return a channel once the other workers know it."""
        sharing = inside(self.comet).channels.sharing
        wait_in_loop(self.comet, lambda: sharing.opened(feed_of(channel)))
        return channel

    def stored(self, channel: Channel[Any], value: Any) -> str:
        """Publish, and return the position once the message is stored."""
        found: list[str] = []

        async def publish() -> None:
            found.append(str(await channel.publish(value).stored()))

        wait_in_loop(self.comet, publish)
        return found[0]


Workers = list[Worker]


@contextmanager
def serving(
    settings: Settings = SETTINGS,
    sites: Sequence[str] = (),
    declare: Callable[[Comet, int], None] = lambda comet, number: None,
) -> Iterator[Workers]:
    """Serve three workers on one store.

    Args:
        settings: Those of each worker.
        sites: The names of channels of the site.
        declare: Declares channels in the worker of a number.
    """
    store = Store()
    with ExitStack() as stack:
        made = [Worker(OwnBroker(store), settings, sites) for _ in range(3)]
        for number, worker in enumerate(made):
            declare(worker.comet, number)
        for worker in made:
            worker.address = stack.enter_context(serve(worker.app))
            assert worker.address.request("GET", "/comet/comet.js").status == 200
        yield made


def open_tab(workers: Workers) -> Tab:
    """Open a client process."""
    return Tab(workers[0].address)
