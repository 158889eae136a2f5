"""The transport of the registration protocol: hold a request on many channels, answer once.

Owns the table of docs/wire.md#registration.
A request is one listener, however many channels it names.
At a client process the server keeps the client's positions, so that nothing is lost between two
requests; elsewhere there are none, as in the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Encoder, Feed, Listener, Wake
from asgi_comet.errors import CometError
from asgi_comet.http.exchange import TEXT, Exchange, answer, read_body
from asgi_comet.identity.process import ClientProcess, Registered
from asgi_comet.node.build import Hub
from asgi_comet.protocol.registration import (
    decode_number,
    decode_registration,
    encode_ended,
    encode_messages,
    spellings,
)
from asgi_comet.transports.access import ProcessGone, admits, default_process, recognise
from asgi_comet.transports.answers import Taken, recover, send_off, settle, take
from asgi_comet.transports.checking import check_waiting
from asgi_comet.transports.held import Farewell, Held, Hold, ended, make_hold
from asgi_comet.transports.reading import Run
from asgi_comet.transports.registered import acknowledge, claim, keep, merge, repeat
from asgi_comet.transports.subscribing import ask, find

__all__ = ["registration"]

FAREWELL = Farewell(TEXT, replaced=b"", moved=b"")


async def registration(hub: Hub, process: ClientProcess | None, exchange: Exchange) -> None:
    """Serve one request of type `application/x-ocsigen-comet`.

    Args:
        hub: The rooms.
        process: Whose endpoint it came to; `None` elsewhere.
        exchange: The request.

    Raises:
        Refusal: It is answered with an error.
        ProcessGone: The client process closed while it was held.
        ClientGone: There is nobody to answer.
    """
    body = await read_body(hub, exchange)
    identifiers = decode_registration(body, hub.settings.max_channels_per_request)
    check_waiting(hub)
    if process is None:
        await _serve_here(hub, exchange, identifiers)
    elif process.closed:
        raise ProcessGone
    else:
        await _serve_process(hub, process, _Request(identifiers, decode_number(body)), exchange)


@dataclass(frozen=True, slots=True)
class _Request:
    identifiers: list[str]
    number: str | None


@dataclass(slots=True)
class _Found:
    """What identifiers name.

    Attributes:
        feeds: Channels that live, or can still be read.
        missing: Spellings of channels of the client process that do not exist yet.
        unknown: Spellings of what names no channel.
    """

    feeds: list[Feed] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Asking:
    identifiers: list[str]
    hold: Hold
    exchange: Exchange


async def _look_up(hub: Hub, process: ClientProcess | None, asking: _Asking) -> _Found:
    """Find what is asked for; once more if somebody lost a right to it meanwhile."""
    while True:
        revoked = hub.guard.revoked
        found = await _look_up_once(hub, process, asking)
        if revoked == hub.guard.revoked:
            return found


async def _look_up_once(hub: Hub, process: ClientProcess | None, asking: _Asking) -> _Found:
    found = _Found()
    seen: set[Feed] = set()
    for identifier in asking.identifiers:
        feed = await _find(hub, process, asking, identifier)
        if feed is None:
            name = next(spellings(identifier))
            own = process is not None and name.startswith("~")
            (found.missing if own else found.unknown).append(name)
        elif feed not in seen:
            seen.add(feed)
            found.feeds.append(feed)
    return found


async def _find(
    hub: Hub, process: ClientProcess | None, asking: _Asking, identifier: str
) -> Feed | None:
    for name in dict.fromkeys(spellings(identifier)):  # most have one only
        feed: Feed | None = None
        try:
            if not name.startswith("~"):
                if await admits(hub, asking.exchange, asking.hold, name):
                    feed = await find(hub, asking.hold, name)
            elif process is not None:
                directory = process.place.directory
                feed = directory.find(name) or hub.declarations.find_own(process, name)
        except CometError as error:
            hub.declarations.report(name, error)
        if feed is not None:
            return feed
    return None


# Without positions


async def _serve_here(hub: Hub, exchange: Exchange, identifiers: list[str]) -> None:
    own = any(next(spellings(identifier)).startswith("~") for identifier in identifiers)
    if b"cookie" in exchange.headers:
        await recognise(hub, exchange)
    process = default_process(hub, exchange) if own else None
    hold, found, taken = make_hold(hub.loop.asyncio), _Found(), Taken()
    held = Held(hub, exchange, process, hold, process)
    with held:
        if process is not None:
            process.read_by(hold)
        found = await _look_up(hub, process, _Asking(identifiers, hold, exchange))
        for feed in found.feeds:
            hub.fanout.attach(hold, feed)
        if process is not None:
            _read_own(hub, process, hold, found)
        why = held.why(await _hold(hold, exchange, at_once=bool(found.unknown)))
        if why in (Wake.MESSAGE, Wake.TIMEOUT):
            taken = take(hold, _encoder, None) or taken  # all: what is left here is lost
    handed = False
    try:
        if not await held.farewell(why, FAREWELL):
            pairs = [*_pairs(hold, taken), *map(encode_ended, [*found.unknown, *_lost(hold)])]
            handed = await answer(hub, exchange, TEXT, _join(pairs))
    finally:
        for run in taken.runs if handed else ():
            run.feed.outcomes.confirm(run.after, run.upto)
        settle(hold, handed)


def _read_own(hub: Hub, process: ClientProcess, hold: Listener, found: _Found) -> None:
    for name in found.missing:
        _expect(hub, hold, process.place.directory, name)
    for feed, offset in hold.cursors.items():
        if feed.directory is process.place.directory:
            feed.mark_sent(offset)  # what it holds is not for this request, so it may go
            if feed.want is not None:
                feed.acknowledge(offset)  # for the same reason
                ask(hub, feed)


def _expect(hub: Hub, hold: Listener, directory: Directory, name: str) -> None:
    feed = directory.expect(name, hold)
    if feed is not None:  # another thread has made it in this very moment
        hub.fanout.begin(hold, feed)


# With positions that the server keeps


async def _serve_process(
    hub: Hub, process: ClientProcess, request: _Request, exchange: Exchange
) -> None:
    kept = claim(hub, process, request.identifiers)
    if request.number is not None and request.number == kept.number and kept.answer is not None:
        process.connect()
        try:
            await answer(hub, exchange, TEXT, await repeat(hub, kept))
        finally:
            process.disconnect()
        return
    acknowledge(kept)
    hold, told = make_hold(hub.loop.asyncio), list[str]()
    held = Held(hub, exchange, process, hold, process)
    with held:
        process.read_by(hold)
        found = await _look_up(hub, process, _Asking(request.identifiers, hold, exchange))
        why, taken = ended(hold), Taken()
        if why is None:
            told = _place(hub, process, hold, found)
            why = await _hold(hold, exchange, at_once=bool(told))
            taken = take(hold, _encoder, hub.settings.answer_bytes) or taken
            if taken.gaps:
                await recover(hub, hold, taken, _encoder)
            why = held.why(why)
    handed = False
    try:
        if not await held.farewell(why, FAREWELL):
            send_off(taken)
            told += _lost(hold)
            pairs = [*_pairs(hold, taken), *map(encode_ended, told)]
            keep(kept, request.number, pairs, taken)
            handed = await answer(hub, exchange, TEXT, _join(pairs))
    finally:
        settle(hold, handed)


def _place(hub: Hub, process: ClientProcess, hold: Listener, found: _Found) -> list[str]:
    """Count a listener in on feeds, each from where its client is.

    Returns:
        The names of those that are over for the client.
    """
    kept = process.registered or Registered()
    directory = process.place.directory
    known = {feed.name for feed in kept.cursors} | kept.lost.keys()
    over = list(found.unknown)
    for feed in found.feeds:
        hub.fanout.attach(hold, feed)
        cursor = kept.cursors.get(feed)
        if cursor is None and feed.name in known:  # another incarnation: what was between is lost
            hub.fanout.leave(hold, feed)
            over.append(feed.name)
            continue
        if cursor is None:
            own = feed.directory is directory
            cursor = feed.history.first - 1 if own else feed.history.top
            if feed.name in kept.expected:
                cursor = 0
        hold.cursors[feed] = cursor
        ask(hub, feed)
    for name in found.missing:
        if name in known or (name in kept.expected and directory.is_past(name)):
            over.append(name)
        else:
            directory.begin_anew(name)
            _expect(hub, hold, directory, name)
    kept.expected = {name for _, name in hold.expected}
    told = set(over)
    kept.lost = {name: None for name in kept.lost if name not in told}
    kept.cursors = {f: c for f, c in kept.cursors.items() if f.name not in told}
    merge(hub, kept, hold)
    return over


# Both


def _encoder(feed: Feed) -> Encoder:
    """Return what writes messages: the same for every channel."""
    return encode_messages


async def _hold(hold: Hold, exchange: Exchange, *, at_once: bool) -> Wake:
    at_once = at_once or exchange.renew is not None
    for feed, cursor in hold.cursors.items():
        if feed.closed is not None or feed.history.top != cursor:
            at_once = True
    if at_once and hold.woken is None:
        hold.woken = Wake.TIMEOUT
    return await hold.wait(exchange.receive)


def _lost(hold: Hold) -> list[str]:
    """What it may not read any more."""
    return [notice.channel for notice in hold.forbidden]


def _pairs(hold: Listener, taken: Taken) -> Iterator[Run | bytes]:
    """The pairs in the order of the request: messages, and then the end where there is one."""
    runs = {run.feed: run for run in taken.runs}
    over = {*taken.gaps, *taken.over}
    for feed in hold.cursors:
        if feed in runs:
            yield runs[feed]
        if feed in over:
            yield encode_ended(feed.name)


def _join(pairs: list[Run | bytes]) -> bytes:
    return b"\n".join([pair.data if isinstance(pair, Run) else pair for pair in pairs])
