"""A connection that stays: what it is told goes out as it is published.

Owns the one way in which streams of any transport are sent. Where the server takes the bytes at
once, the flush itself runs `send`, and no task is woken; where it does not, or is not known to
allow that, the connection's own task carries on. Must not know the bytes.

A reader that does not keep up holds one unfinished `send` for `Settings.send_timeout` seconds, then
everything we have of it is dropped: ASGI cannot abort its socket. It resumes from its position when
it comes back.
"""

from __future__ import annotations

import logging
import random
from abc import abstractmethod
from collections.abc import Awaitable
from typing import Any, ClassVar

from anyio.lowlevel import checkpoint
from starlette.types import Message

from asgi_comet._runtime.stepping import Suspended, advance, is_direct
from asgi_comet._runtime.timers import RESOLUTION
from asgi_comet.channels.feed import Feed, Wake
from asgi_comet.http.exchange import Exchange, Patience
from asgi_comet.identity.process import ClientProcess
from asgi_comet.node.build import Hub
from asgi_comet.transports.lines import DISCONNECTS, OneTask, TwoTasks
from asgi_comet.transports.reader import Reader

__all__ = ["HEARTBEAT", "LIFE", "Stream"]

_logger = logging.getLogger(__name__)

HEARTBEAT = 15.0  # seconds of silence before a sign of life
LIFE = 600.0  # seconds a stream lives at most, 10 % more or less
BURST = 16  # writes in a row, after which others get their turn
GRACE = 1.0  # seconds that a write in progress has once the stream is to end


