"""Streams: connections that stay open and send messages as they are published.

Owns how streams of any transport send. If the server takes the bytes at once, the flush itself runs
`send` and wakes no task; otherwise, or if this is not known to be safe, the connection's own task
sends. Must not know the bytes.

A slow reader has one unfinished `send` for at most `Settings.send_timeout` seconds; then the server
drops all state of the connection, since ASGI cannot abort the socket. The client resumes from its
position when it reconnects.
"""

from __future__ import annotations

import logging
import random
from abc import abstractmethod
from collections.abc import Awaitable
from typing import Any

from anyio.lowlevel import checkpoint
from starlette.types import Message

from asgi_comet._runtime.stepping import Suspended, advance, is_direct
from asgi_comet._runtime.timers import RESOLUTION
from asgi_comet.channels.feed import Feed, Wake
from asgi_comet.http.exchange import Exchange, Patience
from asgi_comet.identity.process import Client
from asgi_comet.log_events import event
from asgi_comet.node.build import Node
from asgi_comet.transports.counting import transport_of
from asgi_comet.transports.lines import DISCONNECTS, OneTask, TwoTasks
from asgi_comet.transports.reader import Reader

__all__ = ["HEARTBEAT", "LIFE", "Stream"]

_logger = logging.getLogger(__name__)

HEARTBEAT = 15.0  # seconds of silence before a heartbeat
LIFE = 600.0  # seconds that a stream lasts, plus or minus 10 %
BURST = 16  # writes in a row before other tasks run
GRACE = 1.0  # seconds to finish a write once the stream is ending


