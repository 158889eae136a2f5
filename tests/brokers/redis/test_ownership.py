"""Which worker owns a channel, when workers die, stall, or lose what Redis knew of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet import BrokerUnavailable
from asgi_comet.brokers.logs import ChannelSpec, Fenced
from asgi_comet.brokers.redis import RedisBroker, flusher
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.queueing import BATCH
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.testing._inspect_redis import redis_tables
from asgi_comet.testing.clock import ManualClock
from asgi_comet.testing.party import Party, position
from asgi_comet.testing.window import Window
from tests.kit import redis_workers
from tests.kit.redis import Client, RedisServer
from tests.kit.redis_proxy import RedisProxy, turns
from tests.kit.redis_workers import living

pytestmark = pytest.mark.anyio

KEYS = Keys()


class Worker(redis_workers.Worker):
    """A worker that may stand still.

    Attributes:
        clock: What its heartbeats follow; they stand still until it is advanced.
    """

    def __init__(self, url: str, *, stalled: bool = False) -> None:
        self.clock = ManualClock() if stalled else None
        super().__init__(url, clock=self.clock, timeout=20)

    async def drive(self, reached: Callable[[], bool]) -> None:
        """Let the time of a stalled worker pass, until a condition holds."""
        assert self.clock is not None
        while not reached():
            self.clock.advance(0.3)
            await turns()

    async def beats(self, count: int) -> None:
        """Let a stalled worker beat so many times, and do all that belongs to a beat."""
        assert self.clock is not None
        for _ in range(count):
            self.clock.advance(0.3)
            for _ in range(5):
                with suppress(BrokerUnavailable):  # the worker begins anew
                    await self.redis.find("nothing")  # whatever was asked before is answered


async def owner(workers: list[Worker], logs: list[Window]) -> int:
    """Wait until one of the workers owns the channel, and tell which."""

    def found() -> list[int]:
        return [number for number, log in enumerate(logs) if log.owned > log.disowned]

    async with anyio.create_task_group() as tasks:

        async def wait(worker: Worker) -> None:
            await worker.until(lambda: bool(found()))
            tasks.cancel_scope.cancel()

        for worker in workers:
            tasks.start_soon(wait, worker)
    (one,) = found()
    return one


@asynccontextmanager
async def taken_over(redis: RedisServer) -> AsyncIterator[tuple[Worker, Worker, Window, Window]]:
    """Have a worker own the channel of a worker that stands still; return both, and the windows."""
    slow, quick = Worker(redis.url, stalled=True), Worker(redis.url)
    async with living(slow, quick):
        mine, theirs = [await one.make("a", adopt=True, sourced=True) for one in (slow, quick)]
        slow.broker.bid(mine)
        await slow.until(lambda: mine.owned == 1)
        quick.broker.bid(theirs)
        await quick.until(lambda: theirs.owned == 1)  # the other has not beaten for a second
        yield slow, quick, mine, theirs


async def test_channels_of_a_worker_that_dies_move_and_those_it_alone_could_read_fail(
    redis: RedisServer, client: Client
) -> None:
    workers = [Worker(redis.url) for _ in range(3)]
    async with living(*workers):
        logs = [await worker.make("a", adopt=True, sourced=True) for worker in workers]
        await workers[0].make("once", sourced=True)
        heard = await workers[1].join("once")
        kept = await workers[2].join("once")
        workers[0].broker.bid(logs[0])
        await workers[0].until(lambda: logs[0].owned == 1)
        first = await position(logs[0], workers[0].broker.append(logs[0], b"1", sourced=True))
        for worker, log in zip(workers[1:], logs[1:], strict=True):
            worker.broker.bid(log)
        workers[0].die()
        heir = 1 + await owner(workers[1:], logs[1:])
        await workers[1].until(lambda: heard.closed == "failed")
        await workers[2].until(lambda: kept.closed == "failed")
        place = await position(
            logs[heir], workers[heir].broker.append(logs[heir], b"2", sourced=True)
        )
        assert place.epoch != first.epoch  # what the dead worker had read last may be lost
        workers[heir].die()  # it may not have finished the estate of the other
        last = 3 - heir
        await workers[last].until(lambda: logs[last].owned == 1)
        await workers[last].until(lambda: logs[last].epoch != place.epoch)
        assert logs[last].disowned == 0
        while client.hlen(KEYS.dead):
            await anyio.lowlevel.checkpoint()


async def test_a_worker_that_stalls_for_too_long_publishes_nothing_more_of_a_source(
    redis: RedisServer,
) -> None:
    async with taken_over(redis) as (slow, quick, mine, theirs):
        stored = slow.broker.append(mine, b"late", sourced=True)
        with pytest.raises(Fenced):
            await position(mine, stored)
        assert (mine.owned, mine.disowned) == (1, 1)
        with pytest.raises(Fenced):
            slow.broker.append(mine, b"later", sourced=True)
        await position(theirs, quick.broker.append(theirs, b"x", sourced=True))
        assert theirs.seen == [b"x"]
        await slow.beats(3)  # it joins anew, and bids again
        quick.broker.release(theirs, clean=True)
        await slow.drive(lambda: mine.owned == 2)
        await position(mine, slow.broker.append(mine, b"y", sourced=True))
        await quick.until(lambda: theirs.seen == [b"x", b"y"])


async def test_a_worker_that_others_took_for_dead_owns_nothing_until_it_bids_anew(
    redis: RedisServer,
) -> None:
    async with taken_over(redis) as (slow, quick, mine, theirs):
        await slow.drive(lambda: mine.disowned == 1)  # by its own heartbeat
        with pytest.raises(Fenced):
            slow.broker.append(mine, b"late", sourced=True)
        slow.broker.release(mine, clean=True)  # which no other worker notices
        await position(theirs, quick.broker.append(theirs, b"x", sourced=True))


async def test_an_owner_that_no_worker_knows_is_inherited(
    redis: RedisServer, client: Client
) -> None:
    gone, one, two = Worker(redis.url), Worker(redis.url), Worker(redis.url)
    async with living(gone, one, two):
        logs = [await worker.make("a", adopt=True, sourced=True) for worker in (gone, one, two)]
        gone.broker.bid(logs[0])
        await gone.until(lambda: logs[0].owned == 1)
        one.broker.bid(logs[1])
        two.broker.bid(logs[2])
        gone.die()
        client.delete(KEYS.workers, KEYS.dead, KEYS.members)
        await owner([one, two], logs[1:])


async def test_a_channel_that_has_no_owner_is_bid_for_though_no_frame_said_so(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with living(one, two):
        logs = [await worker.make("a", adopt=True, sourced=True) for worker in (one, two)]
        lost = [await worker.make("lost", adopt=True, sourced=True) for worker in (one, two)]
        for mine in (lost[0], logs[0]):
            one.broker.bid(mine)
        await one.until(lambda: lost[0].owned == logs[0].owned == 1)
        for theirs in (lost[1], logs[1]):
            two.broker.bid(theirs)
        for _ in range(5):
            await two.redis.find("nothing")
        client.delete(KEYS.site("lost").meta)  # there is nothing to bid for
        client.hdel(KEYS.site("a").meta, "o", "x")
        await two.until(lambda: logs[1].owned == 1)


async def test_a_bid_is_withdrawn_before_redis_has_answered(redis: RedisServer) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with living(one, two):
        logs = [await worker.make("a", adopt=True, sourced=True) for worker in (one, two)]
        one.broker.bid(logs[0])
        one.broker.release(logs[0], clean=False)
        one.broker.release(logs[0], clean=False)  # there is no bid any more
        one.broker.renew(logs[0])  # nor an owner
        two.broker.bid(logs[1])
        await two.until(lambda: logs[1].owned == 1)
        assert logs[0].owned == 0
        one.broker.bid(logs[0])
        for _ in range(5):
            await one.redis.find("nothing")
        two.broker.release(logs[1], clean=False)
        one.broker.release(logs[0], clean=True)  # maybe while it is about to bid
        two.broker.bid(logs[1])
        await two.until(lambda: logs[1].owned == 2)


async def test_a_bid_that_is_withdrawn_while_the_worker_looks_for_owners_owns_nothing(
    redis: RedisServer, client: Client
) -> None:
    one = Worker(redis.url, stalled=True)
    async with living(one):
        log = await one.make("a", adopt=True, sourced=True)
        meta = KEYS.site("a").meta
        for count in range(100):
            client.hset(meta, "o", "other")
            one.broker.bid(log)
            await one.redis.find("a")  # the bid was refused by now
            client.hdel(meta, "o")
            assert one.clock is not None
            one.clock.advance(one.heartbeat)
            await turns(count)
            one.broker.release(log, clean=True)
            for _ in range(3):
                await one.redis.find("a")
            assert not client.hget(meta, "o"), count


async def test_bids_are_repeated_on_a_new_connection(redis: RedisServer) -> None:
    async with RedisProxy(redis).run() as proxy:
        one, two = Worker(proxy.url), Worker(redis.url)
        async with living(one, two):
            logs = [await worker.make("a", adopt=True, sourced=True) for worker in (one, two)]
            owned = await one.make("b", adopt=True, sourced=True)
            one.broker.bid(owned)
            await one.until(lambda: owned.owned == 1)
            two.broker.bid(logs[1])
            await two.until(lambda: logs[1].owned == 1)
            one.broker.bid(logs[0])
            await turns(1)
            proxy.reset()
            two.broker.release(logs[1], clean=True)
            await one.until(lambda: logs[0].owned == 1)
            assert (owned.owned, owned.disowned) == (1, 0)
            await position(owned, one.broker.append(owned, b"x", sourced=True))


async def test_readers_are_told_full_if_a_value_of_a_source_may_not_be_stored(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flusher, "FORGOTTEN", 0)
    async with RedisProxy(redis).run() as proxy:
        one = Worker(proxy.url)
        async with living(one):
            log = await one.make("a", adopt=True, sourced=True)
            one.broker.bid(log)
            await one.until(lambda: log.owned == 1)
            await position(log, one.broker.append(log, b"x", sourced=True))
            before = log.epoch
            proxy.harm.mute = True
            value = one.broker.append(log, b"y", sourced=True)
            with pytest.raises(BrokerUnavailable):
                await position(log, value)
            proxy.harm.mute = False
            proxy.reset()
            await one.until(lambda: log.epoch != before)
            proxy.harm.mute = True
            value = one.broker.append(log, b"z", sourced=True)
            one.broker.release(log, clean=False)  # the next owner tells the readers
            with pytest.raises(BrokerUnavailable):
                await position(log, value)
            proxy.harm.mute = False
            proxy.reset()


@pytest.mark.parametrize("other", [False, True], ids=["same owner", "other owner"])
async def test_a_fence_that_redis_knows_no_more_is_replaced(
    redis: RedisServer, client: Client, other: bool
) -> None:
    async with RedisProxy(redis).run() as proxy:
        one = Worker(proxy.url, stalled=True)
        async with living(one):
            log = await one.make("a", adopt=True, sourced=True)
            one.broker.bid(log)
            await one.until(lambda: log.owned == 1)
            beside = await one.make("b", size=BATCH)
            meta = KEYS.site("a").meta
            owner = "other" if other else client.hget(meta, "o").decode()
            client.hset(meta, mapping={"o": owner, "x": f"{owner}:0"})
            proxy.reset()
            while one.redis.serving.connection is not None:
                await anyio.lowlevel.checkpoint()
            for _ in range(BATCH):
                one.broker.append(beside, b"x")
            # Of the next batch, which is refused after the bid was repeated, and before the answer.
            stored = one.broker.append(log, b"late", sourced=True)
            await one.drive(lambda: log.owned == 2)
            with pytest.raises(Fenced):
                await position(log, stored)
            assert log.disowned == 1
            await position(log, one.broker.append(log, b"x", sourced=True))


async def test_readers_are_told_full_once_if_redis_has_lost_the_owner(
    redis: RedisServer, client: Client
) -> None:
    """The worker owns the channel again before it is told that a value was refused meanwhile."""
    async with RedisProxy(redis).run() as proxy:
        one = Worker(proxy.url)
        async with living(one):
            log = await one.make("a", adopt=True, sourced=True)
            one.broker.bid(log)
            await one.until(lambda: log.owned == 1)
            beside = await one.make("b", size=BATCH)
            meta, epoch = KEYS.site("a").meta, log.epoch
            client.hdel(meta, "o", "x", "h", "y")  # as in a record that was made anew
            proxy.reset()
            while one.redis.serving.connection is not None:
                await anyio.lowlevel.checkpoint()
            for _ in range(BATCH):
                one.broker.append(beside, b"x")
            stored = one.broker.append(log, b"late", sourced=True)
            await one.until(lambda: log.owned == 2)
            with pytest.raises(Fenced):
                await position(log, stored)
            await position(log, one.broker.append(log, b"x", sourced=True))
            assert client.hget(meta, "e").decode() == epoch


async def test_a_reader_that_asks_before_there_is_an_owner_wakes_the_next_one(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with living(one, two):
        log = await one.make("a")
        two.broker.want(await two.join("a"), 7)
        record = Keys().site("a").meta
        while client.hget(record, "v") is None:
            await anyio.lowlevel.checkpoint()
        one.broker.bid(log)
        await one.until(lambda: log.wanted == 7)
        assert client.hget(record, "v") is None


async def test_a_reader_wakes_the_owner_of_an_on_demand_source(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    window = Window(ChannelSpec(name="a", kind="site", size=1, max_bytes=1))
    two.broker.want(window, 1)  # there is no connection
    async with living(one, two):
        log = await one.make("a", sourced=True)
        other = await two.join("a")
        two.broker.want(other, 7)
        await one.until(lambda: log.wanted == 7)
        one.broker.want(log, 8)
        await one.until(lambda: log.wanted == 8)
        for frame in ("w9 nothing", "z", "p0"):  # none of these concerns the worker
            client.publish(one.redis.inbox.topic, frame)
        one.broker.want(log, 9)
        await one.until(lambda: log.wanted == 9)


async def test_a_source_cannot_be_owned_while_redis_is_away(
    make_redis: Callable[..., RedisServer],
) -> None:
    redis = make_redis()
    redis.stop()
    party = Party(RedisBroker(redis.url, timeout=0.05))
    async with party.running():
        spec = ChannelSpec(name="a", kind="site", size=1, max_bytes=1, sourced=True)
        window = Window(spec)
        with pytest.raises(BrokerUnavailable):
            await party.broker.open(window)
        party.broker.bid(window)
        with pytest.raises(Fenced):
            party.broker.append(window, b"x", sourced=True)


# Members that no worker uses


async def test_a_member_ends_once_no_worker_uses_it(redis: RedisServer, client: Client) -> None:
    one, two = Worker(redis.url, stalled=True), Worker(redis.url)
    async with living(one, two):
        log = await one.make("a", adopt=True, sourced=True, reclaim=True)
        assert not one.broker.retire(log, 0.001)  # it is not the owner
        one.broker.bid(log)
        await one.until(lambda: log.owned == 1)
        other = await two.join("a")
        client.delete(KEYS.calm)
        assert one.broker.retire(log, 0.001)
        await one.beats(30)
        two.broker.unfollow(other)
        log.used = True
        await one.beats(30)
        assert log.closed is None  # it was in use all the time
        log.used = False
        await one.drive(lambda: log.closed is not None)
        assert log.closed == "unused"
        assert not one.broker.retire(log, 0.001)
        again = await two.make("a", adopt=True, sourced=True, reclaim=True)
        two.broker.bid(again)
        await two.until(lambda: again.owned == 1)


async def test_a_member_that_its_owner_follows_no_more_ends_as_well(
    redis: RedisServer, client: Client
) -> None:
    one = Worker(redis.url, stalled=True)
    async with living(one):
        log = await one.make("a", adopt=True, sourced=True, reclaim=True)
        kept = await one.make("b", adopt=True, sourced=True, reclaim=True)
        for window in (log, kept):
            one.broker.bid(window)
            await one.until(lambda w=window: w.owned == 1)  # type: ignore[misc]
            assert one.broker.retire(window, 0.001)
        one.broker.release(kept, clean=True)  # its source has ended meanwhile
        one.broker.unfollow(log)
        client.delete(KEYS.calm)
        await one.drive(lambda: log.closed is not None)
        assert (log.closed, kept.closed) == ("unused", None)


async def test_a_member_that_was_used_at_the_last_moment_stays(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url, stalled=True), Worker(redis.url)
    async with living(one, two):
        log = await one.make("a", adopt=True, sourced=True, reclaim=True)
        one.broker.bid(log)
        await one.until(lambda: log.owned == 1)
        client.delete(KEYS.calm)
        assert one.broker.retire(log, 600)  # for Redis it was used just now
        assert one.clock is not None
        one.clock.advance(600)
        await one.beats(10)
        assert log.closed is None
        other = await two.join("a")
        await position(other, two.broker.append(other, b"x"))
        await one.until(lambda: log.seen == [b"x"])  # it is subscribed to again
        two.broker.unfollow(other)
        one.broker.unfollow(log)
        one.clock.advance(600)
        await one.beats(10)
        assert (log.closed, log.disowned) == (None, 0)


async def test_a_retired_member_that_another_worker_owns_by_now_ends_here(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url, stalled=True), Worker(redis.url, stalled=True)
    async with living(one, two):
        logs = [await w.make("a", adopt=True, sourced=True, reclaim=True) for w in (one, two)]
        one.broker.bid(logs[0])
        await one.until(lambda: logs[0].owned == 1)
        two.broker.bid(logs[1])
        assert one.broker.retire(logs[0], 5)
        with client.pipeline() as pipe:
            pipe.hset(KEYS.site("a").meta, mapping={"o": "other", "x": "other:1"}).execute()
        with pytest.raises(Fenced):
            await position(logs[0], one.broker.append(logs[0], b"x", sourced=True))
        await one.beats(1)
        await one.until(lambda: logs[0].closed == "unused")
        assert logs[1].closed is None


async def test_a_member_in_place_of_which_another_is_made_ends_at_once(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url, stalled=True), Worker(redis.url, stalled=True)
    async with living(one, two):
        logs = {}
        for name in ("used", "unused", "used again"):
            logs[name] = await one.make(name, adopt=True, sourced=True, reclaim=True)
            one.broker.bid(logs[name])
        await one.until(lambda: all(log.owned for log in logs.values()))
        await two.make("used", adopt=True, sourced=True, reclaim=True)
        for log in logs.values():
            assert one.broker.retire(log, 0)
        logs["used again"].used = True
        await one.until(lambda: logs["unused"].closed == "unused")
        await one.redis.find("used")
        assert (logs["used"].closed, logs["used again"].closed) == (None, None)


async def test_a_worker_that_leaves_a_member_of_another_owner_forgets_it(
    redis: RedisServer,
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with living(one, two):
        logs = [await w.make("a", adopt=True, reclaim=True) for w in (one, two)]
        one.broker.bid(logs[0])
        await one.until(lambda: logs[0].owned == 1)
        two.broker.bid(logs[1])
        await two.redis.find("a")
        assert not two.broker.retire(logs[1], 0)
        two.broker.unfollow(logs[1])
        assert redis_tables(two.redis)["bids"] == 0
        await one.broker.end(logs[0], "ended")
        assert redis_tables(one.redis)["bids"] == 0


async def test_a_member_ends_while_its_owner_gives_it_up(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, unused = Worker(redis.url, stalled=True), Scripts.unused
    async with living(one):
        log = await one.make("a", adopt=True, sourced=True, reclaim=True)
        one.broker.bid(log)
        await one.until(lambda: log.owned == 1)
        assert one.broker.retire(log, 0.001)
        client.delete(KEYS.calm)

        def give_up(*arguments: Any, **more: Any) -> Any:
            """Withdraw the bid while the end is under way."""
            asyncio.get_running_loop().call_soon(partial(one.broker.release, log, clean=True))
            return unused(*arguments, **more)

        monkeypatch.setattr(Scripts, "unused", give_up)
        await one.drive(lambda: log.closed == "unused")
        assert not one.broker.retire(log, 0.001)


async def test_a_worker_that_leaves_beats_no_more(redis: RedisServer, client: Client) -> None:
    one = Worker(redis.url, stalled=True)
    async with living(one):
        await one.make("a")
        await one.broker.hand_over()
        await one.beats(3)
        assert client.zcard(KEYS.workers) == 0


async def test_a_message_that_is_fenced_after_the_worker_has_given_the_channel_up(
    redis: RedisServer, client: Client
) -> None:
    one = Worker(redis.url)
    async with living(one):
        log = await one.make("a", adopt=True, sourced=True)
        one.broker.bid(log)
        one.broker.bid(log)  # once is enough
        await one.until(lambda: log.owned == 1)
        one.broker.bid(log)
        client.hset(KEYS.site("a").meta, "x", "other:1")
        late = one.broker.append(log, b"late", sourced=True)
        one.broker.release(log, clean=False)
        with pytest.raises(Fenced):
            await position(log, late)
        assert (log.owned, log.disowned) == (1, 0)


async def test_every_worker_knows_how_many_members_the_others_have(redis: RedisServer) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with living(one, two):
        for name in "ab":
            log = await one.make(name, adopt=True, sourced=True, reclaim=True)
            one.broker.bid(log)
            await one.until(lambda w=log: w.owned == 1)  # type: ignore[misc]
        while two.broker.elsewhere != 2:
            await anyio.lowlevel.checkpoint()
        two.broker.bid(await two.make("a", adopt=True, sourced=True, reclaim=True))
        while two.broker.elsewhere != 1:
            await anyio.lowlevel.checkpoint()
        assert one.broker.elsewhere == 0
