"""Comet: the object that a user configures. Wires the rooms, holds no logic of its own."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

from starlette.types import Scope as ASGIScope

from .activation import Activation
from .admin.endpoints import Credential
from .app import CometApp
from .background import Background
from .brokers.base import Broker
from .brokers.memory import MemoryBroker
from .channels import Channel, Channels, ExternalChannel, Source
from .clock import Clock, MonotonicClock
from .cookies import Cookie
from .directory import Directory, Place
from .drain import Drain
from .fanout import Fanout
from .feeds import Kind
from .hub import Hub
from .identity import Identity, SecretKey, load_keys
from .lifespan import Lifespan
from .names import check_name
from .origin import OriginRule
from .pages import Markup, render_script
from .processes import ClientProcess, Household
from .registry import Processes
from .runtime import Runtime
from .scopes import SITE, Scope
from .settings import Settings
from .threads import LoopThread
from .timers import Timers
from .visits import Visit, Visits

__all__ = ["Comet"]


class Comet:
    """Server push for one application.

    Args:
        secret_key: At least 32 bytes; a list of keys for rotation, the last one signs.
        prefix: Where the endpoints are served by `CometMiddleware`: begins with `/`, does not end
            with one.
        allowed_origins: Origins besides the application's own whose pages may use every endpoint
            and read the answers (CORS with credentials), like `https://app.example.com`.
        admin: The credential of `PREFIX/admin`: `None` switches it off; a token of at least 32
            characters, sent as `Authorization: Bearer`; or a function of the connection.
        broker: How workers hear of each other; by default there is one worker, and everything is
            in its memory.
        settings: The figures an operator may change.
        clock: What time it is; for tests.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of its bounds; the text says what was expected.

    Source: api.md, "Comet".
    """

    def __init__(  # noqa: PLR0913 - six are those of api.md, and tests need the clock
        self,
        secret_key: SecretKey,
        *,
        prefix: str = "/comet",
        allowed_origins: Iterable[str] = (),
        admin: Credential | None = None,
        broker: Broker | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        keys = load_keys(secret_key)
        self.prefix: str = _check_prefix(prefix)
        settings = settings if settings is not None else Settings()
        runtime = _make_runtime(clock if clock is not None else MonotonicClock())
        fanout = Fanout(runtime.loop, runtime.clock)
        broker = broker if broker is not None else MemoryBroker(fanout)
        self.channels: Channels = Channels(
            settings, self._make_site(), broker=broker, fanout=fanout, runtime=runtime
        )
        self.activation: Activation = Activation(settings, fanout, runtime.loop)
        visits = self._make_visits(Identity(keys), settings, runtime)
        self._hub = Hub(
            settings=settings,
            clock=runtime.clock,
            loop=runtime.loop,
            timers=runtime.timers,
            background=runtime.background,
            drain=Drain(fanout),
            fanout=fanout,
            channels=self.channels,
            activation=self.activation,
            origins=OriginRule(allowed_origins),
            broker=broker,
            processes=visits.processes,
            visits=visits,
        )
        self._lifespan = Lifespan(self._hub)
        self.app: CometApp = CometApp(self._hub, admin)
        """The mountable ASGI application: `app.mount("/comet", comet.app)`."""

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[None]:
        """Run while the context lasts: `FastAPI(lifespan=comet.lifespan)`.

        An application with a lifespan of its own enters this in it:
        `async with comet.lifespan(): yield`. `CometMiddleware` does it by itself.

        Args:
            app: Ignored; servers pass the application.
        """
        del app
        return self._lifespan.running()

    def create(
        self,
        source: Source[Any] | None = None,
        *,
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        size: int | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
    ) -> Channel[Any]:
        """Make a channel that reads its source as soon as values come.

        Thread-safe; also before the lifespan runs, with which the source begins to be read.

        Args:
            source: An async iterator, or a function that makes one; it is closed in the end,
                whatever happens. Without one the channel is written with `publish`.
            scope: `SITE`: all who know the name read one history. A client process, by default the
                current one: only that tab reads it, and if it does not, the channel is full when a
                message that was never sent would have to go.
            name: How clients know it, without the `~` of a process channel; by default an
                identifier of 144 random bits. An unnamed site channel is reclaimed when nobody
                holds it.
            size: How many messages it holds; by default `Settings.history_size`.
            type: The type of its values, anything pydantic knows; by default that of the function
                `source`, or else any value.

        Raises:
            NoClientProcess: There is no current one.
            ProcessClosed: The client process has closed.
            InvalidName: No channel may have that name.
            NonUniqueChannelName: A live channel has it.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
            ValueError: `size` is less than 1.
            TypeError: `source` is no async iterator, or pydantic does not know `type`.

        Source: `Eliom_comet.Channel.create`; semantics.md, "Kinds of channel".
        """
        if size is None:
            size = self._hub.settings.history_size
        if scope is SITE:
            kind, place = Kind.SITE, self.channels.site
        else:
            kind, place = Kind.PROCESS, self._place(scope)
        return self.channels.open(kind, place, source, name=name, size=size, type_=type)

    def create_unlimited(
        self,
        source: Source[Any],
        *,
        scope: Scope | ClientProcess | None = None,
        name: str | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
    ) -> Channel[Any]:
        """Make a channel of a client process that reads its source only while the client asks.

        It is one message ahead of what the client took, and never full: the source waits. What the
        source itself keeps meanwhile is the caller's risk. For the rest see `create`.

        Source: `Eliom_comet.Channel.create_unlimited`.
        """
        if source is None:
            raise TypeError("expected a source to read on demand, got None")
        place = self._place(scope)
        size = self._hub.settings.history_size
        return self.channels.open(Kind.UNLIMITED, place, source, name=name, size=size, type_=type)

    def create_newest(
        self,
        source: Source[Any] | None = None,
        *,
        name: str | None = None,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
    ) -> Channel[Any]:
        """Make a site channel of which clients get only the last message, otherwise as `create`.

        Source: `Eliom_comet.Channel.create_newest`.
        """
        site = self.channels.site
        return self.channels.open(Kind.NEWEST, site, source, name=name, size=1, type_=type)

    def external_channel(
        self, *, prefix: str, name: str, history: int = 1, newest: bool = False
    ) -> ExternalChannel:
        """Refer to a channel of another server that speaks `comet.v1`; clients connect there.

        That server decides who may: its `allowed_origins` must have this one's origin.

        Args:
            prefix: The URL where its comet is mounted, like `https://live.example.com/comet`.
            name: The channel's name there.
            history: With how many of the last messages clients begin.
            newest: Whether it is a newest channel, of which there is one at most.

        Raises:
            InvalidName: No channel has that name.
            ValueError: `prefix` is no such URL, or `history` is negative.

        Source: `Eliom_comet.Channel.external_channel`.
        """
        parts = urlsplit(prefix)
        if parts.scheme not in ("http", "https") or not parts.netloc or prefix.endswith("/"):
            raise ValueError(
                f"expected prefix like 'https://live.example.com/comet', got {prefix!r}"
            )
        if history < 0:
            raise ValueError(f"expected history to be at least 0, got {history}")
        return ExternalChannel(prefix, check_name(name), f"last:{1 if newest else history}")

    def open_process(self) -> ClientProcess:
        """Open a client process for the page that the current request serves.

        The answer sets the session's cookie. Works in sync endpoints, too.

        Raises:
            NoClientProcess: This is outside of a request that `CometMiddleware` serves.
            TooManyProcesses: The session, or the server, has as many as it may.
        """
        return self._hub.visits.current().open_process()

    def process(self) -> ClientProcess:
        """Return the current client process.

        It is the one that was opened in the request, or that the header `Comet-Process` names, or
        the default one of the session's cookie.

        Raises:
            NoClientProcess: There is none; the text says why.
            ProcessClosed: The one that the header names has closed.
        """
        return self._hub.visits.current().process()

    def script(
        self,
        process: ClientProcess | None = None,
        **channels: Channel[Any] | ExternalChannel,
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

        Source: api.md, "Comet".
        """
        page: dict[str, Any] = {n: c.reference() for n, c in channels.items()}
        opened: dict[str, Any] = {"channels": page}
        if process is not None:
            url = process.url
            timeout = self._hub.settings.process_timeout
            opened |= {"process": url.rpartition("/")[2], "url": url, "processTimeout": timeout}
        return render_script(opened)

    async def wait_timeout(self, seconds: float, process: ClientProcess | None = None) -> None:
        """Return once a client process has been inactive for that many seconds, or has closed.

        It is active while a connection to its endpoints is open; requests to the site's endpoints
        do not count.

        Args:
            seconds: How long, since the last connection closed.
            process: By default the current one.

        Raises:
            NoClientProcess: There is no current one.
            NotRunning: The lifespan does not run.

        Source: `Eliom_comet.Channel.wait_timeout`.
        """
        await (process if process is not None else self.process()).wait_inactive(seconds)

    def begin_visit(self, scope: ASGIScope) -> AbstractContextManager[Visit]:
        """Make a request the current one; for `CometMiddleware`."""
        return self._hub.visits.begin(scope)

    def _make_site(self) -> Place:
        return Place(Directory(threading.Lock()), "", self._url)

    def _make_visits(self, identity: Identity, settings: Settings, runtime: Runtime) -> Visits:
        household = Household(
            runtime=runtime,
            timeout=settings.process_timeout,
            url=lambda process: f"{self._url()}/p/{identity.sign_process(process)}",
            close=self._close_process,
        )
        processes = Processes(settings, household, self.channels.site.directory.lock)
        cookie = Cookie(settings.cookie_name, settings.cookie_samesite)
        return Visits(identity, cookie, processes)

    def _place(self, scope: Scope | ClientProcess | None) -> Place:
        if scope is SITE:
            raise ValueError("expected a client process as scope, got SITE")
        process = scope if isinstance(scope, ClientProcess) else self.process()
        process.check_open()
        return process.place

    def _close_process(self, process: ClientProcess) -> None:
        for feed in process.place.directory.close():
            self.channels.end(feed, "ended", keep=False)
        self._hub.processes.forget(process)

    def _url(self) -> str:
        return self._hub.visits.current_root_path() + self.prefix


def _make_runtime(clock: Clock) -> Runtime:
    loop = LoopThread()
    return Runtime(loop=loop, timers=Timers(clock), clock=clock, background=Background(loop))


def _check_prefix(prefix: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix):
        raise ValueError(
            "expected a prefix like '/comet': beginning and not ending with '/', of letters, "
            f"digits and '._~-', got {prefix!r}"
        )
    return prefix
