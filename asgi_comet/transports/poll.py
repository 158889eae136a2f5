"""The JSON poll: channels with positions in, events out.

Owns what one answer says, and when. Source: docs/wire.md#json-poll.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from asgi_comet._runtime.stepping import Suspended, is_direct, step
from asgi_comet.channels.feed import Chunk, Encoder, Feed, Wake
from asgi_comet.http.exchange import (
    JSON,
    Exchange,
    answer,
    make_answer,
    read_body,
    send_slowly,
)
from asgi_comet.identity.process import Client
from asgi_comet.log_events import event
from asgi_comet.node.build import Node
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
from asgi_comet.transports.access import (
    OWN_CHANNELS,
    ProcessGone,
    default_process,
    recognise,
    require_people,
)
from asgi_comet.transports.answers import Taken, recover, send_off, settle, take
from asgi_comet.transports.checking import check_waiting
from asgi_comet.transports.held import Farewell, Hold, ended, make_hold
from asgi_comet.transports.reading import Choose
from asgi_comet.transports.subscribing import ending, gap, subscribe, subscribe_rest

__all__ = ["poll"]

_logger = logging.getLogger(__name__)

FAREWELL = Farewell(JSON, replaced=REPLACED, moved=encode_answer([]))


async def poll(node: Node, process: Client | None, exchange: Exchange) -> None:
    """Serve one poll.

    Args:
        node: The parts of the Comet.
        process: The client process of the endpoint; `None` at the site's endpoint.
        exchange: The request.

    Raises:
        Refusal: The answer is an error.
        ProcessGone: The client process closed while the request was held.
        ClientGone: The client has disconnected.
    """
    asked, process = await _ask(node, process, exchange)
    hold = _make_hold(node, exchange, process, process if asked.own else None)
    choose, taken, handed = _choose_encoder(exchange), None, False
    try:
        with hold:
            notices, elsewhere = subscribe(node, process, hold, asked.channels)
            if elsewhere:
                rest = {name: asked.channels[name] for name in elsewhere}
                notices = [*notices, *await subscribe_rest(node, exchange, process, hold, rest)]
            told = tuple(map(encode_notice, notices))
            limit = node.settings.answer_bytes - sum(map(len, told))
            why = ended(hold)
            if why is None:
                why, taken = Wake.MESSAGE, take(hold, choose, limit)
                if not (taken or told or asked.idle or exchange.renew):
                    why = await hold.wait(exchange.receive)
                    if isinstance(hold, HeldPoll) and hold.answered:
                        handed = hold.handed or await hold.finish()
                        return
                    taken = take(hold, choose, limit)
                if taken is not None and taken.gaps:
                    await recover(node, hold, taken, choose)
            why = hold.why(why)
        if not await hold.farewell(why, FAREWELL):
            handed = await _answer(hold, told, taken)
    finally:
        settle(hold, handed)


async def _answer(hold: Hold, told: Sequence[bytes], taken: Taken | None) -> bool:
    """Send the answer; return whether the server took it."""
    events = [*told, *map(encode_notice, hold.forbidden)]
    if taken is not None:
        send_off(hold.node, hold, taken)
        events += _events(taken)
    return await answer(hold.node, hold.exchange, JSON, encode_answer(events))


def _choose_encoder(exchange: Exchange) -> Choose:
    return _marked if is_acknowledging(exchange.scope.get("query_string", b"")) else _plain


def _plain(feed: Feed) -> Encoder:
    return encode_messages


def _marked(feed: Feed) -> Encoder:
    """Mark the messages of an on-demand channel, for a client that acknowledges what it has."""
    return encode_messages if feed.want is None else make_marked(feed.history.size)


class HeldPoll(Hold):
    """A held poll of one channel, which the flush itself answers if the server takes it at once.

    The server then ends the wait in `receive()`, because the request is answered.

    Attributes:
        answered: Whether the flush has answered the request, or begun to.
        handed: Whether the server has taken the whole answer.
    """

    __slots__ = ("_rest", "answered", "handed")

    def __init__(
        self, node: Node, exchange: Exchange, process: Client | None, reads: Client | None
    ) -> None:
        super().__init__(node, exchange, process, reads)
        self.answered: bool = False
        self.handed: bool = False
        self._rest: Suspended[Any] | None = None

    def notice(self, feed: Feed, now: float) -> None:
        """Answer with the new messages of a feed."""
        alone = len(self.cursors) == 1 and feed.want is None
        if self._task is not None and alone and feed.closed is None:
            after = self.cursors.get(feed)
            if self.woken is not None or after is None or after == feed.history.top:
                return
            chunk = feed.render(encode_sole, after, self.node.settings.answer_bytes)
            if chunk is not None and self._answer(chunk):
                self.counters.delivered += chunk.count
                self.counters.delivered_bytes += chunk.size
                self.answered = True
                self.end(Wake.MESSAGE)
                if feed.kind.may_fill:
                    feed.mark_sent(chunk.upto)
                feed.outcomes.send(after, chunk.upto)
                return
        super().notice(feed, now)

    async def finish(self) -> bool:
        """Send the rest of the answer; return whether the server took it."""
        if self._rest is None:
            return False
        try:
            return await send_slowly(self.node, self._rest)
        except (OSError, RuntimeError) as error:
            _logger.debug("an answer was not taken: %r", error, extra=event("answer.lost"))
            return False

    def gone(self) -> Wake:
        """End the wait: the client has disconnected, or has the answer."""
        return Wake.MESSAGE if self.answered else super().gone()

    def _answer(self, chunk: Chunk) -> bool:
        """Send an answer; return whether that was possible."""
        exchange = self.exchange
        own = exchange.cors or exchange.renew is not None or self.forbidden
        moved = self.claim is not None and self.claim.stale
        if own or moved or (self.reads is not None and self.reads.reader is not self):
            return False
        if chunk.message is None:
            chunk.message = make_answer(JSON, chunk.data)
        start, body = chunk.message
        try:
            waiting = step(self.exchange.send(start))
            if waiting is not None:
                waiting.close()  # the server has not begun: the connection's task will answer
                return False
            self._rest = step(self.exchange.send(body))
            if self._rest is None:
                self.handed = True
            else:
                self.rouse()
        except Exception as error:  # must not reach other listeners
            _logger.debug("an answer was not taken: %r", error, extra=event("answer.lost"))
            self.rouse()
        return True


def _make_hold(
    node: Node, exchange: Exchange, process: Client | None, reads: Client | None
) -> Hold:
    if node.loop.asyncio and is_direct(exchange.send):
        return HeldPoll(node, exchange, process, reads)
    return make_hold(node, exchange, process, reads)


async def _ask(
    node: Node, process: Client | None, exchange: Exchange
) -> tuple[Poll, Client | None]:
    """Read the request, and find the client process whose own channels it may name."""
    body = await read_body(node, exchange)
    asked = decode_poll(body, node.settings.max_channels_per_request)
    check_waiting(node)
    if asked.own:
        require_people(node, OWN_CHANNELS)
    if process is None and b"cookie" in exchange.headers:
        await recognise(node, exchange, default=asked.own)
        process = await default_process(node, exchange) if asked.own else None
    if process is not None and process.closed:
        raise ProcessGone
    return asked, process


def _events(taken: Taken) -> list[bytes]:
    events = [run.data for run in taken.runs]
    events += [encode_notice(gap(feed)) for feed in taken.gaps]
    events += [encode_notice(ending(feed)) for feed in taken.ended]
    return events
