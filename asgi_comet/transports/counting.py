"""Counting by the transports, for the figures: resumes, gaps, acknowledgements and deliveries.

Owns which of the fixed values of docs/watching.md a thing that happens to a client is. Must not
know the bytes of a transport, nor change what a client gets.
"""

from __future__ import annotations

from collections.abc import Iterable

from asgi_comet._runtime.counters import TransportCounters
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.core.messages import NEXT_INCARNATION, Start
from asgi_comet.http.exchange import Exchange
from asgi_comet.node.build import Node
from asgi_comet.position import Position
from asgi_comet.transports.reading import Run

__all__ = ["delivered", "ended", "missed", "resumed", "transport_of"]


def transport_of(node: Node, exchange: Exchange) -> TransportCounters:
    """Return the counts of the transport of a request."""
    counters = node.runtime.counters
    return counters.transports.get(exchange.transport or "", counters.uncounted)


def delivered(node: Node, listener: Listener, runs: Iterable[Run]) -> None:
    """Count the messages of an answer."""
    for run in runs:
        listener.counters.delivered += run.chunk.count
        listener.counters.delivered_bytes += run.size
    listener.count_delivery(node.clock.now())


def resumed(
    node: Node,
    listener: Listener,
    feed: Feed,
    start: Start,
    offset: int | None,
    *,
    held: bool = False,
) -> None:
    """Count that a client goes on from a position, and has what is before; no new start counts.

    Args:
        node: The parts of the Comet.
        listener: The connection.
        feed: The channel.
        start: Where the client asked to start.
        offset: The offset after which the client starts; `None` if the client is told `full`.
        held: Whether all messages after the offset are held, at the broker if not here.
    """
    if not isinstance(start, Position) or start == NEXT_INCARNATION:
        return
    counters, history = node.runtime.counters, feed.history
    if offset is None or not (held or feed.kind.only_last or offset >= history.first - 1):
        counters.resumes["full"] += 1
        return
    if offset >= history.top:
        counters.resumes["nothing"] += 1
    else:
        counters.resumes["complete"] += 1
        counters.replayed.observe(1 if feed.kind.only_last else history.top - offset)
    if feed.sample is not None and not listener.stays:
        feed.sample.returned(offset, node.clock.now(), listener.counters)


def missed(feed: Feed, start: Start | None = None) -> None:
    """Count that a client is told `full`, because messages are no longer held.

    Args:
        feed: The channel.
        start: The position that the client asked for; `None` if it has begun already.
    """
    other = isinstance(start, Position) and (start.epoch != feed.epoch or start.offset > feed.top)
    feed.counters.miss("epoch" if other else "displaced")


def ended(feed: Feed) -> None:
    """Count that a client is told `full` by the end of a channel, if the end is told so."""
    if not feed.readable:
        feed.counters.miss("overflow")
    elif feed.successor is not None:
        feed.counters.miss("restarted")
