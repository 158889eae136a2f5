"""Subscribing at a start position, for every transport with positions.

Owns which feed a name means for a client, and the notices that a client gets beside messages. Must
not know how a transport writes a notice.

Source: docs/semantics.md#positions-and-epochs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from asgi_comet.brokers.logs import Closed, Full, Placed, Unknown
from asgi_comet.brokers.people import Found
from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.core.messages import NEXT_INCARNATION, Notice, Start
from asgi_comet.errors import ChannelClosed, CometError
from asgi_comet.http.exchange import Exchange
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.position import Position
from asgi_comet.transports import counting
from asgi_comet.transports.access import admits, find_guard
from asgi_comet.transports.claiming import NOT_STARTED, claim
from asgi_comet.transports.postponing import TryAgain, not_yet

__all__ = [
    "acknowledge",
    "admit",
    "ask",
    "ending",
    "gap",
    "subscribe",
    "subscribe_rest",
    "unsubscribe",
]

TRIES = 3  # to locate a position in a channel whose epoch changes meanwhile


def subscribe(
    node: Node,
    process: Client | None,
    listener: Listener,
    channels: Mapping[str, Start],
) -> tuple[Sequence[Notice], Sequence[str]]:
    """Subscribe a listener to the channels of a request, as far as that needs no wait.

    Args:
        node: The parts of the Comet.
        process: The client process whose own channels the client may name, if any.
        listener: The listener of the request.
        channels: The start positions by name.

    Returns:
        The notices for the client; and the names that `subscribe_rest` has to subscribe to: of site
        channels that are guarded, not known here, or whose start only the broker can find, and of
        own channels that any worker may have.
    """
    notices: Sequence[Notice] = ()  # mostly both stay empty, so no list is made
    elsewhere: Sequence[str] = ()
    for name, start in channels.items():
        if name[:1] != "~":
            feed = node.channels.find(name)
            if feed is None or feed.outlived:
                elsewhere = (*elsewhere, name)
                continue
            if feed.authorize is not None or not feed.proves(start):
                elsewhere = (*elsewhere, name)
                continue
            notice = _begin(node, listener, feed, start)
        elif process is None:
            notice = Notice(name, "forbidden")
        elif node.broker.shared:
            elsewhere = (*elsewhere, name)
            continue
        else:
            process.read_by(listener)
            notice = _subscribe_own(node, process, listener, name, start)
        if notice is not None:
            notices = (*notices, notice)
    return notices, elsewhere


async def subscribe_rest(
    node: Node,
    exchange: Exchange,
    process: Client | None,
    listener: Listener,
    channels: Mapping[str, Start],
) -> list[Notice]:
    """Subscribe a listener to the channels that `subscribe` has left.

    The right to a site channel is checked first, so that a refused client does not learn whether
    the channel exists.

    Args:
        node: The parts of the Comet.
        exchange: The request.
        process: The client process whose own channels the client may name, if any.
        listener: The listener of the request.
        channels: The start positions by name.

    Returns:
        The notices for the client.

    Raises:
        TryAgain: The application or the broker could not tell.
        ProcessGone: The client process has closed.
    """
    notices: list[Notice | None] = []
    own = {name: start for name, start in channels.items() if name[:1] == "~"}
    if own and process is not None:
        found = await claim(node, exchange, process, listener, own)
        if process.reader is listener:  # else the client is told only that another one reads
            notices += [_join(node, process, listener, one, found[one[0]]) for one in own.items()]
    for name, start in channels.items():
        if name not in own:
            notices.append(await _subscribe_site(node, exchange, listener, name, start))
    return [notice for notice in notices if notice is not None]


async def _subscribe_site(
    node: Node, exchange: Exchange, listener: Listener, name: str, start: Start
) -> Notice | None:
    """Subscribe to a site channel that is guarded, has still to start, or is elsewhere."""
    notice: Notice | None
    try:
        admitted, feed = await admit(node, exchange, listener, name)
    except CometError as error:
        node.declarations.report(name, error)
        notice = Notice(name, "closed", reason="failed")
    else:
        if not admitted:
            notice = Notice(name, "forbidden")
        elif feed is None:
            notice = _missing(node, name)
        elif feed.proves(start):
            notice = _begin(node, listener, feed, start)
        else:
            notice = await _place(node, listener, feed, start)
    return notice


def _missing(node: Node, name: str) -> Notice:
    declared = node.declarations.match(name) is not None
    if not declared and node.broker.mixed:
        raise TryAgain("another worker may know the channel: try again in a moment")
    if not declared:
        node.declarations.report_unknown(name)
    return Notice(name, "closed", reason="ended" if declared else "unknown")


async def admit(
    node: Node, exchange: Exchange, listener: Listener, name: str
) -> tuple[bool, Feed | None]:
    """Return whether a connection may read a site channel, and the feed; a declared one starts now.

    Args:
        node: The parts of the Comet.
        exchange: The request.
        listener: The connection.
        name: The channel.

    Raises:
        CometError: There are too many channels.
        TryAgain: The application or the broker could not tell; or the rule changes all the time.
    """
    feed: Feed | None = None
    for _ in range(2):
        guard = await find_guard(node, name)
        if not await admits(node, exchange, listener, name, guard):
            return False, None
        # When it has just ended, a worker may have made another one, which has another rule.
        with suppress(ChannelClosed):
            feed = await _find(node, listener, name)
            if feed is None or node.guard.holds(guard, feed):
                return True, feed
    if feed is not None:
        raise TryAgain("try again in a moment")
    return True, None


async def _find(node: Node, listener: Listener, name: str) -> Feed | None:
    with not_yet():
        feed = node.channels.find(name) or node.declarations.find(name, listener)
        if feed is None:
            return None
        await node.channels.sharing.follow(feed)
        return feed.latest


def unsubscribe(node: Node, listener: Listener, names: Iterable[str]) -> None:
    """Unsubscribe a listener from channels; names that it does not follow are ignored."""
    gone = set(names)
    for feed in [feed for feed in listener.cursors if feed.name in gone]:
        feed.outcomes.leave(listener, listener.cursors[feed])
        node.fanout.leave(listener, feed)
    for directory, name in listener.expected:
        if name in gone:
            directory.unexpect(name, listener)
    if listener.expected:
        listener.expected = tuple((d, name) for d, name in listener.expected if name not in gone)


def acknowledge(
    node: Node,
    process: Client | None,
    positions: Mapping[str, Position],
    listeners: Collection[Listener],
) -> None:
    """Acknowledge the messages that a client has.

    An outdated position is ignored; the client is told with its next request. So is the position of
    a guarded channel that the client does not follow: the client may have lost the right.

    Args:
        node: The parts of the Comet.
        process: The client process whose own channels the client may acknowledge, if any.
        positions: The last positions that the client has, by name.
        listeners: The connections of the client.
    """
    elsewhere: dict[str, Position] = {}
    for name, position in positions.items():
        if not name.startswith("~"):
            feed = node.channels.find(name)
        else:
            feed = None if process is None else process.place.directory.find(name)
            if node.broker.shared and not (feed and feed.live and feed.proves(position)):
                elsewhere[name] = position
                continue
        if feed is not None and feed.readable and _may_acknowledge(feed, listeners):
            offset = feed.locate(position)
            if offset is not None:
                feed.acknowledge(offset)
                if feed.sample is not None:
                    feed.sample.acknowledged(offset, node.clock.now(), listeners)
                if feed.listeners:  # a client that has gone does not ask for more
                    ask(node, feed)

    if elsewhere and process is not None and node.broker.people is not None:
        node.broker.people.acknowledge(process.id, elsewhere)


def ask(node: Node, feed: Feed) -> None:
    """Have the source of an on-demand channel read up to the end of its window."""
    if feed.want is not None:
        feed.want(feed.window)


def _may_acknowledge(feed: Feed, listeners: Collection[Listener]) -> bool:
    return feed.authorize is None or any(feed in listener.cursors for listener in listeners)


def gap(feed: Feed, start: Start | None = None) -> Notice:
    """Return the notice for a listener whose next message after `start` is no longer held."""
    counting.missed(feed, start)
    top = feed.history.top
    feed.skip(top)
    return Notice(feed.name, "full", feed.position(top))


def ending(feed: Feed) -> Notice:
    """Return the notice for a listener that has everything of a channel that has ended."""
    counting.ended(feed)
    if not feed.readable:
        return Notice(feed.name, "full")
    if feed.successor is not None:  # its source failed: nothing of the next incarnation is missed
        latest = feed.latest
        offset = max(latest.began, latest.first - 1)
        if offset > latest.began:
            latest.skip(offset)
        return Notice(feed.name, "full", latest.position(offset))
    return Notice(feed.name, "closed", reason=feed.closed or "ended")


def _subscribe_own(
    node: Node, process: Client, listener: Listener, name: str, start: Start
) -> Notice | None:
    directory = process.place.directory
    relative = not isinstance(start, Position)
    if relative:
        directory.begin_anew(name)
    try:
        feed = directory.find(name) or node.declarations.find_own(process, name)
    except CometError as error:
        node.declarations.report(name, error)
        return Notice(name, "closed", reason="failed")
    if feed is not None:
        return _begin(node, listener, feed, start)
    return _expect(node, directory, listener, name, start)


def _expect(
    node: Node, directory: Directory, listener: Listener, name: str, start: Start
) -> Notice | None:
    """Wait for a channel that does not exist yet, unless the client has missed one."""
    relative = not isinstance(start, Position)
    if not relative and (start != NEXT_INCARNATION or directory.is_past(name)):
        reason = "ended" if directory.is_past(name) else "unknown"
        return Notice(name, "closed", reason=reason)
    feed = directory.expect(name, listener)
    if feed is not None:  # another thread made the channel at this moment
        node.fanout.begin(listener, feed)
    return Notice(name, position=NEXT_INCARNATION) if relative else None


def _join(
    node: Node, process: Client, listener: Listener, asked: tuple[str, Start], found: Found
) -> Notice | None:
    """Place a listener on an own channel as the broker has found it."""
    name, start = asked
    if found is NOT_STARTED:
        return Notice(name, "closed", reason="failed")
    feed = found.window
    if feed is None:
        return _expect(node, process.place.directory, listener, name, start)
    assert isinstance(feed, Feed)  # noqa: S101 - a broker fills the windows that it was given
    node.fanout.attach(listener, feed)
    if not feed.readable:
        return None  # reading finds the end
    feed.learn(found.progress)
    match found.start:
        case Placed(after, epoch) if epoch == feed.epoch:
            return _set_out(node, listener, feed, start, after)
        case Closed() if feed.closed is not None:
            return _set_out(node, listener, feed, start, feed.top)  # reading finds the end
    node.fanout.leave(listener, feed)
    counting.resumed(node, listener, feed, start, None)
    return gap(feed.latest, start)


def _set_out(
    node: Node, listener: Listener, feed: Feed, start: Start, offset: int
) -> Notice | None:
    """Set where a listener of an own channel begins; return the notice for the client, if any."""
    listener.cursors[feed] = offset
    counting.resumed(node, listener, feed, start, offset, held=True)
    relative = not isinstance(start, Position)
    if not relative:
        feed.confirm(offset)  # the broker has the position
    elif feed.kind.on_demand:
        feed.acknowledge(offset)  # only the store knows how far the client was before
    else:
        feed.skip(offset)  # the client acknowledges this offset, but does not get what is before
        feed.mark_sent(offset)  # the client does not ask for older messages, so they may go
    if listener.stays or not relative:
        ask(node, feed)
    return Notice(feed.name, position=feed.position(offset)) if relative else None


async def _locate(node: Node, feed: Feed, start: Start) -> Placed | Full | Closed | Unknown:
    """Locate a start position in the newest incarnation of a channel."""
    for _ in range(TRIES):
        placed = await node.broker.place(feed.latest, start)
        if not isinstance(placed, Placed) or placed.epoch == feed.latest.epoch:
            return placed
    return Full()


async def _place(node: Node, listener: Listener, feed: Feed, start: Start) -> Notice | None:
    """Place a listener where the broker says, because the broker has more than this worker."""
    with not_yet():
        placed = await _locate(node, feed, start)
    feed = feed.latest
    if isinstance(placed, Placed):
        node.fanout.attach(listener, feed)
        listener.cursors[feed] = placed.after
        counting.resumed(node, listener, feed, start, placed.after, held=True)
        named = isinstance(start, Position)
        return None if named else Notice(feed.name, position=feed.position(placed.after))
    if isinstance(placed, Full):
        counting.resumed(node, listener, feed, start, None)
        return gap(feed, start)
    reason = placed.reason if isinstance(placed, Closed) else "unknown"
    return Notice(feed.name, "closed", reason=reason)


def _begin(node: Node, listener: Listener, feed: Feed, start: Start) -> Notice | None:
    """Place a listener on a feed, and return the notice for the client, if any."""
    node.fanout.attach(listener, feed)  # first, so that a message from now on wakes it
    if not feed.readable:
        return None  # reading finds the end
    offset = feed.locate(start)
    counting.resumed(node, listener, feed, start, offset)
    if offset is None:
        node.fanout.leave(listener, feed)
        return gap(feed, start)
    listener.cursors[feed] = offset
    relative = not isinstance(start, Position)
    if relative:
        feed.skip(offset)
        feed.mark_sent(offset)  # the client does not ask for older messages, so they may go
    else:
        feed.acknowledge(offset)
    if listener.stays or not relative:
        ask(node, feed)
    return Notice(feed.name, position=feed.position(offset)) if relative else None
