"""The JSON poll: channels with positions in, events out.

Owns where each start leads, and which events tell of it. Source: wire.md, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from asgi_comet.feeds import Feed, Listener, Wake
from asgi_comet.hub import Hub
from asgi_comet.messages import NEXT_INCARNATION, Position, Start
from asgi_comet.processes import ClientProcess
from asgi_comet.protocol.events import (
    CONTENT_TYPES,
    REPLACED,
    Poll,
    decode_poll,
    encode_answer,
    encode_closed,
    encode_forbidden,
    encode_full,
    encode_messages,
    encode_position,
)

from .access import ProcessGone, default_process, enter, leave, still_reading
from .answers import Taken, recover, send_off, settle, take
from .exchange import (
    JSON,
    ClientGone,
    Exchange,
    answer,
    check_request,
    check_waiting,
    deactivated,
    read_body,
)
from .holding import make_hold

__all__ = ["poll"]


async def poll(hub: Hub, process: ClientProcess | None, exchange: Exchange) -> None:
    """Serve one poll.

    Args:
        hub: The rooms.
        process: Whose endpoint it came to; `None` at the site's.
        exchange: The request.

    Raises:
        Refusal: It is answered with an error.
        ProcessGone: The client process closed while it was held.
        ClientGone: There is nobody to answer.
    """
    asked, process = await _ask(hub, process, exchange)
    hold = make_hold(hub.loop.asyncio)
    told: list[bytes] = []
    handed = False
    enter(hub, process, hold)
    try:
        try:
            for name in _subscribe(hub, process, hold, asked, told):
                await _subscribe_elsewhere(hub, hold, asked, told, name)
            why, taken = Wake.MESSAGE, take(hold, encode_messages, hub.settings.answer_bytes)
            if taken is None and not told and not asked.idle:
                why = await hold.wait(exchange.receive)
                why = still_reading(process if asked.own else None, hold, why)
                taken = take(hold, encode_messages, hub.settings.answer_bytes)
            if taken is not None and taken.gaps:
                await recover(hub, hold, taken, encode_messages)
        finally:
            leave(hub, process, hold)
        if why is Wake.MESSAGE or why is Wake.TIMEOUT:
            if taken is not None:
                send_off(taken)
                told += _events(taken)
            handed = await answer(hub, exchange, JSON, encode_answer(told))
        else:
            await _end(hub, exchange, why)
    finally:
        settle(hold, handed)


async def _ask(
    hub: Hub, process: ClientProcess | None, exchange: Exchange
) -> tuple[Poll, ClientProcess | None]:
    """Read what is asked, and whose own channels may be asked for."""
    check_request(hub, exchange, CONTENT_TYPES)
    body = await read_body(hub, exchange)
    asked = decode_poll(body, hub.settings.max_channels_per_request)
    check_waiting(hub)
    if process is None and asked.own:
        process = default_process(hub, exchange)
    if process is not None and process.closed:
        raise ProcessGone
    return asked, process


async def _end(hub: Hub, exchange: Exchange, why: Wake) -> None:
    if why is Wake.REPLACED:
        await answer(hub, exchange, JSON, REPLACED)
    elif why is Wake.DEACTIVATED:
        raise deactivated()
    elif why is Wake.CLOSED:
        raise ProcessGone
    else:
        raise ClientGone("while it was held")


def _subscribe(
    hub: Hub, process: ClientProcess | None, hold: Listener, asked: Poll, told: list[bytes]
) -> Sequence[str]:
    """Count a listener in on what it asks for.

    Args:
        hub: The rooms.
        process: Whose own channels it may ask for.
        hold: The listener.
        asked: What it asks for.
        told: Gets the events that this alone makes.

    Returns:
        The names of site channels that are not known here.
    """
    elsewhere: list[str] | None = None
    for name, start in asked.channels.items():
        if name[:1] != "~":
            feed = hub.channels.find(name)
            if feed is None:
                elsewhere = [*(elsewhere or ()), name]
                continue
            event = _begin(hub, hold, feed, start)
        elif process is None:
            event = encode_forbidden(name)
        else:
            process.read_by(hold)
            event = _subscribe_own(hub, process, hold, name, start)
        if event is not None:
            told.append(event)
    return elsewhere or ()


async def _subscribe_elsewhere(
    hub: Hub, hold: Listener, asked: Poll, told: list[bytes], name: str
) -> None:
    """Count a listener in on a site channel that another worker may have."""
    feed = await hub.broker.find(name)
    if feed is None:
        told.append(encode_closed(name, "unknown"))
        return
    event = _begin(hub, hold, feed, asked.channels[name])
    if event is not None:
        told.append(event)


def _subscribe_own(
    hub: Hub, process: ClientProcess, hold: Listener, name: str, start: Start
) -> bytes | None:
    directory = process.place.directory
    relative = not isinstance(start, Position)
    if relative:
        directory.begin_anew(name)
    feed = directory.find(name)
    if feed is not None:
        return _begin(hub, hold, feed, start)
    if relative:
        return encode_position(name, NEXT_INCARNATION)
    if start != NEXT_INCARNATION or directory.is_past(name):
        return encode_closed(name, "ended" if directory.is_past(name) else "unknown")
    feed = directory.expect(name, hold)
    return None if feed is None else _begin(hub, hold, feed, start)


def _begin(hub: Hub, hold: Listener, feed: Feed, start: Start) -> bytes | None:
    """Place a listener on a feed, and return the event that this makes, if any."""
    hub.fanout.attach(hold, feed)  # first: what is published from now on wakes it
    if not feed.readable:
        return None  # it is over, as `take` will tell
    offset = feed.place(start)
    if offset is None:
        hub.fanout.leave(hold, feed)
        return encode_full(feed.name, feed.position(feed.history.top))
    hold.cursors[feed] = offset
    if not isinstance(start, Position):
        return encode_position(feed.name, feed.position(offset))
    feed.acknowledge(offset)
    if feed.want is not None:
        hub.broker.want(feed, offset + 1)
    return None


def _events(taken: Taken) -> list[bytes]:
    events = [run.data for run in taken.runs]
    if taken.gaps or taken.over:
        events += [encode_full(gap.name, gap.position(gap.history.top)) for gap in taken.gaps]
        events += map(_over, taken.over)
    return events


def _over(feed: Feed) -> bytes:
    if not feed.readable:
        return encode_full(feed.name, None)
    return encode_closed(feed.name, feed.closed or "ended")
