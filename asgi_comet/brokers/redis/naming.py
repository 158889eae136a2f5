"""Names of channels: made, adopted and found in Redis.

Owns which channel a name stands for, and what happens if another channel has the name. Must not
know how a window is filled, nor how a connection is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from asgi_comet.brokers.logs import ChannelSpec, Opened
from asgi_comet.brokers.logs import Log as Window
from asgi_comet.brokers.redis.calls import IMPORTED, Log, fresh
from asgi_comet.brokers.redis.flusher import Flusher
from asgi_comet.brokers.redis.holding import Holding
from asgi_comet.brokers.redis.keys import ChannelKeys
from asgi_comet.brokers.redis.ownership import Ownership
from asgi_comet.brokers.redis.records import SITE, keys_of, log_of, spec_of, tell_taken
from asgi_comet.brokers.redis.replicas import Replica
from asgi_comet.brokers.redis.replies import Gone, Refused
from asgi_comet.brokers.redis.replies import Opened as Found
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import Serving
from asgi_comet.errors import ChannelClosed, CometError, NonUniqueChannelName, ProcessClosed

__all__ = ["Naming"]


class Naming:
    """The names of channels.

    Args:
        scripts: The scripts.
        serving: The connection.
        flusher: Runs scripts in order with the messages.
        holding: The channels of this worker.
        ownership: Makes fences.
        history_lives: How many milliseconds messages live without a new one; `None` for as long as
            the channel.
    """

    def __init__(
        self,
        scripts: Scripts,
        serving: Serving,
        flusher: Flusher,
        holding: Holding,
        ownership: Ownership,
        history_lives: int | None,
    ) -> None:
        self._scripts = scripts
        self._serving = serving
        self._flusher = flusher
        self._holding = holding
        self._ownership = ownership
        self._history_lives = history_lives

    async def find(self, name: str) -> ChannelSpec | None:
        """Return the properties of a site channel, if there is one, or was a moment ago."""
        record = await self._serving.ask(self._scripts.find(self._scripts.keys.site(name)))
        return None if record is None or record.kind not in SITE else spec_of(name, record)

    def adopt(self, window: Window, replica: Replica) -> None:
        """Record the channel of another worker that this worker has begun to follow."""
        if self._holding.find(replica.log) is None:
            self.learn(window, replica.keys, replica.making or "")
            if replica.ended is not None:
                self._holding.close(window, replica.ended)

    def learn(self, window: Window, keys: ChannelKeys, making: str) -> None:
        """Record a channel that another worker has made."""
        self._holding.learn(window, log_of(keys, window.spec, making, self._history_lives))

    async def open(self, window: Window, *, make: bool, owns: bool) -> Opened:
        """Make a channel, or adopt a channel that every worker makes.

        Args:
            window: The window of this worker.
            make: Whether to make the channel, if there is none.
            owns: Whether no other worker may own the channel.

        Raises:
            NonUniqueChannelName: Another channel has the name.
            ChannelClosed: There is no channel to adopt.
            ProcessClosed: The client process of the channel has closed.
        """
        if owns:
            await self._serving.connected()  # the worker has an id by then
        fence = self._ownership.make_fence() if owns else ""
        log, epoch = self._describe(window)
        call = self._scripts.open(
            log, epoch, owner=fence.rpartition(":")[0], fence=fence, make=make
        )
        # The application has made what every worker makes, and is not told of a refusal.
        asked = self._flusher.call(call, again=window.spec.adopt)
        held = self._holding.learn(window, log)
        held.owner, held.fence = fence.rpartition(":")[0], fence
        # Set before Redis answers: a message behind the call must not make the channel.
        held.error = None if make else partial(ChannelClosed, window.name, "ended")
        try:
            found = await asked
            held.error = _error_of(found, window.spec)
            if held.error is not None:
                raise held.error()
        except CometError:
            self._holding.close(window, "failed")
            raise
        assert isinstance(found, Found)  # noqa: S101 - else there is an error
        if owns:
            self._ownership.hold(log, window, fence)
        return Opened(found.epoch, found.first, found.top)

    def _describe(self, window: Window) -> tuple[Log, str]:
        """Return the properties of a channel, and the epoch if the channel is new."""
        spec = window.spec
        known = self._holding.find(window)
        # Pages may have references to a new channel, so its epoch is the epoch of the window.
        epoch = window.epoch if known is None else fresh()
        if known is not None and known.closed is None and spec.adopt:
            return known.log, epoch  # under which messages may be on their way
        keys = keys_of(self._scripts.keys, window)
        return log_of(keys, spec, IMPORTED if spec.adopt else fresh(), self._history_lives), epoch


def _error_of(found: Found | Gone | Refused, spec: ChannelSpec) -> Callable[[], CometError] | None:
    match found:
        case Refused("closed"):
            return partial(ProcessClosed, spec.owner or "")
        case Refused():
            return partial(NonUniqueChannelName, spec.name, tell_taken(spec, found.detail))
        case Gone():
            return partial(ChannelClosed, spec.name, "ended")
        case _:
            return None
