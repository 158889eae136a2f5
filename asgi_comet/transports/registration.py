"""The transport of the registration protocol: hold a request on many channels, answer once.

Owns the table of docs/wire.md#registration. A request is one listener for all channels it names.
For a client process the server keeps the client's positions, so that no message is lost between two
requests; otherwise there are no positions, as in the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Encoder, Feed, Listener, Wake
from asgi_comet.core.messages import Now
from asgi_comet.http.exchange import TEXT, Exchange, answer, read_body
from asgi_comet.identity.process import Client
from asgi_comet.identity.registered import Registered
from asgi_comet.node.build import Node
from asgi_comet.protocol.registration import (
    decode_number,
    decode_registration,
    encode_ended,
    encode_messages,
    spellings,
)
from asgi_comet.transports import counting
from asgi_comet.transports.access import (
    OWN_CHANNELS,
    ProcessGone,
    default_process,
    recognise,
    require_people,
)
from asgi_comet.transports.answers import Taken, recover, send_off, settle, take
from asgi_comet.transports.checking import check_waiting
from asgi_comet.transports.claiming import claim as claim_own
from asgi_comet.transports.held import Farewell, Hold, ended, make_hold
from asgi_comet.transports.looking import Asking, Looked, look, look_up, own_names
from asgi_comet.transports.reading import Run
from asgi_comet.transports.registered import acknowledge, claim, keep, merge, repeat
from asgi_comet.transports.remembered import State, load, save
from asgi_comet.transports.subscribing import ask

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
        serve = _serve_shared if node.broker.shared else _serve_process
        await serve(node, process, _Request(identifiers, decode_number(body)), exchange)


@dataclass(frozen=True, slots=True)
class _Request:
    identifiers: list[str]
    number: str | None


# Without positions


async def _serve_here(node: Node, exchange: Exchange, identifiers: list[str]) -> None:
    asks = any(next(spellings(identifier)).startswith("~") for identifier in identifiers)
    if asks:
        require_people(node, OWN_CHANNELS)
    if b"cookie" in exchange.headers:
        await recognise(node, exchange, default=asks)
    process = await default_process(node, exchange) if asks else None
    hold, found, taken = make_hold(node, exchange, process, process), Looked(), Taken()
    with hold:
        own = None
        if process is not None and node.broker.shared:
            starts = dict.fromkeys(own_names(identifiers), Now())
            own = await claim_own(node, exchange, process, hold, starts)
        elif process is not None:
            process.read_by(hold)
        found = await look_up(node, process, Asking(identifiers, hold, exchange, own))
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
            counting.delivered(node, hold, taken.runs)
            pairs = [*_pairs(hold, taken), *map(encode_ended, [*found.unknown, *_lost(hold)])]
            handed = await answer(node, exchange, TEXT, _join(pairs))
    finally:
        for run in taken.runs if handed else ():
            run.feed.outcomes.confirm(run.after, run.upto)
        settle(hold, handed)


def _read_own(node: Node, process: Client, hold: Listener, found: Looked) -> None:
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
        found = await look_up(node, process, Asking(request.identifiers, hold, exchange))
        why, taken = ended(hold), Taken()
        if why is None:
            told = _place(node, process, hold, found, kept)
            why = await _hold(hold, at_once=bool(told))
            taken = await _take(node, hold)
            why = hold.why(why)
    handed = False
    try:
        if not await hold.farewell(why, FAREWELL):
            pairs = _finish(hold, taken, told)
            keep(kept, request.number, pairs, taken)
            handed = await answer(node, exchange, TEXT, _join(pairs))
    finally:
        settle(hold, handed)


# The same, where any worker may serve the next request


async def _serve_shared(node: Node, process: Client, request: _Request, exchange: Exchange) -> None:
    hold = make_hold(node, exchange, process, process)
    handed = False
    try:
        with hold:
            state = await load(node, exchange, process, hold)
            if state.repeats(request.number):
                answered, why = await _repeat(node, process, hold, state)
            else:
                answered, why = await _answer_anew(node, process, hold, request, state)
        if not await hold.farewell(why, FAREWELL):
            handed = await answer(node, exchange, TEXT, answered)
    finally:
        settle(hold, handed)


async def _repeat(node: Node, process: Client, hold: Hold, state: State) -> tuple[bytes, Wake]:
    """Return the last answer again."""
    before = state.answered()
    own = {name: start for name, start in before.items() if name.startswith("~")}
    found = await claim_own(node, hold.exchange, process, hold, own)
    asking = Asking([], hold, hold.exchange, found)
    feeds = [await look(node, process, asking, name) for name in before]
    kept = state.thaw(node, process, filter(None, feeds))
    written = await repeat(node, kept)
    return written, await _save(node, process, hold, kept)


async def _answer_anew(
    node: Node, process: Client, hold: Hold, request: _Request, state: State
) -> tuple[bytes, Wake]:
    """Return the next answer, once the last one is acknowledged."""
    starts = state.starts(own_names(request.identifiers))
    own = await claim_own(node, hold.exchange, process, hold, starts)
    found = await look_up(node, process, Asking(request.identifiers, hold, hold.exchange, own))
    kept = state.thaw(node, process, found.feeds)
    _acknowledge_own(node, process, state)
    acknowledge(kept)
    why, told = hold.why(Wake.MESSAGE), list[str]()
    if why is Wake.MESSAGE:
        told = _place(node, process, hold, found, kept)
        if ({feed.name for feed in kept.cursors} | kept.expected) - state.names:
            why = await _save(node, process, hold, kept)  # from now on the client misses nothing
    if why is Wake.MESSAGE:
        why = await _hold(hold, at_once=bool(told))
    taken = await _take(node, hold)
    why = hold.why(why)
    if why not in (Wake.MESSAGE, Wake.TIMEOUT):
        return b"", why
    pairs = _finish(hold, taken, told)
    keep(kept, request.number, pairs, taken)
    return _join(pairs), await _save(node, process, hold, kept)


async def _save(node: Node, process: Client, hold: Hold, kept: Registered) -> Wake:
    """Store the state; return why the request ends: another request may serve the process now."""
    saved = await save(node, process, hold, kept)
    return hold.why(Wake.MESSAGE) if saved else Wake.REPLACED


def _acknowledge_own(node: Node, process: Client, state: State) -> None:
    """Acknowledge the last answer, which any worker may have sent."""
    people = node.broker.people
    own = {name: at for name, at in state.pending.items() if name.startswith("~")}
    if people is not None and own:
        people.acknowledge(process.id, own)


# Both of these


def _place(
    node: Node, process: Client, hold: Listener, found: Looked, kept: Registered
) -> list[str]:
    """Count a listener in on feeds, each from where its client is.

    Returns:
        The names of the channels that have ended for the client.
    """
    directory = process.place.directory
    known = {feed.name for feed in kept.cursors} | kept.lost.keys()
    closed = list(found.unknown)
    for feed in found.feeds:
        node.fanout.attach(hold, feed)
        cursor = kept.cursors.get(feed)
        if cursor is None and feed.name in known:  # another incarnation: messages between are lost
            node.fanout.leave(hold, feed)
            closed.append(feed.name)
            feed.counters.miss("epoch")
            node.runtime.counters.resumes["full"] += 1
            continue
        if cursor is not None:
            counting.resumed(node, hold, feed, feed.position(cursor), cursor)
        if cursor is None:
            own = feed.directory is directory
            cursor = feed.history.first - 1 if own else feed.history.top
            cursor = found.begins.get(feed, cursor)
            if feed.name in kept.expected:
                cursor = 0
            elif own:
                feed.skip(cursor)  # the client acknowledges what it gets after these messages
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


async def _take(node: Node, hold: Hold) -> Taken:
    """Read the news, as much as an answer may have."""
    taken = take(hold, _encoder, node.settings.answer_bytes) or Taken()
    if taken.gaps:
        await recover(node, hold, taken, _encoder)
    return taken


def _finish(hold: Hold, taken: Taken, told: list[str]) -> list[Run | bytes]:
    """Return the pairs of an answer, which is sent from now on."""
    send_off(hold.node, hold, taken)
    return [*_pairs(hold, taken), *map(encode_ended, [*told, *_lost(hold)])]


def _lost(hold: Hold) -> list[str]:
    """Return the names of channels that the client may no longer read."""
    return [notice.channel for notice in hold.forbidden]


def _pairs(hold: Listener, taken: Taken) -> Iterator[Run | bytes]:
    """Yield pairs in the order of the request: messages, then the end of the channel, if any."""
    runs = {run.feed: run for run in taken.runs}
    closed = {*taken.gaps, *taken.ended}
    for feed in taken.gaps:
        counting.missed(feed)
    for feed in taken.ended:
        counting.ended(feed)
    for feed in hold.cursors:
        if feed in runs:
            yield runs[feed]
        if feed in closed:
            yield encode_ended(feed.name)


def _join(pairs: list[Run | bytes]) -> bytes:
    return b"\n".join([pair.data if isinstance(pair, Run) else pair for pair in pairs])
