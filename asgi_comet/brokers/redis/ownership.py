"""The channels that this worker owns: each channel with a source has exactly one owner.

Owns the bids of this worker, and the fences under which the worker publishes the values of sources.
A bid that Redis has not answered is repeated with the same fence, so Redis recognises the bid.
Must not know how a source is read, nor how a connection is made.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.logs import Fenced
from asgi_comet.brokers.logs import Log as Window
from asgi_comet.brokers.redis.calls import Call, Log, fresh
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.records import name_of
from asgi_comet.brokers.redis.replies import Ended, Gone, Owned, Refused
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import Beginning
from asgi_comet.core.messages import Message

__all__ = ["Bid", "Ownership"]

Answer = Owned | Gone | Ended | Refused

ATTENTIVE = 0.05  # seconds until a worker bids for a channel that was handed over, at most
YOUNG = 3600.0  # seconds after which the age of a worker no longer counts
MOST = 500  # channels in one call


class Bid:
    """The offer of this worker to own one channel.

    Attributes:
        log: The channel.
        window: The window of this worker.
        continues: Whether the source goes on from the newest message.
        fence: The fence under which the worker owns the channel, or tries to; `""` for none.
        held: Whether the worker owns the channel.
        once: Whether no worker may own the channel after this one.
        told: Whether the host knows that this worker owns the channel.
        trying: Whether Redis has not answered yet.
        timer: The timer of a later attempt, if there is one.
        unknown: The owner, if no heartbeat has listed that worker.
    """

    __slots__ = (
        "continues",
        "fence",
        "held",
        "log",
        "once",
        "timer",
        "told",
        "trying",
        "unknown",
        "window",
    )

    def __init__(self, log: Log, window: Window, *, continues: bool, fence: str = "") -> None:
        self.log: Log = log
        self.window: Window = window
        self.continues: bool = continues
        self.fence: str = fence
        self.held: bool = bool(fence)
        self.once: bool = bool(fence)
        self.told: bool = False
        self.trying: bool = False
        self.unknown: str = ""
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Cancel the later attempt, if there is one."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Ownership:
    """The bids of a worker.

    Args:
        broker: The broker, which has the host, and knows whether the server drains.
        heartbeat: Has the id of the worker.
        send: Runs a script after all messages that were published before.
        scripts: The scripts.
        clock: The clock.

    Attributes:
        bids: The bids, by the name of the channel.
        elsewhere: How many members of families only other workers had at the last heartbeat.
    """

    def __init__(
        self,
        broker: Broker,
        heartbeat: Heartbeat,
        send: Callable[[Call[Any]], object],
        scripts: Scripts,
        clock: Clock,
    ) -> None:
        self.bids: dict[str, Bid] = {}
        self.elsewhere: int = 0
        self._broker = broker
        self._host = broker.host
        self._scripts = scripts
        self._heartbeat = heartbeat
        self._clock = clock
        self._send = send
        self._began = clock.now()
        self._numbers = itertools.count(1)
        self._connection: Connection | None = None

    @property
    def owning(self) -> bool:
        """Whether this worker owns a channel."""
        return any(bid.held for bid in self.bids.values())

    def members(self, *, held: bool = True) -> int:
        """Return how many members this worker owns, or has while other workers own them."""
        members = [bid for bid in self.bids.values() if not bid.once and "r" in bid.log.traits]
        return sum(bid.held is held for bid in members)

    def owns(self, name: str) -> bool:
        """Return whether this worker owns a channel."""
        bid = self.bids.get(name)
        return bid is not None and bid.held

    def make_fence(self) -> str:
        """Return a fence that was never used."""
        return f"{self._heartbeat.worker}:{next(self._numbers)}"

    def owned(self, window: Window) -> Bid:
        """Return the bid for a channel that this worker owns, with its fence.

        Raises:
            Fenced: This worker does not own the channel.
        """
        bid = self.find(window)
        if bid is None or not bid.held:
            raise Fenced(window.name)
        return bid

    # Bids

    def hold(self, log: Log, window: Window, fence: str) -> None:
        """Record that this worker has opened a channel as the only possible owner."""
        self.bids[log.keys.name] = Bid(log, window, continues=False, fence=fence)

    def bid(self, log: Log, window: Window, *, continues: bool) -> None:
        """Offer to own a channel."""
        found = self.find(window)
        if found is None:
            found = self.bids[log.keys.name] = Bid(log, window, continues=continues)
        found.window = window
        if found.held:
            self._tell(found, None)
        else:
            self._try(found)

    def release(self, window: Window, *, clean: bool) -> None:
        """Withdraw a bid; another worker may then own the channel."""
        bid = self.find(window)
        if bid is None:
            return
        self.drop(bid)
        if bid.fence and not bid.once:
            self._send(self._freeing(bid, bid.fence, clean=clean or not bid.held))

    def drop(self, bid: Bid) -> None:
        """Forget a bid whose channel has ended."""
        bid.cancel()
        if self.bids.get(bid.log.keys.name) is bid:
            del self.bids[bid.log.keys.name]

    def ended(self, window: Window, *, elsewhere: bool = False) -> None:
        """Forget a channel that has ended.

        Args:
            window: The window of this worker.
            elsewhere: Whether another worker has ended the channel, which does not know the owner.
        """
        bid = self.find(window)
        if bid is not None and not bid.once:
            self.release(window, clean=True)
        elif bid is not None:
            self.drop(bid)
            if elsewhere and bid.fence:
                owner = bid.fence.rpartition(":")[0]
                self._send(self._scripts.disown(bid.log.keys, owner))

    def leave(self, window: Window, *, closed: bool) -> None:
        """Forget a channel that this worker follows no more.

        Args:
            window: The window of this worker.
            closed: Whether the channel has ended; else another worker may own it.
        """
        bid = self.find(window)
        own = bid is not None and bid.once and bid.log.keys.process
        if closed or own:  # an own channel with such a source has ended with its client process
            self.ended(window, elsewhere=True)
        elif bid is not None and not bid.held:
            self.release(window, clean=True)

    def renew(self, window: Window) -> None:
        """Give an owned channel another epoch, after all values of the source so far."""
        bid = self.find(window)
        if bid is not None and bid.held:
            self._send(self._scripts.renew(bid.log, fresh(), fence=bid.fence))

    def fenced(self, name: str, fence: str) -> None:
        """Record that Redis has refused a fence, and bid again."""
        bid = self.bids.get(name)
        if bid is not None and bid.fence == fence:
            self._lose(bid)
            self._try(bid)

    def confirm(self, name: str) -> None:
        """Ask whether this worker still owns a channel, which has another epoch."""
        bid = self.bids.get(name)
        if bid is not None and bid.held and not bid.trying and self._connection is not None:
            self._ask(self._connection, bid)

    def take(self, frame: bytes) -> None:
        """Take a frame that reports a channel without an owner."""
        bid = self.bids.get(frame[3:].decode())
        if bid is None or bid.held or bid.timer is not None:
            return
        if frame.startswith(b"f1"):  # the youngest worker first: likely the last to stop
            age = min(self._clock.now() - self._began, YOUNG)
            pause = ATTENTIVE * age / YOUNG
        else:  # of a worker that died: its channels go to several workers
            pause = random.uniform(0, self._host.heartbeat / 10)  # noqa: S311 - no secret
        bid.timer = asyncio.get_running_loop().call_later(pause, self._try_later, bid)

    def try_again(self, name: str) -> None:
        """Bid again for a channel that was seen without an owner, if this worker has bid before."""
        bid = self.bids.get(name)
        if bid is not None:
            self._try(bid)

    # A connection

    async def begin(self, beginning: Beginning) -> None:
        """Repeat all bids on a new connection."""
        self._connection = beginning.connection
        self.check_worker()
        for bid in list(self.bids.values()):
            bid.trying = False
            if bid.held:
                self._ask(beginning.connection, bid)
            else:
                self._try(bid)

    def check_worker(self) -> None:
        """Apply a heartbeat; lose all channels if the other workers took this one for dead."""
        worker = self._heartbeat.worker
        self.elsewhere = max(self._heartbeat.elsewhere - self.members(held=False), 0)
        for bid in list(self.bids.values()):
            if bid.fence and bid.fence.rpartition(":")[0] != worker:
                self._lose(bid)

    async def look(self, connection: Connection, living: frozenset[str]) -> None:
        """Bid for channels that have no owner, or an owner that no worker knows.

        Args:
            connection: The connection.
            living: The workers whose heartbeats last.
        """
        open_ = [bid for bid in self.bids.values() if not bid.held and not bid.once]
        for begin in range(0, len(open_), MOST):
            some = open_[begin : begin + MOST]
            tops = await connection.send(self._scripts.tops([bid.log.keys for bid in some]))
            for bid, standing in zip(some, tops.logs, strict=True):
                if standing is not None and not standing.closed:
                    self._look_at(bid, standing.owner, living)

    def _look_at(self, bid: Bid, owner: str, living: frozenset[str]) -> None:
        if not owner:
            self._try(bid)
        elif owner in living:
            bid.unknown = ""
        elif owner != bid.unknown:
            bid.unknown = owner  # this owner may have joined since the last heartbeat
        else:  # Redis has lost all data, with this owner's heartbeat
            self._send(self._scripts.inherit(bid.log.keys, owner, 0))

    def _freeing(self, bid: Bid, fence: str, *, clean: bool) -> Call[bool]:
        """Return the call that gives up what this worker owns under a fence."""
        owner = fence.rpartition(":")[0]
        return self._scripts.free(bid.log.keys, owner, fence, clean=clean)

    def _try_later(self, bid: Bid) -> None:
        bid.timer = None
        self._try(bid)

    def _try(self, bid: Bid) -> None:
        connection = self._connection
        if connection is None or bid.trying or bid.held or bid.once or self._broker.draining:
            return
        if self.bids.get(bid.log.keys.name) is not bid:
            return  # withdrawn while this worker looked for channels without an owner
        bid.fence = bid.fence or self.make_fence()
        self._ask(connection, bid)

    def _ask(self, connection: Connection, bid: Bid) -> None:
        bid.trying = True
        log, worker = bid.log, self._heartbeat.worker
        keep = bid.continues or log.kind == "N"  # a newest channel misses nothing
        call = self._scripts.own(log, worker, bid.fence, fresh(), keep=keep)
        answered = partial(self._answered, connection, bid, bid.fence)
        connection.send(call).add_done_callback(answered)

    def _answered(
        self, connection: Connection, bid: Bid, fence: str, reply: asyncio.Future[Answer]
    ) -> None:
        bid.trying = False
        if self.bids.get(bid.log.keys.name) is not bid or reply.exception() is not None:
            return  # withdrawn; or asked again on the next connection
        answer = reply.result()
        if fence != bid.fence:  # Redis has refused the fence meanwhile
            if isinstance(answer, Owned):
                self._give_back(connection, bid, fence, clean=answer.left in ("first", "clean"))
            else:
                self._try(bid)
        elif isinstance(answer, Owned):
            bid.held = True
            self._tell(bid, answer.newest)
        else:
            self._lose(bid)

    def _give_back(self, connection: Connection, bid: Bid, fence: str, *, clean: bool) -> None:
        """Give up what this worker owns under a refused fence, and only then bid again.

        To a bid that comes first, the fence would be one of an owner that was killed.
        """
        call = self._freeing(bid, fence, clean=clean)
        bid.trying = True
        connection.send(call).add_done_callback(partial(self._given_back, bid))

    def _given_back(self, bid: Bid, reply: asyncio.Future[bool]) -> None:
        del reply  # a lost connection is replaced, and the bid repeated
        bid.trying = False
        self._try(bid)

    def _tell(self, bid: Bid, newest: Message | None) -> None:
        if not bid.told:
            bid.told = True
            self._host.owned(bid.window, newest)

    def _lose(self, bid: Bid) -> None:
        told, bid.fence, bid.held, bid.told = bid.told, "", False, False
        if told:
            self._host.disowned(bid.window)

    def find(self, window: Window) -> Bid | None:
        """Return the bid for a channel."""
        bid = self.bids.get(name_of(window))
        return bid if bid is not None and bid.window.origin is window.origin else None
