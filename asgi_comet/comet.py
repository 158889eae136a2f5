"""Comet: the object that an application configures. Connects the parts, has no own logic."""

from __future__ import annotations

import re
import threading
from collections.abc import Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeVar
from weakref import ref

from starlette.types import ASGIApp

from asgi_comet._runtime.clock import Clock, ExchangeableClock, MonotonicClock
from asgi_comet._runtime.counters import Counters
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.tasks import Background
from asgi_comet._runtime.timers import Timers
from asgi_comet.activation import Activation, Switch
from asgi_comet.admin.roles import Credential
from asgi_comet.admin.status import count_here
from asgi_comet.api.create import Making
from asgi_comet.api.declare import Declaring
from asgi_comet.api.notify import Notifying
from asgi_comet.api.pages import Markup, render_script
from asgi_comet.api.people import People
from asgi_comet.app import CometApp
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.choosing import choose_broker
from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.channels.channels import AllChannels, Channel, Channels, ExternalChannel
from asgi_comet.channels.directory import Directory, Place
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Feed, Wake
from asgi_comet.channels.reference import Referring
from asgi_comet.channels.scope import SITE
from asgi_comet.declare.declarations import Declarations
from asgi_comet.declare.declared import DeclaredChannel
from asgi_comet.endpoints.process import acknowledged
from asgi_comet.errors import CometError
from asgi_comet.http.origin import OriginRule
from asgi_comet.identity.changes import Changes
from asgi_comet.identity.guard import Guards
from asgi_comet.identity.process import Client, ClientProcess
from asgi_comet.identity.requests import Requests
from asgi_comet.identity.spelling import Spelling
from asgi_comet.identity.tokens import Identity, SecretKey, load_keys
from asgi_comet.lifespan import Lifespan
from asgi_comet.node.build import Node
from asgi_comet.node.drain import Drain
from asgi_comet.node.host import RoomsHost
from asgi_comet.node.own import open_window
from asgi_comet.node.people import NoPeople, RoomsPeople
from asgi_comet.node.society import Society
from asgi_comet.observe.cluster import QUESTION
from asgi_comet.observe.figures import read
from asgi_comet.publishing.outlet import Outlet, Publishing
from asgi_comet.settings import Settings
from asgi_comet.workers.siblings import Siblings

__all__ = ["Comet"]


T = TypeVar("T")


