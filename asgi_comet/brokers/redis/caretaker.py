"""The duties of a worker towards all workers, as long as a connection lasts.

Owns the pace of heartbeats, the channels that dead workers leave, and the end of channels that no
worker uses. Must not know how a source is read, nor how a connection is made.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.base import Host
from asgi_comet.brokers.logs import Log as Window
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.following import Following
from asgi_comet.brokers.redis.foreign import passing_over
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.ownership import Bid, Ownership
from asgi_comet.brokers.redis.scripts import Scripts

__all__ = ["Caretaker"]

T = TypeVar("T")

# In lives of a heartbeat.
BEAT = 0.3  # between two heartbeats
NOTICED = 1.5  # a living worker notices a dead connection, and subscribes again
SETTLED = 6  # after a new connection, all workers have subscribed again
UNSEEN = 6  # between two looks at a channel without an owner

ASKED = 3  # looks without another subscriber, after which a channel ends
ROUND = 16  # heartbeats in which all partitions are swept once
MOST = 500  # channels in one call
LINGER = 60_000  # ms that Redis keeps the messages of a channel whose worker died


@dataclass(slots=True)
class Retired:
    """An owned channel that this worker has not used for a while.

    Attributes:
        bid: The bid for the channel.
        linger: How many seconds the channel may stay unused.
        since: The time from which on no other worker was subscribed.
        asked: How many looks have found no other worker since.
    """

    bid: Bid
    linger: float
    since: float
    asked: int = 0


class Caretaker:
    """Takes care of channels without a living worker.

    Args:
        host: The worker.
        scripts: The scripts.
        clock: The clock.
        heartbeat: The heartbeat.
        ownership: The channels of this worker.
        following: The windows of this worker.
    """

    def __init__(
        self,
        host: Host,
        scripts: Scripts,
        clock: Clock,
        heartbeat: Heartbeat,
        ownership: Ownership,
        following: Following,
    ) -> None:
        self._host = host
        self._scripts = scripts
        self._clock = clock
        self._heartbeat = heartbeat
        self._ownership = ownership
        self._following = following
        self._retired: dict[str, Retired] = {}
        self._evicted: list[Retired] = []  # to be ended at once
        self._work = asyncio.Event()
        self._partition = 0
        self._connected = -math.inf

    def retire(self, window: Window, linger: float) -> bool:
        """End an owned channel once no worker uses it; return whether this worker owns it."""
        bid = self._ownership.find(window)
        if bid is None or not bid.held:
            return False
        one = self._retired.setdefault(window.name, Retired(bid, linger, self._clock.now()))
        if not linger:
            self._evicted.append(one)
            self._host.run_soon(self._work.set)
        return True

    async def evict(self, connection: Connection) -> NoReturn:
        """End channels in place of which others were made, unless other workers follow them."""
        work = self._work = asyncio.Event()  # this loop may differ from the one before
        while True:
            evicted, self._evicted = self._evicted, []
            for one in evicted:
                if one.bid.held and not self._host.in_use(one.bid.window):
                    await self._end(connection, one, linger=0)
            await work.wait()
            work.clear()

    async def run(self, connection: Connection) -> None:
        """Send heartbeats, inherit, and end unused channels, until the connection ends."""
        self._connected = self._clock.now()
        while not self._heartbeat.departed:
            beat = await self._heartbeat.beat(connection)
            self._ownership.check_worker()
            for dead in beat.dead:
                await self._inherit(connection, dead)
            await self._ownership.look(connection, beat.living)
            await self._end_unused(connection)
            if beat.calm:
                await self._sweep(connection)
            await self._clock.sleep_until(self._clock.now() + BEAT * self._host.heartbeat)

    async def _inherit(self, connection: Connection, dead: str) -> None:
        """Free the channels of a dead worker, or end those whose source is lost."""
        keys = self._scripts.keys
        owned = await _all(connection, self._scripts.owned_by(dead))
        names = [name for some in owned for name in some]
        calls = [self._scripts.inherit(keys.named(name), dead, LINGER) for name in names]
        for begin in range(0, len(calls), MOST):
            await _all(connection, calls[begin : begin + MOST])
        await connection.send(self._scripts.inherited(dead))

    async def _end_unused(self, connection: Connection) -> None:
        """Look at the channels that this worker has retired."""
        bids = self._ownership.bids
        for name in [name for name, one in self._retired.items() if bids.get(name) is not one.bid]:
            del self._retired[name]
        for name, one in list(self._retired.items()):
            if not one.bid.held and not self._host.in_use(one.bid.window):
                # Another worker owns the channel by now, and ends it.
                del self._retired[name]
                self._host.ended(one.bid.window, "unused")
        everything = list(self._retired.values())
        for begin in range(0, len(everything), MOST):
            some = everything[begin : begin + MOST]
            counts = await connection.send(self._scripts.others([one.bid.log.keys for one in some]))
            for one, count in zip(some, counts, strict=True):
                if self._is_unused(one, count):
                    await self._end(connection, one, linger=one.linger)

    def _is_unused(self, one: Retired, count: int) -> bool:
        """Return whether no worker uses a channel, as far as this worker can see."""
        name, now = one.bid.log.keys.name, self._clock.now()
        others = count - (self._following.find(name) is not None)
        if others > 0 or self._host.in_use(one.bid.window):
            one.since, one.asked = now, 0
            return False
        one.asked += 1
        life = self._host.heartbeat
        long = now - one.since >= max(one.linger, NOTICED * life)
        settled = self._heartbeat.calm and now - self._connected >= SETTLED * life
        return one.asked >= ASKED and long and settled

    async def _end(self, connection: Connection, one: Retired, *, linger: float) -> None:
        """End a channel unless another worker has begun to use the channel."""
        bid = one.bid
        keys, name = bid.log.keys, bid.log.keys.name
        replica = self._following.find(name)
        if replica is not None:
            connection.unsubscribe([keys.topic])
        owner = bid.fence.rpartition(":")[0]
        call = self._scripts.unused(keys, int(linger * 1000), owner=owner, fence=bid.fence)
        if await connection.send(call):
            self._retired.pop(name, None)
            self._ownership.drop(bid)
            self._host.ended(bid.window, "unused")
        elif replica is not None and self._following.find(name) is replica:
            connection.subscribe([keys.topic])
            replica.catch_up(connection)

    async def _sweep(self, connection: Connection) -> None:
        """End unowned channels that no worker uses, a share of the partitions at a time."""
        scripts, unseen = self._scripts, int(UNSEEN * self._host.heartbeat * 1000)
        for _ in range(math.ceil(scripts.keys.partitions / ROUND)):
            partition = self._partition
            self._partition = (partition + 1) % scripts.keys.partitions
            with passing_over(partition):
                names = await connection.send(scripts.sweep(partition, unseen))
                keys = [scripts.keys.site(name) for name in names]
                await _all(
                    connection, [scripts.unused(k, unseen, owner="", fence="") for k in keys]
                )


async def _all(connection: Connection, calls: Sequence[Call[T]]) -> list[T]:
    """Run scripts in one write."""
    return list(await asyncio.gather(*[connection.send(call) for call in calls]))
