"""The transport of the registration protocol: hold a request on many channels, answer once.

Owns the table of wire.md, section 1. A request is one listener, however many channels it names.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from starlette.types import Receive, Scope, Send

from asgi_comet.errors import BadRequest
from asgi_comet.fanout import Feed, Listener, Wake
from asgi_comet.hub import Hub
from asgi_comet.protocol.registration import (
    decode_registration,
    encode_ended,
    encode_messages,
    spellings,
)

from .holding import Hold, make_interrupt
from .http import ClientGone, Refusal, answer, read_body, refuse

__all__ = ["registration"]

TEXT = b"text/plain; charset=utf-8"
ANSWERED = (Wake.MESSAGE, Wake.TIMEOUT)
RETRY_AFTER = (5, 15)  # seconds, at random, so that clients do not come back all at once


async def registration(hub: Hub, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request of type `application/x-ocsigen-comet`.

    Source: wire.md, section 1.
    """
    try:
        await _serve(hub, scope, receive, send)
    except Refusal as refusal:
        await refuse(refusal, scope, receive, send)
    except ClientGone:
        pass


async def _serve(hub: Hub, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["method"] != "POST":
        raise Refusal(405, "expected POST for a registration", Allow="POST")
    if not hub.origins.allows(scope):
        raise Refusal(403, "this page's origin is not allowed")
    if not hub.activation.active:
        raise _deactivated()
    body = await read_body(hub, scope, receive)
    try:
        identifiers = decode_registration(body, hub.settings.max_channels_per_request)
    except BadRequest as error:
        raise Refusal(400, str(error)) from None
    if not hub.activation.active:  # it may have changed while the body came
        raise _deactivated()
    feeds, ended = _look_up(hub, identifiers)
    hold = Hold(make_interrupt(hub.loop.asyncio))
    hub.timers.start(hold, hub.activation.hold())
    hub.fanout.attach(hold, feeds)
    try:
        woken = await _hold(hub, hold, bool(ended), receive)
        taken = _take(hold) if woken in ANSWERED else {}
    finally:
        hub.timers.stop(hold)
        hub.fanout.detach(hold)
    await _answer(hub, hold, taken, ended, send)


def _look_up(hub: Hub, identifiers: list[str]) -> tuple[list[Feed], list[bytes]]:
    """Return the feeds that live, and the pairs of the identifiers that name none."""
    feeds: dict[Feed, None] = {}
    ended: list[bytes] = []
    for identifier in identifiers:
        for name in spellings(identifier):
            feed = hub.channels.find(name)
            if feed is not None:
                feeds[feed] = None
                break
        else:
            ended.append(encode_ended(next(spellings(identifier))))
    return list(feeds), ended


async def _hold(hub: Hub, hold: Hold, at_once: bool, receive: Receive) -> Wake:
    if any(feed.closed is not None for feed in hold.cursors):  # it ended before we were counted in
        at_once = True
    if at_once or hub.fanout.draining:
        hold.woken = Wake.TIMEOUT
        return Wake.TIMEOUT
    return await hold.wait(receive)


Taken = dict[Feed, tuple[bytes, int] | None]


def _take(hold: Listener) -> Taken:
    """Read what came on all channels at once: what is written later is not for this request.

    Returns:
        For each feed with something to tell its pairs and the offset they reach to; `None` where
        the next message is no longer held.
    """
    return {
        feed: feed.render(encode_messages, cursor)
        for feed, cursor in hold.cursors.items()
        if feed.history.top != cursor
    }


async def _answer(hub: Hub, hold: Hold, taken: Taken, ended: list[bytes], send: Send) -> None:
    handed = False
    try:
        if hold.woken is Wake.DEACTIVATED:
            raise _deactivated()
        if hold.woken is not Wake.GONE:
            pairs = [*_pairs(hold, taken), *ended]
            body = pairs[0] if len(pairs) == 1 else b"\n".join(pairs)
            handed = await answer(hub, send, TEXT, body)
    finally:
        for feed, cursor in hold.cursors.items():
            found = taken.get(feed)
            if handed and found is not None:
                feed.outcomes.confirm(cursor, found[1])
            feed.outcomes.lose(hold)


def _pairs(hold: Listener, taken: Taken) -> Iterator[bytes]:
    for feed in hold.cursors:
        found = taken.get(feed)
        if found is not None:
            yield found[0]
        if feed.closed is not None or (found is None and feed in taken):
            yield encode_ended(feed.name)


def _deactivated() -> Refusal:
    seconds = random.randint(*RETRY_AFTER)  # noqa: S311 - spreads load, keeps no secret
    return Refusal(503, "", Retry_After=str(seconds))
