"""Comet: the object that a user configures. Wires the rooms, holds no logic of its own."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from starlette.types import Scope as ASGIScope

from asgi_comet._runtime.clock import Clock, MonotonicClock
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.tasks import Background
from asgi_comet._runtime.timers import Timers
from asgi_comet.activation import Activation
from asgi_comet.admin.endpoints import Credential
from asgi_comet.api.create import Making
from asgi_comet.api.declare import Declaring
from asgi_comet.api.notify import Notifying
from asgi_comet.api.pages import Markup, render_script
from asgi_comet.api.people import People
from asgi_comet.app import CometApp
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.memory import MemoryBroker
from asgi_comet.channels.channels import Channel, Channels, ExternalChannel
from asgi_comet.channels.directory import Directory, Place
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.reference import Referring
from asgi_comet.channels.scope import SITE
from asgi_comet.declare.declarations import Declarations, DeclaredChannel
from asgi_comet.http.origin import OriginRule
from asgi_comet.identity.cookies import Cookie
from asgi_comet.identity.current import Visit, Visits
from asgi_comet.identity.goodbyes import Goodbyes
from asgi_comet.identity.guard import Guards
from asgi_comet.identity.process import ClientProcess, Household
from asgi_comet.identity.registry import Processes
from asgi_comet.identity.tokens import Identity, SecretKey, load_keys
from asgi_comet.identity.users import Users
from asgi_comet.lifespan import Lifespan
from asgi_comet.node.build import Hub
from asgi_comet.node.drain import Drain
from asgi_comet.node.host import RoomsHost
from asgi_comet.settings import Settings
from asgi_comet.workers.siblings import Siblings

__all__ = ["Comet"]


class Comet(Declaring, Making, Notifying, People):
    """Server push for one application.

    Args:
        secret_key: At least 32 bytes; a list of keys for rotation, the last one signs.
        prefix: Where the endpoints are served by `CometMiddleware`: begins with `/`, does not end
            with one.
        allowed_origins: Origins besides the application's own whose pages may use every endpoint
            and read the answers (CORS with credentials), like `https://app.example.com`.
        admin: The credential of `PREFIX/admin`: `None` switches it off; a token of at least 32
            ASCII characters, sent as `Authorization: Bearer`; or a function of the connection,
            sync or async, that returns `True` for whoever may operate.
        broker: What joins the workers: `None` or `""` keeps everything in the memory of one worker;
            otherwise a `Broker` of its own. Those named by a URL come with a later version.
        settings: The figures an operator may change.
        clock: What time it is; for tests.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of its bounds; the text says what was expected.
    """

    def __init__(  # noqa: PLR0913 - six are the application's, and tests need the clock
        self,
        secret_key: SecretKey,
        *,
        prefix: str = "/comet",
        allowed_origins: Iterable[str] = (),
        admin: Credential | None = None,
        broker: Broker | str | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        keys = load_keys(secret_key)
        joined = _check_broker(broker)
        self.prefix: str = _check_prefix(prefix)
        settings = settings if settings is not None else Settings()
        runtime = _make_runtime(clock if clock is not None else MonotonicClock())
        fanout = Fanout(runtime.loop, runtime.clock)
        self.channels: Channels = Channels(
            settings, self._make_site(), broker=joined, fanout=fanout, runtime=runtime
        )
        self.activation: Activation = Activation(settings, fanout, runtime.loop)
        identity = Identity(keys)
        name = identity.name_application(self.prefix)
        self._siblings = Siblings(name, settings.several_workers, runtime)
        visits = self._make_visits(identity, settings, runtime)
        origins = OriginRule(allowed_origins)
        self._hub = self._make_hub(settings, runtime, fanout, joined, visits, origins)
        joined.bind(RoomsHost(self.channels, fanout, runtime))
        self.channels.settle = visits.settle
        self._lifespan = Lifespan(self._hub)
        self.app: CometApp = CometApp(self._hub, admin)
        """The mountable ASGI application: `app.mount("/comet", comet.app)`."""

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[None]:
        """Run while the context lasts: `FastAPI(lifespan=comet.lifespan)`.

        An application with a lifespan of its own enters this in it:
        `async with comet.lifespan(): yield`, after what the sources of its declared channels need:
        they are read from here on, and have closed when this ends. `CometMiddleware` does all that
        by itself, around the application, but sources are read only once that has started, and
        close before it stops.

        Args:
            app: Ignored; servers pass the application.
        """
        del app
        return self._lifespan.running()

    def script(
        self,
        process: ClientProcess | None = None,
        **channels: Channel[Any] | DeclaredChannel[Any, Any] | ExternalChannel,
    ) -> Markup:
        """Render a client process and channels for a page, where `comet.js` picks them up.

        `comet.channel("news")` there then follows the channel given as `news=` from where it was
        when this was called, so nothing is lost while the page loads. The page must not be cached:
        its client process is for one tab.

        Args:
            process: The page's client process, as `open_process` returns it; `None` lets the page
                open one when it needs it.
            **channels: By the names that the page uses.

        Returns:
            A `script` element of data that no browser runs, whatever is in it; template engines
            insert it as it is.

        Raises:
            TypeError: An argument is no client process, or no channel; a channel is a family:
                give `rooms.channel(room=...)`.
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
            timeout = self._hub.settings.process_timeout
            opened |= {"process": url.rpartition("/")[2], "url": url, "processTimeout": timeout}
        return render_script(opened)

    def begin_lifespan(self) -> AbstractAsyncContextManager[Lifespan]:
        """Run while the context lasts, around an application; for `CometMiddleware`."""
        return self._lifespan.around()

    def begin_visit(self, scope: ASGIScope) -> AbstractContextManager[Visit]:
        """Make a request the current one; for `CometMiddleware`."""
        return self._hub.visits.begin(scope)

    def _make_site(self) -> Place:
        return Place(Directory(threading.Lock()), "", self._url, SITE)

    def _make_visits(self, identity: Identity, settings: Settings, runtime: Runtime) -> Visits:
        household = Household(
            runtime=runtime,
            timeout=settings.process_timeout,
            url=lambda p: f"{self._url()}/p/{identity.sign_process(p.id, p.birth)}",
            birth=self._siblings.birth,
            close=self._close_process,
            goodbyes=Goodbyes(runtime.background),
        )
        processes = Processes(settings, household, self.channels.site.directory.lock)
        users = Users(processes, self.channels, runtime.loop)
        cookie = Cookie(settings.cookie_name, settings.cookie_samesite)
        return Visits(identity, cookie, processes, users)

    def _make_hub(
        self,
        settings: Settings,
        runtime: Runtime,
        fanout: Fanout,
        broker: Broker,
        visits: Visits,
        origins: OriginRule,
    ) -> Hub:
        declarations = Declarations(settings, self.channels, runtime)
        return Hub(
            settings=settings,
            runtime=runtime,
            clock=runtime.clock,
            loop=runtime.loop,
            timers=runtime.timers,
            background=runtime.background,
            drain=Drain(fanout, runtime.timers),
            fanout=fanout,
            channels=self.channels,
            declarations=declarations,
            activation=self.activation,
            origins=origins,
            broker=broker,
            processes=visits.processes,
            visits=visits,
            users=visits.users,
            guard=Guards(self.channels, runtime.loop),
            siblings=self._siblings,
        )

    def _close_process(self, process: ClientProcess) -> None:
        for feed in process.place.directory.close():
            self.channels.end(feed, "ended", keep=False)
        self._hub.processes.forget(process)
        for forget in list(self._hub.notifiers.values()):
            forget(process)

    def _url(self) -> str:
        return self._hub.visits.current_root_path() + self.prefix


def _make_runtime(clock: Clock) -> Runtime:
    loop = LoopThread()
    return Runtime(loop=loop, timers=Timers(clock), clock=clock, background=Background(loop))


def _check_broker(broker: Broker | str | None) -> Broker:
    if isinstance(broker, Broker):
        return broker
    if broker not in (None, ""):  # a URL may hold a password, so it is not repeated
        raise ValueError(
            "expected broker=None, which keeps everything in the memory of one worker, or a "
            f"Broker, got a {type(broker).__name__}; brokers that a URL names come with a later "
            "version"
        )
    return MemoryBroker()


def _check_prefix(prefix: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix):
        raise ValueError(
            "expected a prefix like '/comet': beginning and not ending with '/', of letters, "
            f"digits and '._~-', got {prefix!r}"
        )
    return prefix
