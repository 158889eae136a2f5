"""WebSocket: a stream on which the client subscribes and unsubscribes.

Owns the handshake, the handling of client frames, and the close codes.
Source: docs/wire.md#websocket.
"""

from __future__ import annotations

import time
from typing import Any

from starlette.types import Message

from asgi_comet.channels.feed import Encoder, Feed, Wake
from asgi_comet.core.messages import Notice, Start
from asgi_comet.errors import BadRequest
from asgi_comet.http.exchange import Exchange, Refusal
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.protocol.events import is_acknowledging
from asgi_comet.protocol.frames import (
    HEARTBEAT as EMPTY,
)
from asgi_comet.protocol.frames import (
    SUBPROTOCOL,
    CloseCode,
    decode_frame,
    encode_error,
    encode_frame,
    encode_note,
    encode_run,
    join_frame,
    make_marked_run,
)
from asgi_comet.transports.access import (
    OWN_CHANNELS,
    Find,
    ProcessGone,
    Unshared,
    default_process,
    enter,
    recognise,
    require_people,
)
from asgi_comet.transports.limits import check_limits
from asgi_comet.transports.postponing import TryAgain, not_yet
from asgi_comet.transports.streaming import HEARTBEAT, Stream
from asgi_comet.transports.subscribing import (
    acknowledge,
    subscribe,
    subscribe_rest,
    unsubscribe,
)

__all__ = ["socket"]

CODES = {
    Wake.TIMEOUT: CloseCode.RESTART,
    Wake.DEACTIVATED: CloseCode.TRY_AGAIN_LATER,
    Wake.REPLACED: CloseCode.REPLACED,
    Wake.CLOSED: CloseCode.PROCESS_CLOSED,
    Wake.MOVED: CloseCode.RESTART,
}


async def socket(node: Node, find: Find, exchange: Exchange, life: float | None = None) -> None:
    """Serve one WebSocket.

    Args:
        node: The parts of the Comet.
        find: Finds the client process of the endpoint; `None` at the site's endpoint.
        exchange: The request, whose origin is checked.
        life: After how many seconds, about, the client is to connect anew; `None` is never.

    Raises:
        Refusal: The WebSocket is refused before it is accepted.
    """
    check_limits(node, exchange)
    process, code, reason = None, None, None
    try:
        process = await find()
        if process is None and b"cookie" in exchange.headers:
            await recognise(node, exchange)
    except ProcessGone:
        code = CloseCode.PROCESS_CLOSED
    except TryAgain:
        code = CloseCode.RESTART
    except Unshared as error:  # a browser would not learn the reason of a refused handshake
        code, reason = CloseCode.BAD_MESSAGE, str(error)
    await Socket(node, process, exchange, life).serve(code, reason)


