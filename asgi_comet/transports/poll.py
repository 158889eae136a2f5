"""The JSON poll: channels with positions in, events out.

Owns what one answer says, and when. Source: docs/wire.md#json-poll.
"""

from __future__ import annotations

import logging
from typing import Any

from asgi_comet._runtime.stepping import Suspended, is_direct, step
from asgi_comet.channels.feed import Encoder, Feed, Rendered, Wake
from asgi_comet.http.exchange import (
    JSON,
    Exchange,
    answer,
    make_answer,
    read_body,
    send_slowly,
)
from asgi_comet.identity.process import ClientProcess
from asgi_comet.node.build import Hub
from asgi_comet.protocol.events import (
    REPLACED,
    Poll,
    decode_poll,
    encode_answer,
    encode_messages,
    encode_notice,
    encode_sole,
    is_acknowledging,
    make_marked,
)
from asgi_comet.transports.access import ProcessGone, default_process, recognise
from asgi_comet.transports.answers import Taken, recover, send_off, settle, take
from asgi_comet.transports.checking import check_waiting
from asgi_comet.transports.held import Farewell, Held, Hold, ended, make_hold
from asgi_comet.transports.reading import Choose
from asgi_comet.transports.subscribing import gap, over, subscribe, subscribe_elsewhere

__all__ = ["poll"]

_logger = logging.getLogger(__name__)

FAREWELL = Farewell(JSON, replaced=REPLACED, moved=encode_answer([]))


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
    reads = process if asked.own else None
    hold = _make_hold(hub, reads, exchange)
    held = Held(hub, exchange, process, hold, reads)
    handed = False
    try:
        with held:
            notices, elsewhere = subscribe(hub, process, hold, asked.channels)
            for name in elsewhere:
                start = asked.channels[name]
                notices = await subscribe_elsewhere(hub, exchange, hold, name, start, notices)
            told = [encode_notice(notice) for notice in notices]
            at_once = bool(notices) or asked.idle or exchange.renew is not None
            why, taken = await _listen(hub, exchange, hold, at_once, sum(map(len, told)))
            if isinstance(hold, HeldPoll) and hold.answered:
                handed = await hold.finish()
                return
            why = held.why(why)
        if not await held.farewell(why, FAREWELL):
            told += [encode_notice(notice) for notice in hold.forbidden]
            if taken is not None:
                send_off(taken)
                told += _events(taken)
            handed = await answer(hub, exchange, JSON, encode_answer(told))
    finally:
        settle(hold, handed)


async def _listen(
    hub: Hub, exchange: Exchange, hold: Hold, at_once: bool, told: int
) -> tuple[Wake, Taken | None]:
    """Wait until there is something to tell, unless it is to be told at once that there is not.

    Args:
        hub: The rooms.
        exchange: The request.
        hold: The same, as it hears of messages.
        at_once: Whether to wait for nothing.
        told: How many bytes the answer has already.

    Returns:
        Why it woke, and what there is.
    """
    why, taken, limit = ended(hold), None, hub.settings.answer_bytes - told
    choose = _choose_encoder(exchange)
    if why is None:
        why, taken = Wake.MESSAGE, take(hold, choose, limit)
        if taken is None and not at_once:
            why = await hold.wait(exchange.receive)
            if isinstance(hold, HeldPoll) and hold.answered:
                return why, None
            taken = take(hold, choose, limit)
        if taken is not None and taken.gaps:
            await recover(hub, hold, taken, choose)
    return why, taken


def _choose_encoder(exchange: Exchange) -> Choose:
    return _marked if is_acknowledging(exchange.scope.get("query_string", b"")) else _plain


def _plain(feed: Feed) -> Encoder:
    return encode_messages


def _marked(feed: Feed) -> Encoder:
    """Mark the messages of an on-demand channel, for a client that acknowledges what it has."""
    return encode_messages if feed.want is None else make_marked(feed.history.size)


