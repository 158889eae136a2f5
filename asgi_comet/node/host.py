"""What a broker may call: it fills windows, and tells what has become of a channel.

Owns nothing: it hands on to the rooms. Must not know how a broker carries messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.brokers.base import Log
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.registry import Registry
from asgi_comet.core.history import Received
from asgi_comet.core.messages import Message

__all__ = ["RoomsHost"]


class RoomsHost:
    """The rooms of one worker, as a broker sees them.

    Args:
        registry: Where channels live.
        fanout: Who is woken.
        runtime: Where the broker runs.
    """

    def __init__(self, registry: Registry, fanout: Fanout, runtime: Runtime) -> None:
        self._registry = registry
        self._runtime = runtime
        self._fanout = fanout

    def now(self) -> float:
        """Return what time it is."""
        return self._runtime.clock.now()

    def run_soon(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's next turn."""
        self._runtime.loop.run_soon(function)

    def appended(self, log: Log) -> None:
        """Wake the listeners of a window that has a new message."""
        self._fanout.appended(_feed(log))

    def received(self, log: Log, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Offer messages to a window, and wake its listeners."""
        received = log.receive(epoch, first, run)
        if received is Received.APPENDED:
            self._fanout.mark(_feed(log))
        return received

    def moved(self, log: Log, epoch: str, first: int) -> Log:
        """Tell the readers of a window `full`; return the window of the other epoch."""
        return self._registry.renew(_feed(log), epoch, first)

    def cut(self, log: Log, first: int) -> None:
        """Let a window begin anew: readers that have not what comes before are told `full`."""
        log.reset(log.epoch, first)
        self._fanout.mark(_feed(log))

    def ended(self, log: Log, reason: str) -> None:
        """End a channel that has ended elsewhere."""
        self._registry.end(_feed(log), reason, tell=False)

    def wanted(self, log: Log, offset: int) -> None:
        """Have the source of a channel read as far as a reader elsewhere asks."""
        feed = _feed(log)
        if feed.want is not None:
            feed.want(offset)


def _feed(log: Log) -> Feed:
    if not isinstance(log, Feed):
        raise TypeError(f"expected a log of this worker, got {type(log).__name__}")
    return log