class Comet(Declaring, Making, Notifying, People):
    """Server push for one application.

    Args:
        secret_key: At least 32 bytes; a list of keys for rotation, the last one signs.
        prefix: The path of the endpoints under `CometMiddleware`: begins with `/`, does not end
            with `/`.
        allowed_origins: Origins besides the application's own whose pages may use every endpoint
            and read the answers (CORS with credentials), like `https://app.example.com`.
        admin: The credential of `PREFIX/admin`: `None` switches it off; a token of at least 32
            ASCII characters, whose role is `operate`; a mapping of tokens to roles, like
            `{OPS: "operate", SCRAPE: "look"}`; or a function of the connection, sync or async, that
            returns the role of a request: `"look"`, `"operate"` or `"contents"`, each of which
            includes those before it. `True` is `"operate"`; `None` and `False` refuse.
        broker: Joins the workers: `None` or `""` keeps everything in the memory of one worker; a
            URL is that of a Redis or Valkey: `redis://`, `rediss://`, `unix://`, `redis+unix://` or
            `redis+sentinel://`; otherwise a `Broker`, one for each `Comet`.
        user: The type of users, which pydantic can write as JSON and read; `None` allows any
            hashable value, and with a broker that joins several workers `str`, `int` and `UUID`.
        settings: The figures that an operator may change.
        clock: The clock; for tests.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of bounds; the text gives the expected value.
    """

    def __init__(  # noqa: PLR0913 - seven are the application's, and tests need the clock
        self,
        secret_key: SecretKey,
        *,
        prefix: str = "/comet",
        allowed_origins: Iterable[str] = (),
        admin: Credential | None = None,
        broker: Broker | str | None = None,
        user: Any = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        identity = Identity(load_keys(secret_key))
        joined = choose_broker(broker)
        self.prefix: str = _check_prefix(prefix)
        settings = settings if settings is not None else Settings()
        runtime = _make_runtime(clock if clock is not None else MonotonicClock())
        fanout = Fanout(runtime.loop, runtime.clock, runtime.counters)
        self._channels = AllChannels(
            settings, self._make_site(), broker=joined, fanout=fanout, runtime=runtime
        )
        self.channels: Channels = Channels(self._channels, settings.history_size)
        self._siblings = Siblings(
            identity.name_application(self.prefix),
            None if joined.shared else settings.several_workers,
            runtime,
        )
        society = self._make_society(settings, identity, runtime, joined, Spelling(user))
        requests, people, changes = society.make()
        self._switch = Switch(settings, fanout, runtime.loop, changes)
        self.activation: Activation = self._switch
        origins = OriginRule(allowed_origins)
        self._node = self._make_node(fanout, society, requests, origins, changes)
        self._app = CometApp(self._node, admin)
        self._app.of = ref(self)
        self._join(people)
        self._lifespan = Lifespan(self._node, self._app.dashboard)
        self._publishing = Publishing(Outlet(self._node))  # here, as it watches for forks
        self.app: ASGIApp = self._app
        """The mountable ASGI application: `app.mount("/comet", comet.app)`."""

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[None]:
        """Run while the context lasts: `FastAPI(lifespan=comet.lifespan)`.

        An application with its own lifespan enters this context there: `async with
        comet.lifespan(): yield`, after setting up everything that its sources need: the sources of
        declared channels are read from here on, and have closed when the context ends. With
        `CometMiddleware` this is not needed: sources are then read after the application has
        started, and close before the application stops.

        Args:
            app: Ignored; servers pass the application.
        """
        del app
        return self._lifespan.running()

    def publishing(self) -> Publishing:
        """Publish from a process that does not serve: a script, or a worker of a task queue.

        `with comet.publishing():` in threads and plain scripts, `async with` in asyncio. Channels
        are published on as in the server. Channels that the application makes when it is imported
        are those of the server. The process reads no source and serves no client. Leaving waits
        until everything is stored.

        A process that forks enters in each of its children; entering twice counts.

        Returns:
            The context manager, which is one for all calls.

        Raises:
            RuntimeError: The broker is the memory of one worker, so no client gets what another
                process publishes.
        """
        if not self._node.broker.shared:
            raise RuntimeError(
                "expected a broker for publishing(), got the memory of this process, from which no "
                "client gets anything: either write Comet(key, broker=URL), or have this program "
                "call an endpoint of the application that publishes"
            )
        return self._publishing

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop of the server, and return its result.

        For sync code in worker threads, like a sync endpoint: `comet.call(channel.count())`. Waits
        5 s at most.

        Args:
            coroutine: The coroutine, of this library or of the application.

        Raises:
            BrokerUnavailable: It takes too long; it goes on.
            MustAwait: An event loop runs in this thread.
            NotRunning: The lifespan does not run.
            Exception: Any exception of the coroutine.
        """
        try:
            self._node.requests.asking.check_thread("comet.call(...)", "await the coroutine")
        except CometError:
            coroutine.close()  # it is never awaited, which Python would warn of
            raise
        return self._node.requests.asking.block("comet.call(...)", "", lambda: coroutine)

    def metrics(self) -> str:
        """Return the figures of this worker, in the text format of Prometheus. Thread-safe.

        The text tells names of channels and how many people are there: serve it only behind a
        guard. `PREFIX/admin/metrics` has one.

        Raises:
            ImportError: The extra `metrics` is not installed.
        """
        from asgi_comet.observe.exposition import write  # noqa: PLC0415 - needs an extra

        _, text = write([read(self._node)], shared=self._node.broker.shared)
        return text

    def script(
        self,
        process: ClientProcess | None = None,
        **channels: Channel[Any] | DeclaredChannel[Any, Any] | ExternalChannel,
    ) -> Markup:
        """Render a client process and channels into a page, for `comet.js`.

        In the page, `comet.channel("news")` follows the channel given as `news=` from its position
        at this call, so no message is lost while the page loads. The page must not be cached: its
        client process is for one tab.

        Args:
            process: The page's client process, from `open_process`; `None` lets the page open one
                when needed.
            **channels: The channels, by the names that the page uses.

        Returns:
            A `script` element of data, which browsers do not run; template engines do not escape
            it.

        Raises:
            BrokerUnavailable: As `Channel.reference`.
            MustAwait: As `Channel.reference`.
            TypeError: An argument is not a client process or a channel, or a channel is a family:
                write `rooms.channel(room=...)`.
        """
        if process is not None and not isinstance(process, ClientProcess):
            raise TypeError(
                f"expected a client process or None, got {type(process).__name__}; channels are "
                "given by the names that the page uses: comet.script(process, news=news)"
            )
        for name, channel in channels.items():
            if not isinstance(channel, Referring | DeclaredChannel):
                raise TypeError(f"expected {name} to be a channel, got {type(channel).__name__}")
        page: dict[str, Any] = {n: c.reference() for n, c in channels.items()}
        opened: dict[str, Any] = {"channels": page}
        if process is not None:
            url = process.url
            timeout = self._node.settings.process_timeout
            opened |= {"process": url.rpartition("/")[2], "url": url, "processTimeout": timeout}
        return render_script(opened)

    def _make_site(self) -> Place:
        return Place(Directory(threading.Lock()), "", self._url, SITE)

    def _make_society(
        self,
        settings: Settings,
        identity: Identity,
        runtime: Runtime,
        broker: Broker,
        spelling: Spelling,
    ) -> Society:
        return Society(
            settings=settings,
            identity=identity,
            runtime=runtime,
            broker=broker,
            spelling=spelling,
            channels=self._channels,
            url=self._url,
            birth=self._siblings.birth,
            close=self._close_process,
        )

    def _make_node(
        self,
        fanout: Fanout,
        society: Society,
        requests: Requests,
        origins: OriginRule,
        changes: Changes,
    ) -> Node:
        settings, runtime = society.settings, society.runtime
        declarations = Declarations(settings, self._channels, runtime)
        return Node(
            settings=settings,
            runtime=runtime,
            clock=runtime.clock,
            loop=runtime.loop,
            timers=runtime.timers,
            background=runtime.background,
            drain=Drain(fanout, runtime.timers),
            fanout=fanout,
            channels=self._channels,
            declarations=declarations,
            activation=self._switch,
            origins=origins,
            broker=society.broker,
            clients=requests.clients,
            requests=requests,
            users=requests.users,
            guard=self._make_guards(society, requests, declarations, changes),
            siblings=self._siblings,
            endings=society.endings,
        )

    def _join(self, people: NoPeople | RoomsPeople) -> None:
        """Join the broker with the parts that it calls."""
        node = self._node
        people.window_of = partial(_open_window, node)
        people.on_missed = partial(_doubt_rights, node)
        host = RoomsHost(self._channels, node.fanout, node.runtime, people)
        host.answers |= {
            "listeners": partial(_count_listeners, node),
            "status": lambda _: count_here(node),
            QUESTION: lambda _: read(node),
            "acknowledged": partial(acknowledged, node),
        }
        if self._app.dashboard is not None:
            host.answers |= self._app.dashboard.answers()
        node.broker.bind(host)
        self._channels.sharing.settle = node.requests.settle
        self._channels.sharing.owner_known = node.clients.opened
        self._channels.sharing.ask = node.requests.asking.block

    def _make_guards(
        self, society: Society, requests: Requests, declarations: Declarations, changes: Changes
    ) -> Guards:
        spell = society.spelling.write if requests.clients.shared else _spell_nothing
        runtime = society.runtime
        guards = Guards(self._channels, runtime, changes, requests.clients, spell)
        guards.find_feeds = declarations.feeds_of
        return guards

    def _close_process(self, process: Client) -> None:
        for feed in process.place.directory.close():
            self._channels.ending.end(feed, "ended", keep=False, tell=feed.local)
        self._node.clients.forget(process)
        for forget in list(self._node.notifiers.values()):
            forget(process)

    def _url(self) -> str:
        return self._node.requests.current_root_path() + self.prefix


def _count_listeners(node: Node, details: tuple[str | None, str]) -> int:
    owner, name = details
    process = None if owner is None else node.clients.find(owner)
    # A name of an own channel is none of the site, so it is found in no other directory.
    directory = node.channels.site.directory if process is None else process.place.directory
    feed = directory.find(name)
    return 0 if feed is None else len(feed.listeners)


def _doubt_rights(node: Node) -> None:
    """Have all clients come back, whose rights are then looked at again."""
    node.guard.revoked += 1  # also those that `authorize` looks at now
    node.fanout.end(Wake.MOVED)


def _open_window(node: Node, spec: ChannelSpec) -> Feed | None:
    process = node.clients.find(spec.owner or "")
    return open_window(process, spec, node.channels, node.declarations)


def _spell_nothing(user: Any) -> Any:
    """Return a user as it is: no other worker has to know the user."""
    return user


def _make_runtime(clock: Clock) -> Runtime:
    loop, clock = LoopThread(), ExchangeableClock(clock)
    return Runtime(
        loop=loop,
        timers=Timers(clock),
        clock=clock,
        background=Background(loop),
        counters=Counters(clock.now),
    )


def _check_prefix(prefix: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix):
        raise ValueError(
            "expected a prefix like '/comet': beginning and not ending with '/', of letters, "
            f"digits and '._~-', got {prefix!r}"
        )
    return prefix