class HeldPoll(Hold):
    """A held poll of one channel that the flush answers itself, where the server takes it at once.

    The server then wakes the connection's task from `receive()`, for there is nothing more to come.

    Args:
        hub: The rooms.
        reads: Whose own channels it reads; `None` for nobody's.
        exchange: The request, whose `send` may be run outside of its task.

    Attributes:
        answered: Whether the flush has answered it, or begun to.
    """

    __slots__ = ("_exchange", "_handed", "_hub", "_reads", "_rest", "answered")

    def __init__(self, hub: Hub, reads: ClientProcess | None, exchange: Exchange) -> None:
        super().__init__()
        self._hub = hub
        self._reads = reads
        self._exchange = exchange
        self._handed = False
        self.answered: bool = False
        self._rest: Suspended[Any] | None = None

    def notice(self, feed: Feed, now: float) -> None:
        """Answer with what has come on a feed."""
        alone = len(self.cursors) == 1 and feed.want is None
        if self._task is not None and alone and feed.closed is None:
            after = self.cursors.get(feed)
            if self.woken is not None or after is None or after == feed.history.top:
                return
            rendered = feed.render(encode_sole, after, self._hub.settings.answer_bytes)
            if rendered is not None and self._answer(rendered):
                self.answered = True
                self.end(Wake.MESSAGE)
                if feed.kind.may_fill:
                    feed.mark_sent(rendered.upto)
                feed.outcomes.send(after, rendered.upto)
                return
        super().notice(feed, now)

    async def finish(self) -> bool:
        """Do what is left of the answer; tell whether the server took it all."""
        if self._rest is None:
            return self._handed
        try:
            return await send_slowly(self._hub, self._rest)
        except (OSError, RuntimeError) as error:
            _logger.debug("an answer was not taken: %r", error)
            return False

    def gone(self) -> Wake:
        """Take note that nothing more comes: the client has left, or has its answer."""
        return Wake.MESSAGE if self.answered else super().gone()

    def _answer(self, rendered: Rendered) -> bool:
        """Send an answer; tell whether that was possible."""
        exchange = self._exchange
        own = exchange.cors or exchange.renew is not None or self.forbidden
        moved = self.caller is not None and self.caller.moved
        if own or moved or (self._reads is not None and self._reads.reader is not self):
            return False
        if rendered.message is None:
            rendered.message = make_answer(JSON, rendered.data)
        start, body = rendered.message
        try:
            waiting = step(self._exchange.send(start))
            if waiting is not None:
                waiting.close()  # the server has not begun: the connection's task will answer
                return False
            self._rest = step(self._exchange.send(body))
            if self._rest is None:
                self._handed = True
            else:
                self.rouse()
        except Exception as error:  # must not reach other listeners
            _logger.debug("an answer was not taken: %r", error)
            self.rouse()
        return True


def _make_hold(hub: Hub, reads: ClientProcess | None, exchange: Exchange) -> Hold:
    if hub.loop.asyncio and is_direct(exchange.send):
        return HeldPoll(hub, reads, exchange)
    return make_hold(hub.loop.asyncio)


async def _ask(
    hub: Hub, process: ClientProcess | None, exchange: Exchange
) -> tuple[Poll, ClientProcess | None]:
    """Read what is asked, and whose own channels may be asked for."""
    body = await read_body(hub, exchange)
    asked = decode_poll(body, hub.settings.max_channels_per_request)
    check_waiting(hub)
    if process is None and b"cookie" in exchange.headers:
        await recognise(hub, exchange)
        process = default_process(hub, exchange) if asked.own else None
    if process is not None and process.closed:
        raise ProcessGone
    return asked, process


def _events(taken: Taken) -> list[bytes]:
    events = [run.data for run in taken.runs]
    events += [encode_notice(gap(feed)) for feed in taken.gaps]
    events += [encode_notice(over(feed)) for feed in taken.over]
    return events
