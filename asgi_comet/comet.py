"""Comet: the object that a user configures. Wires the rooms, holds no logic of its own."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

from .activation import Activation
from .admin.endpoints import Credential
from .app import CometApp
from .channels import Channels
from .clock import Clock, MonotonicClock
from .delivery import Observation
from .fanout import Fanout
from .hub import Hub
from .identity import SecretKey, load_keys
from .lifespan import Lifespan
from .origin import OriginRule
from .settings import Settings
from .threads import LoopThread
from .timers import Timers

__all__ = ["Comet"]


class Comet:
    """Server push for one application.

    Args:
        secret_key: At least 32 bytes; a list of keys for rotation, the last one signs.
        prefix: Where the endpoints are served by `CometMiddleware`: begins with `/`, does not end
            with one.
        allowed_origins: Origins besides the application's own whose pages may connect, like
            `https://app.example.com`.
        admin: The credential of `PREFIX/admin`: `None` switches it off; a token of at least 32
            characters, sent as `Authorization: Bearer`; or a function of the connection.
        settings: The figures an operator may change.
        clock: What time it is; for tests.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of its bounds; the text says what was expected.

    Source: api.md, "Comet".
    """

    def __init__(
        self,
        secret_key: SecretKey,
        *,
        prefix: str = "/comet",
        allowed_origins: Iterable[str] = (),
        admin: Credential | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        load_keys(secret_key)
        self.prefix: str = _check_prefix(prefix)
        settings = settings if settings is not None else Settings()
        clock = clock if clock is not None else MonotonicClock()
        loop = LoopThread()
        timers = Timers(clock)
        fanout = Fanout(loop)
        self.activation: Activation = Activation(settings, fanout, loop)
        observation = Observation(loop, timers, clock, settings.timeout)
        self.channels: Channels = Channels(settings, fanout, observation)
        self._hub = Hub(
            settings=settings,
            clock=clock,
            loop=loop,
            timers=timers,
            fanout=fanout,
            channels=self.channels,
            activation=self.activation,
            origins=OriginRule(allowed_origins),
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


def _check_prefix(prefix: str) -> str:
    if not prefix.startswith("/") or prefix.endswith("/") or "//" in prefix:
        raise ValueError(
            f"expected a prefix like '/comet', beginning and not ending with '/', got {prefix!r}"
        )
    return prefix
