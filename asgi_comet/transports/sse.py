"""Server-sent events: a stream for `EventSource`, htmx, curl and `fetch`.

Owns the ids that hold a client's positions, and how a stream ends, so that a browser reconnects or
stays away. Source: docs/wire.md#server-sent-events.

A browser stops reconnecting after any status but 200; 204 is for this purpose. If the browser is to
reconnect, the answer is therefore a stream that ends: when deactivated, at a shutdown, after a gap.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from starlette.types import Message

from asgi_comet.channels.feed import Encoder, Feed, Wake
from asgi_comet.core.messages import Notice, Start
from asgi_comet.http.exchange import TEXT, Exchange, answer, start_stream
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.position import Position
from asgi_comet.protocol.events import is_acknowledging
from asgi_comet.protocol.sse import (
    COMMENT,
    CONTENT_TYPE,
    ENDED,
    Request,
    decode_request,
    encode_event,
    encode_retry,
    join_id,
    make_framing,
)
from asgi_comet.transports.access import (
    OWN_CHANNELS,
    Find,
    ProcessGone,
    default_process,
    enter,
    recognise,
    require_people,
)
from asgi_comet.transports.counting import transport_of
from asgi_comet.transports.postponing import TryAgain
from asgi_comet.transports.streaming import HEARTBEAT, LIFE, Stream
from asgi_comet.transports.subscribing import subscribe, subscribe_rest, unsubscribe

__all__ = ["events"]

RETRY = (1000, 5000)  # milliseconds, at random, so that clients do not reconnect all at once
RETRY_LATER = (5000, 15000)  # the same while deactivated
RETRY_SOON = 100  # milliseconds after a window is used up: the next request acknowledges it
SHORT_ID = 4  # channels whose positions are as long as the rest of a small event, about

_HEADERS = [(b"x-accel-buffering", b"no")]  # nginx: do not buffer


async def events(node: Node, find: Find, exchange: Exchange) -> None:
    """Serve one stream.

    Args:
        node: The parts of the Comet.
        find: Finds the client process of the endpoint; `None` at the site's endpoint.
        exchange: The request, whose origin and method are checked.

    Raises:
        Refusal: The answer is an error, and a browser does not reconnect.
        BadRequest: As for `Refusal`.
    """
    asked = decode_request(
        exchange.scope["query_string"],
        exchange.headers.get(b"last-event-id"),
        node.settings.max_channels_per_request,
    )
    if asked.finished:
        await answer(node, exchange, TEXT, b"", status=204)
        return
    farewell = _cannot_begin(node, exchange)
    if farewell is None:
        try:
            process = await _who(node, find, exchange, asked)
        except ProcessGone:
            farewell = _retry(RETRY) + _last(asked, b":process-closed")
        except TryAgain:
            farewell = _retry(RETRY)
    if farewell is not None:
        await answer(node, exchange, CONTENT_TYPE, farewell, headers=_HEADERS)
        return
    await EventStream(node, process, exchange, asked).serve()


async def _who(node: Node, find: Find, exchange: Exchange, asked: Request) -> Client | None:
    """Find whose stream it is: a client process, or else a session."""
    if asked.own:
        require_people(node, OWN_CHANNELS)
    process = await find()
    if process is not None or b"cookie" not in exchange.headers:
        return process
    await recognise(node, exchange, default=asked.own)
    return await default_process(node, exchange) if asked.own else None


def _cannot_begin(node: Node, exchange: Exchange) -> bytes | None:
    if not node.activation.active:
        transport_of(node, exchange).connections["deactivated"] += 1
        return _deactivated()
    return _retry(RETRY) if node.drain.begun else None


def _retry(bounds: tuple[int, int]) -> bytes:
    return encode_retry(random.randint(*bounds))  # noqa: S311 - spreads load, keeps no secret


def _deactivated() -> bytes:
    return _retry(RETRY_LATER) + encode_event(b":deactivated", {})


def _last(asked: Request, name: bytes, channel: str | None = None) -> bytes:
    data = {} if channel is None else {"channel": channel}
    return encode_event(name, data, join_id([ENDED] * len(asked.starts)))


class EventStream(Stream):
    """One stream.

    Args:
        node: The parts of the Comet.
        process: The client process of the stream, if any.
        exchange: The request.
        asked: The decoded request.
    """

    __slots__ = ("_acknowledging", "_asked", "_exchange", "_names", "_positions", "_used_up")

    def __init__(
        self, node: Node, process: Client | None, exchange: Exchange, asked: Request
    ) -> None:
        super().__init__(node, process, exchange, LIFE)
        self._exchange = exchange
        self._asked = asked
        self._acknowledging = is_acknowledging(exchange.scope.get("query_string", b""))
        self._used_up = (
            False  # the window of an on-demand channel is used up: the client reconnects
        )
        self._names: Sequence[str] = tuple(asked.starts)
        # The longer the ids, the fewer events fit into a write; encoding more would be wasted.
        self.portion: int = self.limit >> (len(self._names) // SHORT_ID).bit_length()
        # The client's position on each channel, as in the event ids.
        self._positions: list[bytes] = [_text(start) for start in asked.starts.values()]

    async def serve(self) -> None:
        """Serve the stream from start to end."""
        enter(self.node, self._exchange, self.process, self, HEARTBEAT)
        why = Wake.GONE
        try:
            if await self._begin():
                why = await self.follow()
        except TryAgain:
            await answer(self.node, self._exchange, CONTENT_TYPE, _retry(RETRY), headers=_HEADERS)
        except ProcessGone:
            gone = _retry(RETRY) + _last(self._asked, b":process-closed")
            await answer(self.node, self._exchange, CONTENT_TYPE, gone, headers=_HEADERS)
        finally:
            self.settle()
        farewell = self._farewell(why)
        if farewell is not None:
            await self.send({"type": "http.response.body", "body": farewell})

    async def _begin(self) -> bool:
        """Send the positions; return whether the server took them."""
        starts = {name: start for name, start in self._asked.starts.items() if start is not None}
        notices, elsewhere = subscribe(self.node, self.process, self, starts)
        if elsewhere:
            rest = {name: starts[name] for name in elsewhere}
            more = await subscribe_rest(self.node, self._exchange, self.process, self, rest)
            notices = [*notices, *more]
        for notice in notices:
            if notice.error is None:
                self._positions[self._names.index(notice.channel)] = str(notice.position).encode()
        there = {
            name: position.decode()
            for name, position in zip(self._names, self._positions, strict=True)
            if position != ENDED
        }
        self.tell(_retry(RETRY) + encode_event(b":open", {"positions": there}, self._id()))
        errors = [notice for notice in notices if notice.error is not None]
        for notice in [one for one in errors if one.error == "forbidden"][:1] or errors:
            self.tell(self.note(notice))
        for feed, offset in self.cursors.items():
            self._check_window(feed, offset)
        return await self.send(start_stream(self._exchange, CONTENT_TYPE, _HEADERS))

    def _farewell(self, why: Wake) -> bytes | None:
        """Return the last bytes of the stream; `None` if the client has disconnected."""
        match why:
            case Wake.GONE:
                return None
            case Wake.DEACTIVATED:
                return _deactivated()
            case Wake.REPLACED:
                return _last(self._asked, b":replaced")
            case Wake.CLOSED:
                return _last(self._asked, b":process-closed")
            case _:
                return encode_retry(RETRY_SOON) + b"\n" if self._used_up else b""

    def _check_window(self, feed: Feed, offset: int) -> None:
        """End the stream if its client acknowledges only by reconnecting, as `EventSource` does.

        An on-demand source is read only as far as the window and the bytes of the history allow,
        until the client acknowledges.
        """
        if feed.want is None or self._acknowledging or offset != feed.history.top:
            return
        if feed.history.displaced_by(self.node.settings.message_limit) >= feed.history.first:
            self._used_up = True
            self.finish(Wake.MESSAGE)

    # Encoding

    def encoder(self, feed: Feed) -> Encoder:
        """Return an encoder that includes the positions of all other channels."""
        positions = self._positions
        ahead = feed.history.size if self._acknowledging and feed.want is not None else 0
        as_text = self._asked.as_text
        html = feed.html if as_text else None
        if len(positions) == 1:
            return make_framing(as_text=as_text, ahead=ahead, html=html)
        at = self._names.index(feed.name)
        before = b",".join([*positions[:at], b""])
        behind = b",".join([b"", *positions[at + 1 :]])
        return make_framing(before, behind, as_text, ahead, html)

    def sole_encoder(self, feed: Feed) -> Encoder | None:
        """Return the encoder if there is only one channel."""
        return self.encoder(feed) if len(self._positions) == 1 else None

    def moved(self, feed: Feed, offset: int) -> None:
        """Record the client's new position, for the ids of the other channels."""
        if len(self._positions) > 1:
            position = str(feed.position(offset)).encode()
            self._positions[self._names.index(feed.name)] = position
        self._check_window(feed, offset)

    def note(self, notice: Notice) -> bytes:
        """Encode an error, with the id from which the client continues."""
        at = self._names.index(notice.channel)
        data: dict[str, Any] = {"channel": notice.channel}
        if notice.reason is not None:
            data["reason"] = notice.reason
        if notice.error == "forbidden":
            unsubscribe(self.node, self, self._names)
            self.finish(Wake.MESSAGE)
            return _last(self._asked, b":forbidden", notice.channel)
        if notice.position is None:
            self._positions[at] = ENDED
        else:
            # The stream ends, and the client reconnects with this position.
            self._positions[at] = str(notice.position).encode()
            self.finish(Wake.MESSAGE)
        if all(position == ENDED for position in self._positions):
            self.finish(Wake.MESSAGE)
        return encode_event(b":" + str(notice.error).encode(), data, self._id())

    def frame(self, parts: list[Any]) -> Message:
        """Join events to one chunk."""
        return self.sole_frame(b"".join(parts))

    def sole_frame(self, data: Any) -> Message:
        """Return one chunk."""
        return {"type": "http.response.body", "body": data, "more_body": True}

    def heartbeat(self) -> Message:
        """Return a comment."""
        return self.sole_frame(COMMENT)

    def _id(self) -> bytes:
        return join_id(self._positions)


def _text(start: Start | None) -> bytes:
    """Return a start as part of an id; for `now` and `last:N` the position is not known yet."""
    return str(start).encode() if isinstance(start, Position) else ENDED
