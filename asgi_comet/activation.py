"""The activation switch: comet on or off, how long a poll is held, and the command language.

Owns the two values that an operator changes while the server runs. Must not know the caller (a
program, or the admin endpoint) or the kinds of connections.

Divergences from `Ocsigen_comet.Security`: `set_timeout` refuses a value that is not a time, and
commands work with and without their prefix.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable

from asgi_comet._runtime.loop import LoopThread
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Wake
from asgi_comet.errors import UnknownCommand
from asgi_comet.identity.changes import Changes, Confirmation
from asgi_comet.log_events import event
from asgi_comet.settings import TIMEOUT_LIMIT, Settings

__all__ = ["Activation", "Switch"]

_logger = logging.getLogger(__name__)

_COMMAND = re.compile(
    r"(?:comet:)?(?:(?P<word>activate|deactivate)"
    r"|set_timeout\s+(?P<seconds>[0-9A-Za-z.+-]+)(?:\s+(?P<kill>KILL))?)"
)


class Activation:
    """The switch of a running server: `comet.activation`. Thread-safe; every action is logged.

    With a broker the switch is that of all workers: see `Confirmation`. Workers that start later
    find the switch as it was left. Without one, comet starts active, with `Settings.timeout`.

    Args:
        settings: The initial timeout and the jitter.
        fanout: The listeners to end.
        loop: The thread of the listeners.
        changes: The other workers.

    Source: `Ocsigen_comet.Security` and its commands.
    """

    def __init__(
        self, settings: Settings, fanout: Fanout, loop: LoopThread, changes: Changes
    ) -> None:
        changes.add("active", self._set_active)
        changes.add("timeout", self._set_timeout)
        self._changes = changes
        self._fanout = fanout
        self._loop = loop
        self._jitter = settings.jitter
        self._timeout = settings.timeout
        self._active = True

    @property
    def active(self) -> bool:
        """Whether the server serves comet requests; otherwise the answer is 503."""
        return self._active

    @property
    def timeout(self) -> float:
        """How long a poll is held, in seconds, before `Settings.jitter` is applied."""
        return self._timeout

    def activate(self) -> Confirmation:
        """Serve comet requests again. Idempotent; clients reconnect by themselves."""
        _logger.info(
            "activate (was %s)",
            "active" if self._active else "inactive",
            extra=event("push.activated"),
        )
        return self._changes.make("active", True, lasting=True)

    def deactivate(self) -> Confirmation:
        """End every held connection, and answer further comet requests with 503. Idempotent.

        Sources are still read and `publish` still works. After `activate`, clients get the missed
        messages that the histories still hold.
        """
        _logger.warning(
            "deactivate (was %s)",
            "active" if self._active else "inactive",
            extra=event("push.deactivated"),
        )
        return self._changes.make("active", False, lasting=True)

    def set_timeout(self, seconds: float, reset: bool = False) -> Confirmation:
        """Change how long polls and registrations are held from now on.

        Args:
            seconds: More than 0, at most 3600.
            reset: `True` ends the polls and registrations that are held now, as at their timeout.
                `False` keeps their old timeout. Neither ends a stream or a WebSocket, which have no
                such timeout: use `deactivate` for these.

        Raises:
            TypeError: `seconds` is not a number. Nothing was changed.
            ValueError: `seconds` is out of range. Nothing was changed.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"expected a number of seconds, got {type(seconds).__name__}")
        if not 0 < seconds <= TIMEOUT_LIMIT:  # false for NaN
            raise ValueError(
                f"expected a timeout of more than 0 and at most {TIMEOUT_LIMIT:g} seconds, "
                f"got {seconds!r:.40}"
            )
        _logger.info(
            "set_timeout %g%s (was %g)",
            seconds,
            " KILL" if reset else "",
            self._timeout,
            extra=event("timeout.changed", seconds=seconds),
        )
        return self._changes.make("timeout", [float(seconds), reset], lasting=True)

    def command(self, line: str) -> Confirmation:
        """Run a line of the command language.

        Args:
            line: `activate`, `deactivate` or `set_timeout SECONDS [KILL]`, with or without the
                prefix `comet:`. `KILL` is `reset=True`. White space around the line is ignored.

        Raises:
            UnknownCommand: The line is anything else. Nothing was changed.
            ValueError: `SECONDS` is out of range. Nothing was changed.
        """
        found = _COMMAND.fullmatch(line.strip())
        if found is None:
            raise UnknownCommand(line)
        simple: dict[str | None, Callable[[], Confirmation]] = {
            "activate": self.activate,
            "deactivate": self.deactivate,
        }
        if found["word"] is not None:
            return simple[found["word"]]()
        try:
            seconds = float(found["seconds"])
        except ValueError:
            raise UnknownCommand(line) from None
        return self.set_timeout(seconds, reset=found["kill"] is not None)

    def _set_active(self, active: bool) -> None:
        self._active = active
        if not active:
            self._loop.run(lambda: self._fanout.end(Wake.DEACTIVATED))

    def _set_timeout(self, details: tuple[float, bool]) -> None:
        self._timeout, reset = details
        if reset:
            self._loop.run(lambda: self._fanout.end(Wake.TIMEOUT))


class Switch(Activation):
    """The switch as the transports use it; arguments as `Activation`."""

    def hold(self) -> float:
        """Return the seconds to hold one poll: the timeout with its jitter."""
        spread = (2 * random.random() - 1) * self._jitter  # noqa: S311 - spreads load, no secret
        return self._timeout * (1 + spread)
