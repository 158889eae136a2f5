"""The figures that take a look at each channel and each listener: histories, members, lag.

Must not know the names of figures. Thread-safe: all tables are copied before the walk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from asgi_comet._runtime.counters import ChannelCounters
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.kind import Kind
from asgi_comet.node.build import Node

__all__ = ["Held", "Walk", "walk"]


@dataclass(slots=True)
class Held:
    """The messages that the channels of one label hold.

    Attributes:
        live: The live channels.
        messages: The messages in the histories.
        bytes: The bytes of these.
        lag: How many messages the furthest reader is behind.
    """

    live: int = 0
    messages: int = 0
    bytes: int = 0
    lag: int = 0


@dataclass(frozen=True, slots=True)
class Walk:
    """The result of one look.

    Attributes:
        held: The messages that channels hold, by the label of their counters.
        kinds: The live channels, by kind.
    """

    held: dict[str, Held]
    kinds: dict[str, int]


def walk(node: Node) -> Walk:
    """Look at all channels and listeners of a worker: at 10,000 channels, a few milliseconds."""
    held: defaultdict[ChannelCounters, Held] = defaultdict(Held)
    kinds = dict.fromkeys((id(kind) for kind in Kind), 0)  # an enumeration's own hash is slow
    counters, one = None, Held()
    for feed in _feeds(node):
        if feed.counters is not counters:  # seldom: most channels are members of few families
            counters = feed.counters
            one = held[counters]
        history = feed.history
        one.messages += history.top - history.first + 1
        one.bytes += history.bytes
        if feed.closed is None:
            one.live += 1
            kinds[id(feed.kind)] += 1
    for listener in list(node.fanout.listeners):
        for feed, cursor in list(listener.cursors.items()):
            lag = feed.history.top - cursor
            if lag > 0:
                one = held[feed.counters]
                one.lag = max(one.lag, 1 if feed.kind.only_last else lag)
    by_label = {counters.label: one for counters, one in held.items()}
    return Walk(by_label, {kind.value: kinds[id(kind)] for kind in Kind})


def _feeds(node: Node) -> Iterator[Feed]:
    yield from node.channels.site.directory.feeds()
    for process in node.clients.processes():
        yield from process.place.directory.feeds()
