"""One connection to a primary, on which commands, replies and frames have one order.

Owns that order: replies belong to requests first come, first served, and no request leaves the line
early, even if the waiter is cancelled. A connection whose order is in doubt ends.
Must not know scripts by name, nor the steps after the end of a connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, NoReturn, TypeVar

import hiredis

from asgi_comet.brokers.redis.calls import Argument, Call
from asgi_comet.brokers.redis.dialing import Line
from asgi_comet.brokers.redis.scripts import load
from asgi_comet.errors import BrokerUnavailable
from asgi_comet.log_events import event

__all__ = ["NOT_NOW", "Connection", "ReplyError"]

_logger = logging.getLogger(__name__)

T = TypeVar("T")
OnFrame = Callable[[bytes, bytes], None]
"""Called with the topic and the frame, in the order in which Redis sent them among the replies."""

TIMEOUT = 2.0  # seconds without a reply or any other byte, after which Redis counts as dead
GRACE = 0.05  # seconds after the timeout, in which a loop that stood still reads the reply
READ_SIZE = 256 * 1024  # bytes
LOADS = 5  # times that a script is loaded again for one request
NOTHING: Any = object()

# The server is not a primary: another server is, or this one soon will be.
NOT_NOW = {"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"}
# Redis refused the command before running any of it.
REFUSED = NOT_NOW | {"OOM", "NOPERM", "NOAUTH", "NOREPLICAS", "MISCONF", "NOSCRIPT", "BUSY"}


class ReplyError(BrokerUnavailable):
    """Redis answered with an error.

    Attributes:
        code: The first word of the error, as `OOM` or `WRONGTYPE`.
    """

    def __init__(self, text: str) -> None:
        self.code: str = text.partition(" ")[0]
        super().__init__(f"Redis says: {text}", maybe_stored=self.code not in REFUSED)


class _Request(Generic[T]):
    """A request on its way, and the future of the reply."""

    __slots__ = ("call", "confirmations", "future", "loads", "sent")

    def __init__(
        self, call: Call[T], future: asyncio.Future[T], sent: float, confirmations: int = 0
    ) -> None:
        self.call = call
        self.future = future
        self.sent = sent
        self.confirmations = confirmations  # pushed by Redis in place of a reply
        self.loads = 0

    def settle(self, reply: Any) -> None:
        """Read the reply, even if the waiter is gone: reading may have an effect."""
        try:
            value = self.call.read(reply)
        except Exception as error:
            self.fail(error)
        else:
            if not self.future.done():
                self.future.set_result(value)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # a waiter may be gone


class Connection:
    """A connection; one task runs and owns the connection.

    Args:
        line: The streams of an accepted connection.
        on_frame: Takes the frames of subscribed topics. Exceptions are logged.
        timeout: After how many seconds without a byte a waiting request ends the connection.
    """

    def __init__(self, line: Line, on_frame: OnFrame, timeout: float = TIMEOUT) -> None:
        self._line = line
        self._on_frame = on_frame
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._written: deque[_Request[Any]] = deque()  # Redis may have received these
        self._unwritten: list[_Request[Any]] = []
        self._buffer: list[bytes] = []
        self._heard = self._loop.time()
        self._watch: asyncio.TimerHandle | None = None
        self._reason: str | None = None
        self._on_close: Callable[[], object] | None = None

    @property
    def closed(self) -> str | None:
        """The reason of the end; `None` while the connection lasts."""
        return self._reason

    def tell_end(self, function: Callable[[], object]) -> None:
        """Call a function when the connection ends; at most one function."""
        self._on_close = function

    # Requests. Each request is on its way when the method returns; the requests of one turn of the
    # loop are one write.

    def send(self, call: Call[T]) -> asyncio.Future[T]:
        """Send a command.

        Returns:
            The value of the reply, which is read on arrival, in order with the frames. The future
            raises `ReplyError` for an error, `BrokerUnavailable` if the connection has ended.
        """
        return self._send(call, 0)

    def subscribe(self, topics: Sequence[str]) -> asyncio.Future[None]:
        """Receive the frames of topics, from before the reply to the next request on."""
        return self._send(Call(("SUBSCRIBE", *topics), _confirmed), len(topics))

    def unsubscribe(self, topics: Sequence[str]) -> asyncio.Future[None]:
        """Receive no frames of topics, from before the reply to the next request on."""
        return self._send(Call(("UNSUBSCRIBE", *topics), _confirmed), len(topics))

    def _send(self, call: Call[T], confirmations: int) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        request = _Request(call, future, self._loop.time(), confirmations)
        if self._reason is not None:
            request.fail(BrokerUnavailable(self._reason))
        else:
            self._write(request)
        return future

    def _write(self, request: _Request[Any]) -> None:
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._unwritten.append(request)
        self._buffer.append(pack(request.call.command))
        if self._watch is None:
            self._look_after(self._timeout)

    def _flush(self) -> None:
        # A lost transport closes some turns before `run` learns of the loss. Then asyncio drops
        # the bytes without a word, and uvloop raises `RuntimeError`.
        if self._reason is None and not self._line.writer.is_closing():
            self._written += self._unwritten
            self._unwritten = []
            self._line.writer.write(b"".join(self._buffer))
        self._buffer.clear()

    # Replies

    async def run(self) -> NoReturn:
        """Take replies and frames until the connection ends.

        Raises:
            BrokerUnavailable: The connection has ended, with all waiting requests.
        """
        try:
            await self._read()
            self.close("Redis closed the connection")
        except (OSError, hiredis.ProtocolError) as error:
            self.close(f"the connection failed: {error}")
        finally:
            self.close("the connection is not wanted any more")
        raise BrokerUnavailable(self._reason or "")

    def close(self, reason: str) -> None:
        """End the connection, and fail all waiting requests. Idempotent."""
        if self._reason is not None:
            return
        self._reason = reason
        self._line.hang_up()
        if self._on_close is not None:
            self._on_close()
        if self._watch is not None:
            self._watch.cancel()
        for request in self._written:
            request.fail(BrokerUnavailable(reason, maybe_stored=True))
        for request in self._unwritten:
            request.fail(BrokerUnavailable(reason))
        self._written.clear()
        self._unwritten.clear()

    async def _read(self) -> None:
        parser = hiredis.Reader(notEnoughData=NOTHING)
        while self._reason is None and (data := await self._line.reader.read(READ_SIZE)):
            self._heard = self._loop.time()
            parser.feed(data)
            self._take_all(parser)

    def _take_all(self, parser: hiredis.Reader) -> None:
        gets, take_push, take_reply = parser.gets, self._take_push, self._take_reply
        while (reply := gets(False)) is not NOTHING:
            if type(reply) is hiredis.PushNotification:
                take_push(reply)
            else:
                take_reply(reply)
            if self._reason is not None:
                return

    def _take_push(self, push: Sequence[Any]) -> None:
        if push[0] == b"message":
            try:
                self._on_frame(push[1], push[2])
            except Exception:
                _logger.exception(
                    "a frame of %r could not be taken in", push[1], extra=event("internal.failed")
                )
        elif push[0] in (b"subscribe", b"unsubscribe"):
            self._confirm()

    def _confirm(self) -> None:
        """Take a confirmation, which arrives in order with the replies."""
        head = self._written[0] if self._written else None
        if head is None or head.confirmations == 0:
            self.close("Redis confirmed what was not asked for")
            return
        head.confirmations -= 1
        if head.confirmations == 0:
            self._written.popleft().settle(None)

    def _take_reply(self, reply: Any) -> None:
        if not self._written:
            self.close("Redis answered what was not asked for")
        elif isinstance(reply, hiredis.ReplyError):
            self._take_error(self._written.popleft(), ReplyError(str(reply)))
        elif self._written[0].confirmations:
            self.close("Redis answered where it was to confirm")
        else:
            self._written.popleft().settle(reply)

    def _take_error(self, request: _Request[Any], error: ReplyError) -> None:
        if error.code == "NOSCRIPT" and request.call.script and request.loads < LOADS:
            self._load(request)
            return
        request.fail(error)
        if error.code in NOT_NOW:
            self.close(error.reason)

    def _load(self, request: _Request[Any]) -> None:
        """Load a script that Redis does not know, and repeat the request, which did nothing."""
        assert request.call.script is not None  # noqa: S101 - checked by the caller
        request.loads += 1
        request.sent = self._loop.time()
        self.send(load(request.call.script))
        self._write(request)

    def _look_after(self, seconds: float, *, again: bool = False) -> None:
        due = self._loop.time() + seconds
        self._watch = self._loop.call_later(seconds, self._look, due, again)

    def _look(self, due: float, again: bool) -> None:
        """End the connection if Redis does not answer a request, though the loop turns."""
        self._watch = None
        waiting = self._written[0] if self._written else None
        if waiting is None:
            return
        now = self._loop.time()
        left = max(self._heard, waiting.sent) + self._timeout - now
        if left > 0:
            self._look_after(left)
        elif not again or now > due + GRACE:
            self._look_after(GRACE, again=True)
        else:
            self.close(f"Redis did not answer within {self._timeout:g} s")


def pack(command: tuple[Argument, ...]) -> bytes:
    """Encode a command as Redis reads it."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # takes any number
    return packed


def _confirmed(_: object) -> None:
    """Read the confirmations of a subscription, which carry no value."""
