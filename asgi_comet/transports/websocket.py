"""WebSocket: a stream whose channels come and go as the client says.

Owns the handshake, what each frame of the client does, and the close codes.
Source: docs/wire.md#websocket.
"""

from __future__ import annotations

from typing import Any

from starlette.types import Message

from asgi_comet.channels.feed import Encoder, Feed, Wake
from asgi_comet.core.messages import Notice, Start
from asgi_comet.errors import BadRequest
from asgi_comet.http.exchange import Exchange, Refusal
from asgi_comet.identity.process import ClientProcess
from asgi_comet.node.build import Hub
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
    Find,
    NotYet,
    ProcessGone,
    default_process,
    enter,
    recognise,
)
from asgi_comet.transports.limits import check_limits
from asgi_comet.transports.streaming import HEARTBEAT, Stream
from asgi_comet.transports.subscribing import (
    acknowledge,
    subscribe,
    subscribe_elsewhere,
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


async def socket(hub: Hub, find: Find, exchange: Exchange) -> None:
    """Serve one WebSocket.

    Args:
        hub: The rooms.
        find: Finds whose endpoint it came to; `None` is the site's.
        exchange: The request, whose origin is checked.

    Raises:
        Refusal: It is refused before it is accepted.
    """
    check_limits(hub, exchange)
    process, code = None, None
    try:
        process = await find()
        if process is None and b"cookie" in exchange.headers:
            await recognise(hub, exchange)
    except ProcessGone:
        code = CloseCode.PROCESS_CLOSED
    except NotYet:
        code = CloseCode.RESTART
    await Socket(hub, process, exchange).serve(code)


class Socket(Stream):
    """One WebSocket.

    Args:
        hub: The rooms.
        process: Whose it is; `None` for nobody's.
        exchange: The request.
    """

    __slots__ = ("_acknowledging", "_code", "_exchange", "_reason")

    def __init__(self, hub: Hub, process: ClientProcess | None, exchange: Exchange) -> None:
        super().__init__(hub, process, exchange)
        self._exchange = exchange
        self._acknowledging = is_acknowledging(exchange.scope.get("query_string", b""))
        self._code: CloseCode | None = None  # with what it is closed, because of what came
        self._reason: str | None = None

    async def serve(self, code: CloseCode | None) -> None:
        """Serve it from the handshake to its end.

        Args:
            code: With what it is closed at once; `None` if there is no reason.
        """
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
        """With what it is closed once it is open, so that a browser sees why."""
        if not self.hub.activation.active:
            return CloseCode.TRY_AGAIN_LATER
        if self.hub.drain.begun:
            return CloseCode.RESTART
        gone = self.process is not None and self.process.closed
        return CloseCode.PROCESS_CLOSED if gone else code

    async def _follow(self) -> CloseCode | None:
        try:
            enter(self.hub, self._exchange, self.process, self, HEARTBEAT)
        except NotYet:  # somebody logged in during the handshake
            return CloseCode.RESTART
        try:
            why = await self.follow()
        finally:
            self.settle()
        return self._code or CODES.get(why)

    async def on_message(self, message: Message) -> None:
        """Do what a frame says."""
        text = message.get("text")
        size = (
            len(message.get("bytes") or b"") if text is None else len(text.encode(errors="replace"))
        )
        if size > self.hub.settings.frame_limit:
            self._blame(CloseCode.TOO_BIG)
            return
        try:
            if text is None:
                raise BadRequest("expected text, got bytes")
            await self._obey(text)
        except BadRequest as error:
            self._blame(CloseCode.BAD_MESSAGE, str(error))
        except Refusal as error:  # too many client processes
            self._blame(CloseCode.TRY_AGAIN_LATER, str(error))
        except NotYet:
            self._blame(CloseCode.RESTART)

    def _blame(self, code: CloseCode, reason: str | None = None) -> None:
        self._code, self._reason = code, reason
        self.finish(Wake.MESSAGE)

    async def _obey(self, text: str) -> None:
        hub, most = self.hub, self.hub.settings.max_channels_per_request
        frame = decode_frame(text, most)
        unsubscribe(hub, self, [*frame.unsubscribe, *frame.subscribe])
        count = len(self.cursors) + len(self.expected) + len(frame.subscribe)
        if count > most:
            raise BadRequest(f"expected at most {most} channels on one WebSocket, got {count}")
        await self._subscribe(frame.subscribe)
        self.release()
        acknowledge(hub, self.process, frame.ack, (self,))

    async def _subscribe(self, starts: dict[str, Start]) -> None:
        if self.process is None and any(name.startswith("~") for name in starts):
            self._use_default()
        notices, elsewhere = subscribe(self.hub, self.process, self, starts)
        for name in elsewhere:
            notices = await subscribe_elsewhere(
                self.hub, self._exchange, self, name, starts[name], notices
            )
        for notice in notices:
            self.tell(self.note(notice))

    def _use_default(self) -> None:
        """From now on it is a connection of the default process, if the cookie names a session."""
        process = default_process(self.hub, self._exchange)
        if process is not None:
            self.belong_to(process)

    # How it is written

    def encoder(self, feed: Feed) -> Encoder:
        """Return what writes messages as part of a frame."""
        marked = self._acknowledging and feed.want is not None
        return make_marked_run(feed.history.size) if marked else encode_run

    def sole_encoder(self, feed: Feed) -> Encoder:
        """Return what writes messages as a frame."""
        return encode_frame

    def moved(self, feed: Feed, offset: int) -> None:
        """Nothing: every event has its own position."""

    def note(self, notice: Notice) -> str:
        """Write an event."""
        return encode_note(notice)

    def frame(self, parts: list[Any]) -> Message:
        """Put events together as one frame."""
        return self.sole_frame(join_frame(parts))

    def sole_frame(self, data: Any) -> Message:
        """Return one frame."""
        return {"type": "websocket.send", "text": data}

    def heartbeat(self) -> Message:
        """Return a frame without events."""
        return self.sole_frame(EMPTY)
