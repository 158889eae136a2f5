"""The transport of the registration protocol: hold a request on many channels, answer once.

Owns the table of docs/wire.md#registration. A request is one listener for all channels it names.
For a client process the server keeps the client's positions, so that no message is lost between two
requests; otherwise there are no positions, as in the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Encoder, Feed, Listener, Wake
from asgi_comet.errors import CometError
from asgi_comet.http.exchange import TEXT, Exchange, answer, read_body
from asgi_comet.identity.process import Client, Registered
from asgi_comet.node.build import Node
from asgi_comet.protocol.registration import (
    decode_number,
    decode_registration,
    encode_ended,
    encode_messages,
    spellings,
)
from asgi_comet.transports.access import (
    OWN_CHANNELS,
    ProcessGone,
    admits,
    default_process,
    recognise,
    require_people,
)
from asgi_comet.transports.answers import Taken, recover, send_off, settle, take
from asgi_comet.transports.checking import check_waiting
from asgi_comet.transports.held import Farewell, Hold, ended, make_hold
from asgi_comet.transports.reading import Run
from asgi_comet.transports.registered import acknowledge, claim, keep, merge, repeat
from asgi_comet.transports.subscribing import ask, find

__all__ = ["registration"]

FAREWELL = Farewell(TEXT, replaced=b"", moved=b"")


async def registration(node: Node, process: Client | None, exchange: Exchange) -> None:
    """Serve one request of type `application/x-ocsigen-comet`.

    Args:
        node: The parts of the Comet.
        process: The client process of the endpoint; `None` at the site's endpoint.
        exchange: The request.

    Raises:
        Refusal: The answer is an error.
        ProcessGone: The client process closed while the request was held.
        ClientGone: The client has disconnected.
    """
    body = await read_body(node, exchange)
    identifiers = decode_registration(body, node.settings.max_channels_per_request)
    check_waiting(node)
    if process is None:
        await _serve_here(node, exchange, identifiers)
    elif process.closed:
        raise ProcessGone
    else:
        await _serve_process(node, process, _Request(identifiers, decode_number(body)), exchange)


@dataclass(frozen=True, slots=True)
class _Request:
    identifiers: list[str]
    number: str | None


@dataclass(slots=True)
class _Found:
    """The channels that identifiers name.

    Attributes:
        feeds: Channels that are live or still readable.
        missing: Names of channels of the client process that do not exist yet.
        unknown: Names without a channel.
    """

    feeds: list[Feed] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Asking:
    identifiers: list[str]
    hold: Hold
    exchange: Exchange


async def _look_up(node: Node, process: Client | None, asking: _Asking) -> _Found:
    """Find the channels of a request; again if the client lost a right meanwhile."""
    while True:
        revoked = node.guard.revoked
        found = await _look_up_once(node, process, asking)
        if revoked == node.guard.revoked:
            return found


async def _look_up_once(node: Node, process: Client | None, asking: _Asking) -> _Found:
    found = _Found()
    seen: set[Feed] = set()
    for identifier in asking.identifiers:
        feed = await _find(node, process, asking, identifier)
        if feed is None:
            name = next(spellings(identifier))
            own = process is not None and name.startswith("~")
            (found.missing if own else found.unknown).append(name)
        elif feed not in seen:
            seen.add(feed)
            found.feeds.append(feed)
    return found


async def _find(
    node: Node, process: Client | None, asking: _Asking, identifier: str
) -> Feed | None:
    for name in dict.fromkeys(spellings(identifier)):  # most identifiers have only one spelling
        feed: Feed | None = None
        try:
            if not name.startswith("~"):
                if await admits(node, asking.exchange, asking.hold, name):
                    feed = await find(node, asking.hold, name)
            elif process is not None:
                directory = process.place.directory
                feed = directory.find(name) or node.declarations.find_own(process, name)
        except CometError as error:
            node.declarations.report(name, error)
        if feed is not None:
            return feed
    return None


# Without positions


async def _serve_here(node: Node, exchange: Exchange, identifiers: list[str]) -> None:
    own = any(next(spellings(identifier)).startswith("~") for identifier in identifiers)
    if own:
        require_people(node, OWN_CHANNELS)
    if b"cookie" in exchange.headers:
        await recognise(node, exchange)
    process = default_process(node, exchange) if own else None
    hold, found, taken = make_hold(node, exchange, process, process), _Found(), Taken()
    with hold:
        if process is not None:
            process.read_by(hold)
        found = await _look_up(node, process, _Asking(identifiers, hold, exchange))
        for feed in found.feeds:
            node.fanout.attach(hold, feed)
        if process is not None:
            _read_own(node, process, hold, found)
        why = hold.why(await _hold(hold, at_once=bool(found.unknown)))
        if why in (Wake.MESSAGE, Wake.TIMEOUT):
            taken = take(hold, _encoder, None) or taken  # all: the rest would be lost
    handed = False
    try:
        if not await hold.farewell(why, FAREWELL):
            pairs = [*_pairs(hold, taken), *map(encode_ended, [*found.unknown, *_lost(hold)])]
            handed = await answer(node, exchange, TEXT, _join(pairs))
    finally:
        for run in taken.runs if handed else ():
            run.feed.outcomes.confirm(run.after, run.upto)
        settle(hold, handed)


def _read_own(node: Node, process: Client, hold: Listener, found: _Found) -> None:
    for name in found.missing:
        _expect(node, hold, process.place.directory, name)
    for feed, offset in hold.cursors.items():
        if feed.directory is process.place.directory:
            feed.mark_sent(offset)  # older messages are not for this request and may be dropped
            if feed.want is not None:
                feed.acknowledge(offset)  # for the same reason
                ask(node, feed)


def _expect(node: Node, hold: Listener, directory: Directory, name: str) -> None:
    feed = directory.expect(name, hold)
    if feed is not None:  # another thread made the channel at this moment
        node.fanout.begin(hold, feed)


# With positions that the server keeps


async def _serve_process(
    node: Node, process: Client, request: _Request, exchange: Exchange
) -> None:
    kept = claim(node, process, request.identifiers)
    if request.number is not None and request.number == kept.number and kept.answer is not None:
        process.connect()
        try:
            await answer(node, exchange, TEXT, await repeat(node, kept))
        finally:
            process.disconnect()
        return
    acknowledge(kept)
    hold, told = make_hold(node, exchange, process, process), list[str]()
    with hold:
        process.read_by(hold)
        found = await _look_up(node, process, _Asking(request.identifiers, hold, exchange))
        why, taken = ended(hold), Taken()
        if why is None:
            told = _place(node, process, hold, found)
            why = await _hold(hold, at_once=bool(told))
            taken = take(hold, _encoder, node.settings.answer_bytes) or taken
            if taken.gaps:
                await recover(node, hold, taken, _encoder)
            why = hold.why(why)
    handed = False
    try:
        if not await hold.farewell(why, FAREWELL):
            send_off(taken)
            told += _lost(hold)
            pairs = [*_pairs(hold, taken), *map(encode_ended, told)]
            keep(kept, request.number, pairs, taken)
            handed = await answer(node, exchange, TEXT, _join(pairs))
    finally:
        settle(hold, handed)


def _place(node: Node, process: Client, hold: Listener, found: _Found) -> list[str]:
    """Count a listener in on feeds, each from where its client is.

    Returns:
        The names of the channels that have ended for the client.
    """
    kept = process.registered or Registered()
    directory = process.place.directory
    known = {feed.name for feed in kept.cursors} | kept.lost.keys()
    closed = list(found.unknown)
    for feed in found.feeds:
        node.fanout.attach(hold, feed)
        cursor = kept.cursors.get(feed)
        if cursor is None and feed.name in known:  # another incarnation: messages between are lost
            node.fanout.leave(hold, feed)
            closed.append(feed.name)
            continue
        if cursor is None:
            own = feed.directory is directory
            cursor = feed.history.first - 1 if own else feed.history.top
            if feed.name in kept.expected:
                cursor = 0
        hold.cursors[feed] = cursor
        ask(node, feed)
    for name in found.missing:
        if name in known or (name in kept.expected and directory.is_past(name)):
            closed.append(name)
        else:
            directory.begin_anew(name)
            _expect(node, hold, directory, name)
    kept.expected = {name for _, name in hold.expected}
    told = set(closed)
    kept.lost = {name: None for name in kept.lost if name not in told}
    kept.cursors = {f: c for f, c in kept.cursors.items() if f.name not in told}
    merge(node, kept, hold)
    return closed


# Both


def _encoder(feed: Feed) -> Encoder:
    """Return the encoder, the same for every channel."""
    return encode_messages


async def _hold(hold: Hold, *, at_once: bool) -> Wake:
    at_once = at_once or hold.exchange.renew is not None
    for feed, cursor in hold.cursors.items():
        if feed.closed is not None or feed.history.top != cursor:
            at_once = True
    if at_once and hold.woken is None:
        hold.woken = Wake.TIMEOUT
    return await hold.wait(hold.exchange.receive)


def _lost(hold: Hold) -> list[str]:
    """Return the names of channels that the client may no longer read."""
    return [notice.channel for notice in hold.forbidden]


def _pairs(hold: Listener, taken: Taken) -> Iterator[Run | bytes]:
    """Yield pairs in the order of the request: messages, then the end of the channel, if any."""
    runs = {run.feed: run for run in taken.runs}
    closed = {*taken.gaps, *taken.ended}
    for feed in hold.cursors:
        if feed in runs:
            yield runs[feed]
        if feed in closed:
            yield encode_ended(feed.name)


def _join(pairs: list[Run | bytes]) -> bytes:
    return b"\n".join([pair.data if isinstance(pair, Run) else pair for pair in pairs])
