"""Server-sent events: a stream for `EventSource`, htmx, curl and `fetch`.

Owns the ids that hold a client's positions, and how a stream ends, so that a browser comes back or
stays away. Source: docs/wire.md#server-sent-events.

A browser gives up for good on any answer but 200; 204 is meant so. Whatever it should come back
from is therefore a stream that ends: a deactivated server, one that stops, a gap.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar

from starlette.types import Message

from asgi_comet.channels.feed import Encoder, Feed, Wake
from asgi_comet.core.messages import Notice, Position, Start
from asgi_comet.http.exchange import TEXT, Exchange, answer, start_stream
from asgi_comet.identity.process import ClientProcess
from asgi_comet.node.build import Hub
from asgi_comet.protocol.events import is_acknowledging
from asgi_comet.protocol.sse import (
    COMMENT,
    CONTENT_TYPE,
    OVER,
    Request,
    decode_request,
    encode_event,
    encode_retry,
    join_id,
    make_framing,
)
from asgi_comet.transports.access import (
    Find,
    NotYet,
    ProcessGone,
    default_process,
    enter,
    recognise,
)
from asgi_comet.transports.streaming import HEARTBEAT, LIFE, Stream
from asgi_comet.transports.subscribing import subscribe, subscribe_elsewhere, unsubscribe

__all__ = ["events"]

RETRY = (1000, 5000)  # milliseconds, at random, so that clients do not come back all at once
RETRY_LATER = (5000, 15000)  # the same while deactivated
RETRY_SOON = 100  # milliseconds after a window is used up: the next request acknowledges it
SHORT_ID = 4  # channels whose positions are about as long as the rest of a small event

_HEADERS = [(b"x-accel-buffering", b"no")]  # nginx: pass it on as it comes


async def events(hub: Hub, find: Find, exchange: Exchange) -> None:
    """Serve one stream.

    Args:
        hub: The rooms.
        find: Finds whose endpoint it came to; `None` is the site's.
        exchange: The request, whose origin and method are checked.

    Raises:
        Refusal: It is answered with an error, and a browser does not come back.
        BadRequest: The same.
    """
    asked = decode_request(
        exchange.scope["query_string"],
        exchange.headers.get(b"last-event-id"),
        hub.settings.max_channels_per_request,
    )
    if asked.over:
        await answer(hub, exchange, TEXT, b"", status=204)
        return
    farewell = _cannot_begin(hub)
    if farewell is None:
        try:
            process = await _who(hub, find, exchange, asked)
        except ProcessGone:
            farewell = _retry(RETRY) + _last(asked, b":process-closed")
        except NotYet:
            farewell = _retry(RETRY)
    if farewell is not None:
        await answer(hub, exchange, CONTENT_TYPE, farewell, headers=_HEADERS)
        return
    await EventStream(hub, process, exchange, asked).serve()


async def _who(hub: Hub, find: Find, exchange: Exchange, asked: Request) -> ClientProcess | None:
    """Find whose stream it is: a client process, or else a session."""
    process = await find()
    if process is not None or b"cookie" not in exchange.headers:
        return process
    await recognise(hub, exchange)
    return default_process(hub, exchange) if asked.own else None


def _cannot_begin(hub: Hub) -> bytes | None:
    if not hub.activation.active:
        return _deactivated()
    return _retry(RETRY) if hub.drain.begun else None


def _retry(bounds: tuple[int, int]) -> bytes:
    return encode_retry(random.randint(*bounds))  # noqa: S311 - spreads load, keeps no secret


def _deactivated() -> bytes:
    return _retry(RETRY_LATER) + encode_event(b":deactivated", {})


def _last(asked: Request, name: bytes, channel: str | None = None) -> bytes:
    data = {} if channel is None else {"channel": channel}
    return encode_event(name, data, join_id([OVER] * len(asked.starts)))


class EventStream(Stream):
    """One stream.

    Args:
        hub: The rooms.
        process: Whose stream it is; `None` for nobody's.
        exchange: The request.
        asked: What is asked.
    """

    __slots__ = ("_acknowledging", "_asked", "_exchange", "_names", "_positions", "_used_up")

    life: ClassVar[float | None] = LIFE

    def __init__(
        self, hub: Hub, process: ClientProcess | None, exchange: Exchange, asked: Request
    ) -> None:
        super().__init__(hub, process, exchange)
        self._exchange = exchange
        self._asked = asked
        self._acknowledging = is_acknowledging(exchange.scope.get("query_string", b""))
        self._used_up = False  # the window of an on-demand channel, so the client is to come again
        self._names: Sequence[str] = tuple(asked.starts)
        # The longer the ids, the fewer events fit into a write; those beyond are begun for nothing.
        self.portion: int = self.limit >> (len(self._names) // SHORT_ID).bit_length()
        # Where the client is on each channel, as its id says it.
        self._positions: list[bytes] = [_text(start) for start in asked.starts.values()]

    async def serve(self) -> None:
        """Serve it from its beginning to its end."""
        enter(self.hub, self._exchange, self.process, self, HEARTBEAT)
        why = Wake.GONE
        try:
            if await self._begin():
                why = await self.follow()
        except NotYet:
            await answer(self.hub, self._exchange, CONTENT_TYPE, _retry(RETRY), headers=_HEADERS)
        finally:
            self.settle()
        farewell = self._farewell(why)
        if farewell is not None:
            await self.send({"type": "http.response.body", "body": farewell})

    async def _begin(self) -> bool:
        """Tell where the client is; tell whether the server took it."""
        starts = {name: start for name, start in self._asked.starts.items() if start is not None}
        notices, elsewhere = subscribe(self.hub, self.process, self, starts)
        for name in elsewhere:
            notices = await subscribe_elsewhere(
                self.hub, self._exchange, self, name, starts[name], notices
            )
        for notice in notices:
            if notice.error is None:
                self._positions[self._names.index(notice.channel)] = str(notice.position).encode()
        there = {
            name: position.decode()
            for name, position in zip(self._names, self._positions, strict=True)
            if position != OVER
        }
        self.tell(_retry(RETRY) + encode_event(b":open", {"positions": there}, self._id()))
        errors = [notice for notice in notices if notice.error is not None]
        for notice in [one for one in errors if one.error == "forbidden"][:1] or errors:
            self.tell(self.note(notice))
        for feed, offset in self.cursors.items():
            self._check_window(feed, offset)
        return await self.send(start_stream(self._exchange, CONTENT_TYPE, _HEADERS))

    def _farewell(self, why: Wake) -> bytes | None:
        """The last words, if there is anybody to hear them."""
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
        """End the stream where its client acknowledges only by coming again, as `EventSource` does.

        An on-demand source is read no further until its client has acknowledged what it got: as
        many messages as the window has, or as many bytes as the history holds.
        """
        if feed.want is None or self._acknowledging or offset != feed.history.top:
            return
        if feed.history.displaced_by(self.hub.settings.message_limit) >= feed.history.first:
            self._used_up = True
            self.finish(Wake.MESSAGE)

    # How it is written

    def encoder(self, feed: Feed) -> Encoder:
        """Return what writes messages with the positions of all other channels."""
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
        """Return the same, unless there are other channels to note the position for."""
        return self.encoder(feed) if len(self._positions) == 1 else None

    def moved(self, feed: Feed, offset: int) -> None:
        """Take note of where the client will be, for the ids of its other channels."""
        if len(self._positions) > 1:
            position = str(feed.position(offset)).encode()
            self._positions[self._names.index(feed.name)] = position
        self._check_window(feed, offset)

    def note(self, notice: Notice) -> bytes:
        """Write an error, with the id that leads on."""
        at = self._names.index(notice.channel)
        data: dict[str, Any] = {"channel": notice.channel}
        if notice.reason is not None:
            data["reason"] = notice.reason
        if notice.error == "forbidden":
            unsubscribe(self.hub, self, self._names)
            self.finish(Wake.MESSAGE)
            return _last(self._asked, b":forbidden", notice.channel)
        if notice.position is None:
            self._positions[at] = OVER
        else:
            # The client goes on from here when it comes back, which it is made to do.
            self._positions[at] = str(notice.position).encode()
            self.finish(Wake.MESSAGE)
        if all(position == OVER for position in self._positions):
            self.finish(Wake.MESSAGE)
        return encode_event(b":" + str(notice.error).encode(), data, self._id())

    def frame(self, parts: list[Any]) -> Message:
        """Put events together as one chunk."""
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
    """An id's part for a start: the position; for `now` and `last:N` it is not known yet."""
    return str(start).encode() if isinstance(start, Position) else OVER
