"""Where a start position leads a listener: what every transport with positions shares.

Owns which feed a name means for a client, and what the client is told of it beside messages. Must
not know how a transport writes that.

Source: docs/semantics.md#positions-and-epochs.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from asgi_comet.brokers.base import Closed, Full, Placed
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.core.messages import NEXT_INCARNATION, Notice, Position, Start
from asgi_comet.errors import BrokerUnavailable, CometError
from asgi_comet.http.exchange import Exchange
from asgi_comet.identity.process import ClientProcess
from asgi_comet.node.build import Hub
from asgi_comet.transports.access import NotYet, admits

__all__ = [
    "acknowledge",
    "ask",
    "find",
    "gap",
    "over",
    "subscribe",
    "subscribe_elsewhere",
    "unsubscribe",
]

_logger = logging.getLogger(__name__)


@contextmanager
def not_yet() -> Iterator[None]:
    """Have a client come back in a moment when the broker cannot be asked."""
    try:
        yield
    except BrokerUnavailable as error:
        _logger.warning("a client was told to come back: %s", error)
        raise NotYet("try again in a moment") from None


def subscribe(
    hub: Hub,
    process: ClientProcess | None,
    listener: Listener,
    channels: Mapping[str, Start],
) -> tuple[Sequence[Notice], Sequence[str]]:
    """Count a listener in on what it asks for.

    Args:
        hub: The rooms.
        process: Whose own channels it may ask for.
        listener: Who asks.
        channels: Where to begin, by name.

    Returns:
        What the client is to be told at once; and the names of site channels that are guarded, not
        known here, or of which only the broker can tell where to begin, for `subscribe_elsewhere`.
    """
    notices: Sequence[Notice] = ()  # mostly there is none of either: no list is made for nothing
    elsewhere: Sequence[str] = ()
    for name, start in channels.items():
        if name[:1] != "~":
            feed = hub.channels.find(name)
            if feed is None or feed.authorize is not None or not feed.proves(start):
                elsewhere = (*elsewhere, name)
                continue
            notice = _begin(hub, listener, feed, start)
        elif process is None:
            notice = Notice(name, "forbidden")
        else:
            process.read_by(listener)
            notice = _subscribe_own(hub, process, listener, name, start)
        if notice is not None:
            notices = (*notices, notice)
    return notices, elsewhere


async def subscribe_elsewhere(
    hub: Hub,
    exchange: Exchange,
    listener: Listener,
    name: str,
    start: Start,
    notices: Sequence[Notice],
) -> Sequence[Notice]:
    """Count a listener in on a site channel that is guarded, has still to start, or is elsewhere.

    Whether it may is asked before anybody looks whether the channel lives.

    Returns:
        The notices, and what the client is to be told of this one.

    Raises:
        NotYet: The application could not say whether it may.
    """
    if not await admits(hub, exchange, listener, name):
        notice: Notice | None = Notice(name, "forbidden")
    else:
        try:
            feed = await find(hub, listener, name)
        except CometError as error:
            hub.declarations.report(name, error)
            notice = Notice(name, "closed", reason="failed")
        else:
            if feed is None:
                declared = hub.declarations.match(name) is not None
                if not declared:
                    hub.declarations.report_unknown(name)
                notice = Notice(name, "closed", reason="ended" if declared else "unknown")
            elif feed.proves(start):
                notice = _begin(hub, listener, feed, start)
            else:
                notice = await _place(hub, listener, feed, start)
    return notices if notice is None else (*notices, notice)


async def find(hub: Hub, listener: Listener, name: str) -> Feed | None:
    """Return the feed of a site channel, wherever it is; one that is declared starts now.

    Args:
        hub: The rooms.
        listener: The connection that asks for it.
        name: The channel.

    Raises:
        CometError: There are too many channels.
        NotYet: The broker cannot say whether there is one.
    """
    feed = hub.channels.find(name) or hub.declarations.find(name, listener)
    with not_yet():
        if feed is None:
            feed = await hub.channels.adopt(name)
        if feed is not None:
            await hub.channels.follow(feed)
    return None if feed is None else feed.latest


def unsubscribe(hub: Hub, listener: Listener, names: Iterable[str]) -> None:
    """Count a listener out on channels; nothing happens where it is not on one."""
    gone = set(names)
    for feed in [feed for feed in listener.cursors if feed.name in gone]:
        feed.outcomes.leave(listener, listener.cursors[feed])
        hub.fanout.leave(listener, feed)
    for directory, name in listener.expected:
        if name in gone:
            directory.unexpect(name, listener)
    if listener.expected:
        listener.expected = tuple((d, name) for d, name in listener.expected if name not in gone)


def acknowledge(
    hub: Hub,
    process: ClientProcess | None,
    positions: Mapping[str, Position],
    listeners: Collection[Listener],
) -> None:
    """Take note of what a client has.

    A position that no longer means anything changes nothing: the client learns so when it asks.
    Nor does that of a guarded channel which the client does not follow: it may have lost the right.

    Args:
        hub: The rooms.
        process: Whose own channels it may acknowledge.
        positions: What it has, by name.
        listeners: The connections by which it follows channels.
    """
    for name, position in positions.items():
        if not name.startswith("~"):
            feed = hub.channels.find(name)
        else:
            feed = None if process is None else process.place.directory.find(name)
        if feed is not None and feed.readable and _may_acknowledge(feed, listeners):
            offset = feed.locate(position)
            if offset is not None:
                feed.acknowledge(offset)
                if feed.listeners:  # a client that has gone does not ask for more
                    ask(hub, feed)


def ask(hub: Hub, feed: Feed) -> None:
    """Have the source of an on-demand channel read as far as it may be."""
    if feed.want is not None:
        feed.want(feed.window)
    elif not feed.local:
        hub.broker.want(feed, feed.window)


def _may_acknowledge(feed: Feed, listeners: Collection[Listener]) -> bool:
    return feed.authorize is None or any(feed in listener.cursors for listener in listeners)


def gap(feed: Feed) -> Notice:
    """What is told to a listener whose next message is no longer held."""
    return Notice(feed.name, "full", feed.position(feed.history.top))


def over(feed: Feed) -> Notice:
    """What is told to a listener that has everything of a channel that is over."""
    if not feed.readable:
        return Notice(feed.name, "full")
    if feed.successor is not None:  # its source failed: nothing of the next incarnation is missed
        history = feed.latest.history
        return Notice(feed.name, "full", Position(history.epoch, history.first - 1))
    return Notice(feed.name, "closed", reason=feed.closed or "ended")


def _subscribe_own(
    hub: Hub, process: ClientProcess, listener: Listener, name: str, start: Start
) -> Notice | None:
    directory = process.place.directory
    relative = not isinstance(start, Position)
    if relative:
        directory.begin_anew(name)
    try:
        feed = directory.find(name) or hub.declarations.find_own(process, name)
    except CometError as error:
        hub.declarations.report(name, error)
        return Notice(name, "closed", reason="failed")
    if feed is not None:
        return _begin(hub, listener, feed, start)
    if not relative and (start != NEXT_INCARNATION or directory.is_past(name)):
        reason = "ended" if directory.is_past(name) else "unknown"
        return Notice(name, "closed", reason=reason)
    feed = directory.expect(name, listener)
    if feed is not None:  # another thread has made it in this very moment
        hub.fanout.begin(listener, feed)
    return Notice(name, position=NEXT_INCARNATION) if relative else None


async def _place(hub: Hub, listener: Listener, feed: Feed, start: Start) -> Notice | None:
    """Place a listener where the broker says, which has messages that this worker has not."""
    with not_yet():
        placed = await hub.broker.place(feed, start)
    feed = feed.latest
    if isinstance(placed, Placed):
        hub.fanout.attach(listener, feed)
        listener.cursors[feed] = placed.after
        named = isinstance(start, Position)
        return None if named else Notice(feed.name, position=feed.position(placed.after))
    if isinstance(placed, Full):
        return gap(feed)
    reason = placed.reason if isinstance(placed, Closed) else "unknown"
    return Notice(feed.name, "closed", reason=reason)


def _begin(hub: Hub, listener: Listener, feed: Feed, start: Start) -> Notice | None:
    """Place a listener on a feed, and return what this alone makes it told, if anything."""
    hub.fanout.attach(listener, feed)  # first: what is published from now on wakes it
    if not feed.readable:
        return None  # it is over, as the listener will see when it reads
    offset = feed.locate(start)
    if offset is None:
        hub.fanout.leave(listener, feed)
        return gap(feed)
    listener.cursors[feed] = offset
    relative = not isinstance(start, Position)
    if relative:
        feed.mark_sent(offset)  # the client does not ask for what is before, so that may go
    else:
        feed.acknowledge(offset)
    if listener.stays or not relative:
        ask(hub, feed)
    return Notice(feed.name, position=feed.position(offset)) if relative else None
