"""The functions that a broker may call: to fill windows and to report changes of channels.

Owns nothing: calls are passed to the other parts. Must not know how a broker carries messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.brokers.logs import Log
from asgi_comet.brokers.people import Limits, PeopleHost
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.registry import Registry
from asgi_comet.core.history import Received
from asgi_comet.core.messages import Message

__all__ = ["RoomsHost"]


class RoomsHost:
    """One worker, as a broker uses it.

    Args:
        registry: The channels.
        fanout: Wakes listeners.
        runtime: Runs the broker.
        people: The sessions and client processes of this worker.

    Attributes:
        answers: The answer to each kind of question, given its details; both have a JSON form.
    """

    def __init__(
        self, registry: Registry, fanout: Fanout, runtime: Runtime, people: PeopleHost
    ) -> None:
        self._people = people
        self._registry = registry
        self._runtime = runtime
        self._fanout = fanout
        self.answers: dict[str, Callable[[Any], Any]] = {}

    @property
    def heartbeat(self) -> float:
        """After how many seconds without a heartbeat the others take a worker for dead."""
        return self._registry.heartbeat

    @property
    def digest(self) -> str:
        """The same for workers that declare the same names."""
        return self._registry.reserved.digest

    @property
    def limits(self) -> Limits:
        """The bounds of client processes."""
        return self._registry.limits

    @property
    def people(self) -> PeopleHost:
        """The sessions and client processes of this worker."""
        return self._people

    def now(self) -> float:
        """Return the time of the clock, in seconds."""
        return self._runtime.clock.now()

    def run_soon(self, function: Callable[[], None]) -> None:
        """Run a function in the loop's next turn."""
        self._runtime.loop.run_soon(function)

    def appended(self, log: Log) -> None:
        """Wake the listeners of a window with a new message."""
        self._fanout.appended(_feed(log))

    def received(self, log: Log, epoch: str, first: int, run: Sequence[Message]) -> Received:
        """Add messages to a window, and wake its listeners."""
        received = log.receive(epoch, first, run)
        if received is Received.APPENDED:
            self._fanout.appended(_feed(log))
        return received

    def moved(self, log: Log, epoch: str, first: int, began: int) -> Log:
        """Tell the readers of a window `full`; return the window of the other epoch."""
        return self._registry.renew(_feed(log), epoch, first, began)

    def cut(self, log: Log, first: int) -> None:
        """Empty a window, which restarts at an offset; readers that are behind are told `full`."""
        log.reset(log.epoch, first)
        self._fanout.mark(_feed(log))

    def ended(self, log: Log, reason: str) -> None:
        """End a channel that has ended elsewhere; one with listeners is not unused."""
        feed = _feed(log).latest
        if reason == "unused" and feed.listeners and feed.adopt:
            self._registry.open_again(feed)
        else:
            keep = reason != "unused"  # else the next client opens the channel afresh
            self._registry.ending.end(feed, reason if keep else "ended", keep=keep, tell=False)

    def owned(self, log: Log, newest: Message | None) -> None:
        """Have the source of a channel read."""
        feed = _feed(log).latest
        if feed.right is not None:
            feed.right.give(newest)
        if feed.demand is not None and feed.listeners:  # their requests may have reached no owner
            feed.demand(feed.window)

    def disowned(self, log: Log) -> None:
        """Have the source of a channel closed."""
        right = _feed(log).right
        if right is not None:
            right.take()

    def in_use(self, log: Log) -> bool:
        """Return whether a channel has listeners, or the application has used it."""
        feed = _feed(log).latest
        return bool(feed.listeners) or feed.used_at + feed.linger > self.now()

    def answer(self, question: str) -> str:
        """Answer a question, whose first word says what is asked."""
        kind, details = json.loads(question)
        answers = self.answers.get(kind)
        return json.dumps(None if answers is None else answers(details))

    def wanted(self, log: Log, offset: int) -> None:
        """Read the source of a channel as far as a reader in another worker asks.

        The reader asks for as many messages as the channel holds after the acknowledged one.
        """
        feed = _feed(log)
        if feed.owner is not None:
            feed = feed.latest
            feed.confirm(offset - feed.history.size)  # all that the reader leaves out of its window
        feed.wished = max(feed.wished, offset)  # a thread may be about to make the demand
        if feed.demand is not None:
            feed.demand(offset)


def _feed(log: Log) -> Feed:
    if not isinstance(log, Feed):
        raise TypeError(f"expected a log of this worker, got {type(log).__name__}")
    return log