class Socket(Stream):
    """One WebSocket.

    Args:
        node: The parts of the Comet.
        process: The client process of the connection, if any.
        exchange: The request.
        life: How many seconds the WebSocket lasts, about; `None` is without end.
    """

    __slots__ = ("_acknowledging", "_code", "_exchange", "_reason")

    def __init__(
        self,
        node: Node,
        process: Client | None,
        exchange: Exchange,
        life: float | None = None,
    ) -> None:
        super().__init__(node, process, exchange, life)
        self._exchange = exchange
        self._acknowledging = is_acknowledging(exchange.scope.get("query_string", b""))
        self._code: CloseCode | None = None  # the close code, after a wrong frame
        self._reason: str | None = None

    async def serve(self, code: CloseCode | None, reason: str | None = None) -> None:
        """Serve the WebSocket from the handshake to the end.

        Args:
            code: The code to close with at once; `None` serves the connection.
            reason: What the client is told before that.
        """
        self._reason = reason
        await self._exchange.receive()  # websocket.connect
        protocols = self._exchange.scope.get("subprotocols", ())
        chosen = SUBPROTOCOL if SUBPROTOCOL in protocols else None
        accept: Message = {"type": "websocket.accept", "subprotocol": chosen}
        if self._exchange.cookies:
            accept["headers"] = list(self._exchange.cookies)
        if not await self.send(accept):
            return
        code = self._cannot_begin(code) or await self._follow()
        if self._reason is not None:
            await self.send(self.sole_frame(encode_error(self._reason)))
        if code is not None:
            await self.send({"type": "websocket.close", "code": int(code), "reason": ""})

    def _cannot_begin(self, code: CloseCode | None) -> CloseCode | None:
        """Return the code to close with after the handshake, so that a browser sees the reason."""
        if not self.node.activation.active:
            self.counters.connections["deactivated"] += 1
            return CloseCode.TRY_AGAIN_LATER
        if self.node.drain.begun:
            return CloseCode.RESTART
        gone = self.process is not None and self.process.closed
        return CloseCode.PROCESS_CLOSED if gone else code

    async def _follow(self) -> CloseCode | None:
        try:
            enter(self.node, self._exchange, self.process, self, HEARTBEAT)
        except TryAgain:  # a login during the handshake
            return CloseCode.RESTART
        try:
            why = await self.follow()
        finally:
            self.settle()
        return self._code or CODES.get(why)

    async def on_message(self, message: Message) -> None:
        """Handle a frame of the client."""
        text = message.get("text")
        size = (
            len(message.get("bytes") or b"") if text is None else len(text.encode(errors="replace"))
        )
        if size > self.node.settings.frame_limit:
            self._fail(CloseCode.TOO_BIG)
            return
        try:
            if text is None:
                raise BadRequest("expected text, got bytes")
            await self._handle(text)
        except BadRequest as error:
            self._fail(CloseCode.BAD_MESSAGE, str(error))
        except Unshared as error:
            self._fail(CloseCode.BAD_MESSAGE, str(error))
        except Refusal as error:  # too many client processes
            self._fail(CloseCode.TRY_AGAIN_LATER, str(error))
        except TryAgain:
            self._fail(CloseCode.RESTART)
        except ProcessGone:
            self._fail(CloseCode.PROCESS_CLOSED)

    def _fail(self, code: CloseCode, reason: str | None = None) -> None:
        self._code, self._reason = code, reason
        self.finish(Wake.MESSAGE)

    async def _handle(self, text: str) -> None:
        node, most = self.node, self.node.settings.max_channels_per_request
        frame = decode_frame(text, most)
        if node.broker.shared:
            self._exchange.came = time.monotonic()  # as a new request for what it subscribes to
        unsubscribe(node, self, [*frame.unsubscribe, *frame.subscribe])
        count = len(self.cursors) + len(self.expected) + len(frame.subscribe)
        if count > most:
            raise BadRequest(f"expected at most {most} channels on one WebSocket, got {count}")
        await self._subscribe(frame.subscribe)
        self.release()
        acknowledge(node, self.process, frame.ack, (self,))

    async def _subscribe(self, starts: dict[str, Start]) -> None:
        if self.process is None and any(name.startswith("~") for name in starts):
            require_people(self.node, OWN_CHANNELS)
            await self._use_default()
        notices, elsewhere = subscribe(self.node, self.process, self, starts)
        if elsewhere:
            rest = {name: starts[name] for name in elsewhere}
            more = await subscribe_rest(self.node, self._exchange, self.process, self, rest)
            notices = [*notices, *more]
        for notice in notices:
            self.tell(self.note(notice))

    async def _use_default(self) -> None:
        """Attach to the default process, if the cookie names a session."""
        claim = self._exchange.claim
        if self.node.clients.shared and claim is not None:
            with not_yet():
                await self.node.clients.arrive([claim.id], default=True)
        process = await default_process(self.node, self._exchange)
        if process is not None:
            self.belong_to(process)

    # Encoding

    def encoder(self, feed: Feed) -> Encoder:
        """Return the encoder of messages as part of a frame."""
        marked = self._acknowledging and feed.want is not None
        return make_marked_run(feed.history.size) if marked else encode_run

    def sole_encoder(self, feed: Feed) -> Encoder:
        """Return the encoder of messages as a whole frame."""
        return encode_frame

    def moved(self, feed: Feed, offset: int) -> None:
        """Do nothing: every event has its own position."""

    def note(self, notice: Notice) -> str:
        """Encode an event."""
        return encode_note(notice)

    def frame(self, parts: list[Any]) -> Message:
        """Join events to one frame."""
        return self.sole_frame(join_frame(parts))

    def sole_frame(self, data: Any) -> Message:
        """Return one frame."""
        return {"type": "websocket.send", "text": data}

    def heartbeat(self) -> Message:
        """Return a frame without events."""
        return self.sole_frame(EMPTY)
