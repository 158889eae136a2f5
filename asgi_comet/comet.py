"""Comet: the object that a user configures. Wires the rooms, holds no logic of its own."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from starlette.types import Scope as ASGIScope

from .activation import Activation
from .admin.endpoints import Credential
from .app import CometApp
from .authorisation import Guards
from .background import Background
from .brokers.base import Broker
from .brokers.memory import MemoryBroker
from .channels import Channel, Channels, ExternalChannel
from .clock import Clock, MonotonicClock
from .cookies import Cookie
from .declarations import Declarations, DeclaredChannel
from .directory import Directory, Place
from .drain import Drain
from .facets.declaring import Declaring
from .facets.making import Making
from .facets.notifying import Notifying
from .facets.people import People
from .fanout import Fanout
from .goodbyes import Goodbyes
from .hub import Hub
from .identity import Identity, SecretKey, load_keys
from .lifespan import Lifespan
from .origin import OriginRule
from .pages import Markup, render_script
from .processes import ClientProcess, Household
from .registry import Processes
from .runtime import Runtime
from .scopes import SITE
from .settings import Settings
from .siblings import Siblings
from .threads import LoopThread
from .timers import Timers
from .users import Users
from .visits import Visit, Visits

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
        broker: `None` or `""`: everything is in the memory of one worker. Brokers for several
            workers come with a later version.
        settings: The figures an operator may change.
        clock: What time it is; for tests.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of its bounds; the text says what was expected.
    """

    def __init__(  # noqa: PLR0913 - six are those of api.md, and tests need the clock
        self,
        secret_key: SecretKey,
        *,
        prefix: str = "/comet",
        allowed_origins: Iterable[str] = (),
        admin: Credential | None = None,
        broker: str | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        keys = load_keys(secret_key)
        _check_broker(broker)
        self.prefix: str = _check_prefix(prefix)
        settings = settings if settings is not None else Settings()
        runtime = _make_runtime(clock if clock is not None else MonotonicClock())
        fanout = Fanout(runtime.loop, runtime.clock)
        memory = MemoryBroker(fanout)
        self.channels: Channels = Channels(
            settings, self._make_site(), broker=memory, fanout=fanout, runtime=runtime
        )
        self.activation: Activation = Activation(settings, fanout, runtime.loop)
        identity = Identity(keys)
        name = identity.name_application(self.prefix)
        self._siblings = Siblings(name, settings.several_workers, runtime)
        visits = self._make_visits(identity, settings, runtime)
        origins = OriginRule(allowed_origins)
        self._hub = self._make_hub(settings, runtime, fanout, memory, visits, origins)
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
        """
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
            guard=Guards(self.channels, declarations, runtime.loop),
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


def _check_broker(broker: str | None) -> None:
    if broker not in (None, ""):  # a URL may hold a password, so it is not repeated
        raise ValueError(
            "expected broker=None, which keeps everything in the memory of one worker, got a "
            f"{type(broker).__name__}; brokers for several workers come with a later version"
        )


def _check_prefix(prefix: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix):
        raise ValueError(
            "expected a prefix like '/comet': beginning and not ending with '/', of letters, "
            f"digits and '._~-', got {prefix!r}"
        )
    return prefix