class Stream(Reader):
    """One connection that is told what is published while it is open.

    Args:
        hub: The rooms.
        process: Whose connection it is; `None` for nobody's.
        exchange: The request.
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
    )

    life: ClassVar[float | None] = None
    """Seconds that it lives at most."""

    def __init__(self, hub: Hub, process: ClientProcess | None, exchange: Exchange) -> None:
        super().__init__(hub, process)
        direct = hub.loop.asyncio and is_direct(exchange.send) and is_direct(exchange.receive)
        self._line = (OneTask if direct else TwoTasks)(exchange.receive)
        self._send = exchange.send
        self._busy = True  # its own task sends, or has still to begin
        self._sending: Awaitable[Any] | None = None  # a send that waits
        self._patience: Patience | None = None  # with it, while the task does
        self._ending = False  # somebody wants it to end now
        self._silent = False  # a sign of life is due
        self._beating = False  # what waits is one
        now = hub.clock.now()
        self._beat_at = now + HEARTBEAT
        spread = 1 + random.uniform(-0.1, 0.1)  # noqa: S311 - spreads load, keeps no secret
        self._ends_at = now + self.life * spread if self.life is not None else float("inf")

    @abstractmethod
    def heartbeat(self) -> Message:
        """Return a sign of life."""

    async def on_message(self, message: Message) -> None:
        """Do what the client says; `tell` what comes of it."""

    # What its own task does

    async def follow(self) -> Wake:
        """Send what there is as it comes, until the stream is to end.

        Returns:
            Why: `Wake.GONE` if there is nobody left to tell, `Wake.MESSAGE` if everything is told.
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
        """Send a message from its own task; tell whether the server took it in time."""
        try:
            sending: Any = self._send(message)
            done = False
            if self.hub.loop.asyncio:  # on trio not even this: see `exchange`
                done, sending = advance(sending)
            return done or await self._carry_on(sending)
        except (OSError, RuntimeError) as error:  # uvloop says a closed transport by RuntimeError
            _logger.debug("a stream was not taken: %r", error)
            return False

    def finish(self, why: Wake) -> None:
        """Let its own task end it, once what is being written is sent."""
        if self.woken is None:
            self.end(why)
            self.sole = None
            self.rouse()

    async def _catch_up(self) -> None:
        """Send all there is, waiting where the server does."""
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
                if not self._silent:
                    return
                message, self._beating = self.heartbeat(), True
            self._silent = False
            self._beat_at = self.hub.clock.now() + HEARTBEAT
            if not self._landed(await self.send(message)):
                self.gone()
                return
            self._beating = False
            if turn % BURST == 0:  # a long history for a client that reads fast
                await checkpoint()

    async def _finish_sending(self) -> bool:
        """Carry on a send that the flush has begun."""
        sending, self._sending = self._sending, None
        assert sending is not None  # noqa: S101 - for the type checker
        try:
            return self._landed(await self._carry_on(sending))
        except (OSError, RuntimeError) as error:
            _logger.debug("a stream was not taken: %r", error)
            return False

    async def _carry_on(self, sending: Any) -> bool:
        """Await a send that waits, for as long as a slow reader may take."""
        try:
            with Patience(self.hub, self._limit(), self._give_up) as self._patience:
                await self._patience.wait(lambda: sending)
                self._beat_at = self.hub.clock.now() + HEARTBEAT
                return not self._patience.interrupt.fired
        finally:
            self._beating = False
            self._patience = None
            if isinstance(sending, Suspended):
                sending.close()

    def _limit(self) -> float:
        """Seconds that a send which waits may go on."""
        limit = GRACE if self._ending else self.hub.settings.send_timeout
        # A server like uvicorn takes a write beyond its water mark at once, and has the next one
        # wait: then the client has left that one unread since, so its time has been running.
        return max(limit - HEARTBEAT, GRACE) if self._beating else limit

    def _give_up(self) -> None:
        """The client does not read: nothing of it is kept, whether or not its task hears that."""
        self.gone()
        self.settle()

    # What the flush does

    def notice(self, feed: Feed, now: float) -> None:
        """Send what has come on a feed. The hot path: one channel of the site, taken at once."""
        encode, cursors = self.sole, self.cursors
        if encode is None or len(cursors) != 1 or feed.closed is not None:
            self.wake(Wake.MESSAGE)
            return
        after = cursors.get(feed)
        if after is None or after == feed.history.top:  # it may have turned to another feed
            return
        rendered = feed.render(encode, after, self.limit)
        if rendered is None:
            self._push()
            return
        cursors[feed] = rendered.upto
        self._beat_at = now + HEARTBEAT
        message = rendered.message
        if message is None:
            message = rendered.message = self.sole_frame(rendered.data)
        if not rendered.handed:
            self.flight.append((feed, after, rendered))
        if self._step(message):
            if self.flight:
                self.land()
            if rendered.upto != feed.history.top:
                self._push()

    def wake(self, why: Wake) -> None:
        """Send what has come; or have the stream ended."""
        if why is not Wake.MESSAGE:
            if why is not Wake.TIMEOUT or self.hub.drain.begun:  # set_timeout is about polls
                self._end(why)
        elif not self._busy:
            if self._line.direct:
                self._push()
            else:
                self.rouse()

    def _landed(self, done: bool) -> bool:
        """Take note if the server has what was in flight, and tell so."""
        if done:
            self.land()
        return done

    def rouse(self) -> None:
        """Let its own task go on."""
        self._line.rouse()

    def expire(self) -> None:
        """Give a sign of life, or end when it has lived long enough."""
        now = self.hub.clock.now()
        if now >= self._ends_at:
            self._end(Wake.TIMEOUT)
            return
        silent = now >= self._beat_at
        if silent:
            self._beat_at = now + HEARTBEAT
        due = min(self._beat_at, self._ends_at) - now
        self.hub.timers.start(self, max(due, RESOLUTION))
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
        else:  # its own task does, when it is done with what it does
            self._silent = True
            self.rouse()

    def _push(self) -> None:
        """Send all there is, as far as the server takes it at once, and it is not too much."""
        for _ in range(BURST):
            message = None if self.woken is not None else self.compose()
            if message is None:
                if not self.gaps:
                    return
                break
            self._beat_at = self.hub.clock.now() + HEARTBEAT
            if not self._landed(self._step(message)):
                return
        self._busy, self.sole = True, None  # its own task goes on
        self.rouse()

    def _step(self, message: Message) -> bool:
        """Run a send; tell whether it is done. If not, the connection's own task carries it on."""
        sending: Any = self._send(message)
        try:
            yielded = sending.send(None)
        except StopIteration:
            return True
        except Exception as error:  # must not reach other listeners
            level = logging.DEBUG if isinstance(error, OSError | RuntimeError) else logging.ERROR
            _logger.log(level, "a stream was not taken: %r", error)
            self.finish(Wake.GONE)
            return False
        self._busy, self.sole = True, None
        self._sending = Suspended(sending, yielded)
        self.rouse()
        return False