class Stream(Reader):
    """One connection that stays open and gets messages as they are published.

    Args:
        node: The parts of the Comet.
        process: The client process of the connection, if any.
        exchange: The request.
        life: How many seconds the stream lasts, about; `None` is without end.
    """

    __slots__ = (
        "_beat_at",
        "_beating",
        "_busy",
        "_ending",
        "_ends_at",
        "_line",
        "_patience",
        "_send",
        "_sending",
        "_silent",
        "_stalled",
    )

    def __init__(
        self,
        node: Node,
        process: Client | None,
        exchange: Exchange,
        life: float | None = None,
    ) -> None:
        super().__init__(node, process, transport_of(node, exchange))
        direct = node.loop.asyncio and is_direct(exchange.send) and is_direct(exchange.receive)
        self._line = (OneTask if direct else TwoTasks)(exchange.receive)
        self._send = exchange.send
        self._busy = True  # its own task is sending, or has not begun yet
        self._sending: Awaitable[Any] | None = None  # a suspended `send`
        self._patience: Patience | None = None  # the time limit of the suspended `send`
        self._ending = False  # the stream is to end
        self._silent = False  # a heartbeat is due
        self._beating = False  # the suspended `send` is a heartbeat
        self._stalled = False  # the client did not read in time
        now = node.clock.now()
        self._beat_at = now + HEARTBEAT
        spread = 1 + random.uniform(-0.1, 0.1)  # noqa: S311 - spreads load, keeps no secret
        self._ends_at = now + life * spread if life is not None else float("inf")

    @abstractmethod
    def heartbeat(self) -> Message:
        """Return a heartbeat."""

    async def on_message(self, message: Message) -> None:
        """Handle a message of the client; `tell` queues the answer."""

    # In the connection's own task

    async def follow(self) -> Wake:
        """Send messages as they come, until the stream ends.

        Returns:
            The reason: `Wake.GONE` if the client has disconnected, `Wake.MESSAGE` if everything is
            sent.
        """
        try:
            async with self._line.open():
                while True:
                    await self._catch_up()
                    if self.woken is not None:
                        return self.woken
                    self.sole = self.choose_sole() if self._line.direct else None
                    self._busy = False
                    message = await self._line.next()
                    self._busy, self.sole = True, None
                    if message is None:
                        continue
                    if message["type"] in DISCONNECTS:
                        return self.gone()
                    await self.on_message(message)
                    await checkpoint()  # a flood of messages must not keep the loop
        finally:
            self._busy, self.sole = True, None
            if isinstance(self._sending, Suspended):
                self._sending.close()

    async def send(self, message: Message) -> bool:
        """Send a message from the own task; return whether the server took it in time."""
        try:
            sending: Any = self._send(message)
            done = False
            if self.node.loop.asyncio:  # not on trio: see `exchange`
                done, sending = advance(sending)
            return done or await self._carry_on(sending)
        except (
            OSError,
            RuntimeError,
        ) as error:  # uvloop raises RuntimeError for a closed transport
            _logger.debug("a stream was not taken: %r", error, extra=event("answer.lost"))
            return False

    def finish(self, why: Wake) -> None:
        """Let the own task end the stream, after the write in progress."""
        if self.woken is None:
            self.end(why)
            self.sole = None
            self.rouse()

    async def _catch_up(self) -> None:
        """Send everything there is, waiting for the server where needed."""
        turn = 0
        while True:
            turn += 1
            if self._sending is not None and not await self._finish_sending():
                self.gone()
                return
            if self.gaps:
                await self.recover()
            if self.woken is not None and not (self.woken is Wake.MESSAGE and self.told):
                return
            message = self.compose()
            if message is None:
                if self.gaps:
                    continue
                self.count_delivery(self.node.clock.now())
                if not self._silent:
                    return
                message, self._beating = self.heartbeat(), True
            self._silent = False
            self._beat_at = self.node.clock.now() + HEARTBEAT
            if not self._check_taken(await self.send(message)):
                self.gone()
                return
            self._beating = False
            if turn % BURST == 0:  # a long history and a fast client
                await checkpoint()

    async def _finish_sending(self) -> bool:
        """Finish a `send` that the flush has started."""
        sending, self._sending = self._sending, None
        assert sending is not None  # noqa: S101 - for the type checker
        try:
            return self._check_taken(await self._carry_on(sending))
        except (OSError, RuntimeError) as error:
            _logger.debug("a stream was not taken: %r", error, extra=event("answer.lost"))
            return False

    async def _carry_on(self, sending: Any) -> bool:
        """Await a suspended `send`, up to the time limit of a slow reader."""
        counters = self.node.runtime.counters
        counters.stalled += 1
        try:
            with Patience(self.node, self._limit(), self._give_up) as self._patience:
                await self._patience.wait(lambda: sending)
                self._beat_at = self.node.clock.now() + HEARTBEAT
                return not self._patience.interrupt.fired
        finally:
            counters.stalled -= 1
            self._beating = False
            self._patience = None
            if isinstance(sending, Suspended):
                sending.close()

    def _limit(self) -> float:
        """Return how many seconds a suspended `send` may take."""
        limit = GRACE if self._ending else self.node.settings.send_timeout
        # A server like uvicorn takes one write beyond its high-water mark at once, and suspends
        # the next one. So the client has not read since that write, and its time is running.
        return max(limit - HEARTBEAT, GRACE) if self._beating else limit

    def _give_up(self) -> None:
        """Drop the state of a client that does not read, without waiting for its task."""
        self.gone()
        self._stalled = True
        self.settle()

    def ended_by(self, *, stopping: bool) -> str:
        """Return the reason why the stream has ended, for the figures."""
        return "stalled" if self._stalled else super().ended_by(stopping=stopping)

    # In the flush

    def notice(self, feed: Feed, now: float) -> None:
        """Send new messages of a feed. Hot path: one site channel, taken by the server at once."""
        encode, cursors = self.sole, self.cursors
        if encode is None or len(cursors) != 1 or feed.closed is not None:
            delivered = self.counters.delivered
            self.wake(Wake.MESSAGE)
            if self.counters.delivered == delivered and self.has_news(feed):
                self.expect_delivery(feed.marked_at)
            return
        after = cursors.get(feed)
        if (
            after is None or after == feed.history.top
        ):  # the client may have changed to another feed
            return
        chunk = feed.render(encode, after, self.limit)
        if chunk is None:
            self._push()
            return
        cursors[feed] = chunk.upto
        counters = self.counters
        counters.delivered += chunk.count
        counters.delivered_bytes += chunk.size
        self._beat_at = now + HEARTBEAT
        message = chunk.message
        if message is None:
            message = chunk.message = self.sole_frame(chunk.data)
        if not chunk.taken:
            self.in_flight.append((feed, after, chunk))
        if self._step(message):
            if self.in_flight:
                self.taken()
            if chunk.upto != feed.history.top:
                self._push()

    def wake(self, why: Wake) -> None:
        """Send new messages, or end the stream."""
        if why is not Wake.MESSAGE:
            if why is not Wake.TIMEOUT or self.node.drain.begun:  # set_timeout is only for polls
                self._end(why)
        elif not self._busy:
            if self._line.direct:
                self._push()
            else:
                self.rouse()

    def _check_taken(self, done: bool) -> bool:
        """Record the writes in flight as taken, if the server took them; return whether it did."""
        if done:
            self.taken()
        return done

    def rouse(self) -> None:
        """Resume the own task."""
        self._line.rouse()

    def expire(self) -> None:
        """Send a heartbeat, or end the stream at the end of its life."""
        now = self.node.clock.now()
        if now >= self._ends_at:
            self._end(Wake.TIMEOUT)
            return
        silent = now >= self._beat_at
        if silent:
            self._beat_at = now + HEARTBEAT
        due = min(self._beat_at, self._ends_at) - now
        self.node.timers.start(self, max(due, RESOLUTION))
        if silent and self.woken is None:
            self._beat()

    def _end(self, why: Wake) -> None:
        self._ending = True
        self.finish(why)
        if self._patience is not None:
            self._patience.shorten(GRACE)

    def _beat(self) -> None:
        if self._line.direct and not self._busy:
            self._beating = not self._step(self.heartbeat())
        else:  # the own task sends it, when it is free
            self._silent = True
            self.rouse()

    def _push(self) -> None:
        """Send what the server takes at once, up to `BURST` writes."""
        for _ in range(BURST):
            message = None if self.woken is not None else self.compose()
            if message is None:
                if not self.gaps:
                    return
                break
            self._beat_at = self.node.clock.now() + HEARTBEAT
            if not self._check_taken(self._step(message)):
                return
        self._busy, self.sole = True, None  # the own task continues
        self.rouse()

    def _step(self, message: Message) -> bool:
        """Run a `send`; return whether it is done. If not, the own task finishes it."""
        sending: Any = self._send(message)
        try:
            yielded = sending.send(None)
        except StopIteration:
            return True
        except Exception as error:  # must not reach other listeners
            if isinstance(error, OSError | RuntimeError):
                _logger.debug("a stream was not taken: %r", error, extra=event("answer.lost"))
            else:
                _logger.exception("a stream was not taken", extra=event("internal.failed"))
            self.finish(Wake.GONE)
            return False
        self._busy, self.sole = True, None
        self._sending = Suspended(sending, yielded)
        self.rouse()
        return False
