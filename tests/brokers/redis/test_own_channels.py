"""Own channels while Redis is away, full or emptied, and while workers stall or die."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet import BrokerUnavailable, ChannelClosed
from asgi_comet.brokers.logs import ChannelSpec, Closed, Full, Placed, Unknown
from asgi_comet.brokers.people import Found
from asgi_comet.brokers.redis import claims, orphans
from asgi_comet.brokers.redis.claims import MOST_STATE
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.own import REPEAT
from asgi_comet.brokers.redis.ownership import Ownership
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.readings import KEPT, TICK
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import RECOVERY
from asgi_comet.core.history import Received
from asgi_comet.core.messages import NEXT_INCARNATION, First, Now
from asgi_comet.errors import InvalidDeclaration, NonUniqueChannelName, ProcessClosed
from asgi_comet.position import Position
from asgi_comet.testing._inspect_redis import read_clock, redis_tables, tell_time
from asgi_comet.testing.clock import ManualClock
from asgi_comet.testing.party import position
from asgi_comet.testing.reading_contract import At
from asgi_comet.testing.window import Window
from tests.kit import redis_workers
from tests.kit.redis import Client, RedisServer, milliseconds, run
from tests.kit.redis_proxy import RedisProxy, turns
from tests.kit.redis_workers import living
from tests.kit.turns import until

pytestmark = pytest.mark.anyio

KEYS = Keys()
SCRIPTS, PEOPLE = Scripts(KEYS), PeopleScripts(KEYS)
S, P, Q = KEYS.session("AAs"), KEYS.process("AAp"), KEYS.process("AAq")
A, B = P.channel("a"), P.channel("b")


class Worker(redis_workers.Worker):
    """A worker that reads the client process of these tests."""

    async def claim(self, reader: int, *names: str, start: Any = None) -> dict[str, Found]:
        starts = dict.fromkeys(names or ("~a",), start or First())
        return await self.redis.people.claim(S.id, P.id, reader, starts)

    async def read(self, reader: int, name: str = "~a", start: Any = None) -> Window:
        window = (await self.claim(reader, name, start=start))[name].window
        assert isinstance(window, Window)
        return window

    async def publish(self, log: Window, *data: bytes) -> list[Position]:
        stored = [self.redis.append(log, one) for one in data]
        return [await position(log, one) for one in stored]

    def tables(self) -> dict[str, int]:
        return redis_tables(self.redis)


@asynccontextmanager
async def serving(*workers: Worker) -> AsyncIterator[None]:
    """Run workers that are connected."""
    async with living(*workers, seconds=20):
        while any(worker.redis.serving.connection is None for worker in workers):
            await anyio.lowlevel.checkpoint()
        yield


Place = RedisServer | RedisProxy


@asynccontextmanager
async def pair(first: Place, second: Place | None = None) -> AsyncIterator[tuple[Worker, Worker]]:
    """Run two workers, of which the second one may reach Redis in another way."""
    one, two = Worker(first.url), Worker((second or first).url)
    async with serving(one, two):
        yield one, two


@asynccontextmanager
async def reading(
    first: Place, second: Place | None = None, **options: Any
) -> AsyncIterator[tuple[Worker, Worker, Window, Window]]:
    """Run two workers: the first one has made a channel, which a connection to the second reads."""
    async with pair(first, second) as (one, two):
        log = await one.make_own(P.id, "~a", **options)
        yield one, two, log, await two.read(1)


@pytest.fixture
def opened(client: Client) -> Client:
    """A Redis with a client process."""
    run(client, PEOPLE.open_process(S, P))
    return client


def _spec(name: str) -> ChannelSpec:
    return ChannelSpec(name=name, kind="unlimited", size=9, max_bytes=99, owner=P.id)


async def passing(worker: Worker) -> None:
    """Return when a worker has taken all frames of before, and Redis all of its calls.

    The first answer may say that a script must be loaded, after which a call is sent again.
    """
    for _ in range(2):
        await worker.redis.people.load(P.id)


# Connections


async def test_a_reader_misses_nothing_while_its_worker_has_no_connection(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, pair(redis, proxy) as (one, two):
        log = await one.make_own(P.id, "~a")
        found = await two.claim(1, "~a", "~later", start=NEXT_INCARNATION)
        assert found["~later"] == Found(None, Unknown())
        window = found["~a"].window
        assert isinstance(window, Window)
        await one.publish(log, b"1", b"2")
        await two.until(lambda: window.top == 2)
        with proxy.away():
            await one.publish(log, b"3")
            later = await one.make_own(P.id, "~later")
            await one.publish(later, b"x")
        await two.until(lambda: window.top == 3)
        windows = two.people.windows
        await two.until(lambda: (P.id, "~later") in windows)
        await two.until(lambda: windows[P.id, "~later"].top == 1)
        assert window.seen == [b"1", b"2", b"3"]
        assert opened.llen(A.log) == 3  # nothing is acknowledged by coming back
        await one.publish(log, b"4")
        await two.until(lambda: window.top == 4)
        assert two.people.readers == []


async def test_a_reader_that_was_replaced_meanwhile_reads_no_more(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        with proxy.away():
            await one.claim(1)
        await two.until(lambda: two.people.readers == [(P.id, 1)])
        await one.publish(log, b"x")
        assert (window.seen, two.tables()["readers"]) == ([], 0)


@pytest.mark.parametrize("how", ["closed", "moved"])
async def test_a_reader_whose_process_is_gone_meanwhile_reads_no_more(
    redis: RedisServer, opened: Client, how: str
) -> None:
    async with RedisProxy(redis).run() as proxy:
        two = Worker(proxy.url)
        async with serving(two):
            await two.claim(1)
            with proxy.away():
                if how == "closed":
                    run(opened, PEOPLE.close(S, P))
                else:
                    run(opened, PEOPLE.move(S, KEYS.session("AAnew"), [P], user=None))
            await two.until(lambda: two.people.readers == [(P.id, 1)])
            assert two.people.ended == [P.id] * (how == "closed")


async def test_a_reader_whose_channel_came_and_went_meanwhile_comes_back(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, pair(redis, proxy) as (one, two):
        await two.claim(1, start=NEXT_INCARNATION)
        with proxy.away():
            log = await one.make_own(P.id, "~a")
            await one.redis.end(log, "ended")
            opened.delete(A.meta, A.log)  # its linger time is over
        await two.until(lambda: two.people.readers == [(P.id, 1)])
        found = await two.claim(2, start=NEXT_INCARNATION)
        assert found["~a"] == Found(None, Closed("ended"))


async def test_a_reader_whose_channel_was_made_anew_meanwhile_is_told_of_the_end(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        with proxy.away():
            await one.redis.end(log, "ended")
            new = await one.make_own(P.id, "~a")
            await one.publish(new, b"new")
        await two.until(lambda: window.closed == "ended")
        assert window.seen == []
        assert (await two.read(2)).seen == [b"new"]


async def test_windows_without_a_reader_end_with_the_connection(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy:
        two = Worker(proxy.url)
        async with serving(two):
            await two.make_own(P.id, "~a")
            await two.claim(1)
            two.redis.people.unclaim(P.id, 1)
            assert two.tables()["readers"] == two.tables()["followed"] == 1
            proxy.reset()
            while two.tables()["readers"]:
                await anyio.lowlevel.checkpoint()
            assert two.tables()["followed"] == 0
            assert two.people.readers == []


async def test_a_worker_that_others_took_for_dead_reads_on_under_another_id(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        reader = opened.hget(P.process, "r").decode()
        opened.zrem(KEYS.workers, reader.partition(":")[0])
        proxy.reset()
        while opened.hget(P.process, "r").decode() == reader:
            await anyio.lowlevel.checkpoint()
        await one.publish(log, b"x")
        await two.until(lambda: window.top == 1)
        assert two.people.readers == []
        await one.claim(1)
        await two.until(lambda: two.people.readers == [(P.id, 1)])


async def test_a_lost_frame_is_repaired(redis: RedisServer, opened: Client) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        proxy.harm.lost = b"m"
        await one.publish(log, b"1")
        await passing(two)
        proxy.harm.lost = None
        assert window.top == 0
        await one.publish(log, b"2")
        await two.until(lambda: window.top == 2)
        assert window.seen == [b"1", b"2"]


async def test_a_claim_is_refused_while_redis_does_not_answer(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy:
        two = Worker(proxy.url, timeout=0.2)
        async with serving(two):
            proxy.harm.deaf = True
            with pytest.raises(BrokerUnavailable):
                await two.claim(1)
            assert two.tables()["readers"] == 0


async def test_a_caller_that_does_not_wait_for_its_claim_is_no_reader(
    redis: RedisServer, opened: Client
) -> None:
    clock = ManualClock()
    two = Worker(redis.url, clock=clock)
    async with serving(two):
        await two.make_own(P.id, "~a")
        for leave in (True, False):
            asking = asyncio.ensure_future(two.claim(1))
            while not two.tables()["asking"]:
                await turns(1)
            if leave:
                asking.cancel()
            else:
                two.redis.people.unclaim(P.id, 1)
            await asyncio.wait([asking])
            await passing(two)
            assert two.tables()["readers"] == two.tables()["idle"] == 1


async def test_windows_go_on_for_half_a_minute(redis: RedisServer, opened: Client) -> None:
    clock = ManualClock()
    one, two = Worker(redis.url), Worker(redis.url, clock=clock)
    async with serving(one, two):
        log = await one.make_own(P.id, "~a")
        window = await two.read(1)
        two.redis.people.unclaim(P.id, 1)
        for _ in range(int(KEPT / TICK) - 1):
            await passing(two)
            clock.advance(TICK)
        await passing(two)
        assert two.tables()["followed"] == two.tables()["held"] == 1
        await one.publish(log, b"x")
        await two.until(lambda: window.top == 1)
        while two.tables()["readers"]:
            clock.advance(TICK)
            await passing(two)  # a worker whose heartbeats are not answered has stood still
        tables = two.tables()
        assert (tables["followed"], tables["held"], tables["idle"]) == (0, 0, 0)
        await one.publish(log, b"y")
        await passing(two)
        assert window.top == 1
        assert (await two.read(2)).seen[-2:] == [b"x", b"y"]


async def test_a_connection_that_asks_for_less_has_fewer_windows(
    redis: RedisServer, opened: Client
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        for name in ("~a", "~b"):
            await one.make_own(P.id, name)
        await one.claim(1, "~a", "~b")
        await one.claim(2, "~a")
        assert (one.tables()["followed"], one.people.readers) == (1, [(P.id, 1)])


async def test_a_reader_goes_on_wherever_its_connection_is_cut(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        before = proxy.passed
        links = proxy.links
        proxy.reset()
        while proxy.links == links or not two.redis.connected:
            await anyio.lowlevel.checkpoint()
        whole = proxy.passed - before
        for number, less in enumerate((0, 30, 60, 90, 120, 150), 1):
            proxy.harm.cut = whole - less
            proxy.reset()
            await one.publish(log, b"%d" % number)
            await two.until(lambda top=number: window.top == top)  # type: ignore[misc]
        assert window.seen == [b"%d" % number for number in range(1, 7)]
        assert two.people.readers == []


async def test_a_reader_goes_on_though_the_connection_ends_between_two_claims(
    redis: RedisServer, opened: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "AGAIN", 1)
    other = KEYS.process("AAq")
    run(opened, PEOPLE.open_process(S, other))
    async with RedisProxy(redis).run() as proxy, pair(redis, proxy) as (one, two):
        await two.claim(1, start=NEXT_INCARNATION)
        log = await one.make_own(other.id, "~a")
        found = await two.redis.people.claim(S.id, other.id, 2, {"~a": First()})
        window = found["~a"].window
        assert isinstance(window, Window)
        find = two.people.window

        def cut(spec: ChannelSpec) -> Window:
            """End the connection while the first of two claims is answered."""
            monkeypatch.undo()
            monkeypatch.setattr(claims, "AGAIN", 1)
            proxy.reset()
            return find(spec)

        monkeypatch.setattr(two.people, "window", cut)
        with proxy.away():
            await one.make_own(P.id, "~a")
            await one.publish(log, b"x")
        await two.until(lambda: window.top == 1)
        assert two.people.readers == []


async def test_a_claim_finds_another_channel_though_frames_were_lost(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        proxy.harm.lost = b""
        await one.redis.end(log, "ended")
        new = await one.make_own(P.id, "~a")
        await one.publish(new, b"new")
        await passing(two)
        proxy.harm.lost = None
        assert window.closed is None
        assert (await two.read(2)).seen == [b"new"]
        assert window.closed == "ended"


# Data that are lost


async def test_a_claim_that_finds_another_epoch_begins_in_it(
    redis: RedisServer, opened: Client
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        log = await one.make_own(P.id, "~a")
        await one.claim(1)
        (place,) = await one.publish(log, b"1")
        await one.until(lambda: log.top == 1)
        opened.hset(KEYS.lineage, mapping={"id": "other", "run": "other"})
        found = (await one.claim(2, start=place))["~a"]
        assert (found.window, found.start) == (log, Full())
        assert (log.epoch != place.epoch, log.top) == (True, 1)
        (place,) = await one.publish(log, b"2")
        await one.until(lambda: log.top == 2)
        assert place == Position(log.epoch, 2)


async def test_an_emptied_redis_is_given_the_channels_of_an_open_process_again(
    redis: RedisServer, opened: Client
) -> None:
    async with reading(redis) as (one, two, log, window):
        await one.publish(log, b"1")
        await two.until(lambda: window.top == 1)
        before = window.epoch
        with opened.pipeline() as pipe:
            pipe.flushall()
            pipe.restore(P.process, 0, opened.dump(P.process))
            pipe.execute()
        await two.until(lambda: window.epoch != before)
        (place,) = await one.publish(log, b"2")
        await two.until(lambda: (window.epoch, window.top) == (place.epoch, place.offset))
        assert (window.closed, window.seen[-1]) == (None, b"2")


async def test_own_channels_outlive_an_emptied_redis_as_their_process_does(
    redis: RedisServer, opened: Client
) -> None:
    async with pair(redis) as (one, two):
        for worker in (one, two):
            await worker.redis.people.visit([S.id], P.id)
        await one.redis.people.keep(S.id, P.id)
        log = await one.make_own(P.id, "~a")
        window = await two.read(1)
        await one.publish(log, b"1")
        await two.until(lambda: window.top == 1)
        before = window.epoch
        opened.flushall()
        await two.until(lambda: window.epoch != before)
        (place,) = await one.publish(log, b"2")
        await two.until(lambda: (window.epoch, window.top) == (place.epoch, place.offset))
        assert (log.closed, window.closed, window.seen[-1]) == (None, None, b"2")
        assert one.people.ended == two.people.ended == []


async def test_a_channel_that_a_client_came_back_to_outlives_an_emptied_redis(
    redis: RedisServer, opened: Client
) -> None:
    """The client polls at one worker, at another, and at the first; the channel's own has died."""
    maker = Worker(redis.url)
    async with serving(maker), pair(redis) as (one, two):
        await maker.make_own(P.id, "~a")
        maker.die()
        await one.redis.people.visit([S.id], P.id)
        before = (await one.read(1)).epoch
        one.redis.people.unclaim(P.id, 1)
        await two.read(1)
        await come_true(lambda: one.tables()["held"] == 0)
        two.redis.people.unclaim(P.id, 1)
        window = await one.read(2)
        await come_true(lambda: two.tables()["held"] == 0)
        one.redis.people.unclaim(P.id, 2)
        opened.flushall()
        await reconnect(one)
        found = await one.claim(3, start=Position(before, window.top))
        assert found["~a"].start == Full()
        assert found["~a"].window is window
        await two.read(2)
        await come_true(lambda: one.tables()["held"] == 0)


async def test_a_client_waits_for_its_process_in_an_emptied_redis(
    redis: RedisServer, opened: Client
) -> None:
    """The worker that is asked finds Redis emptied before the one that knows the process."""
    async with RedisProxy(redis).run() as proxy, pair(redis, proxy) as (one, two):
        await two.redis.people.visit([S.id], P.id)
        await two.claim(1)
        two.redis.people.enter(S.id, P.id)
        await passing(two)
        with proxy.away():
            opened.flushall()
            for _ in range(2):  # the second time the worker has a connection to the emptied Redis
                with pytest.raises(BrokerUnavailable):
                    await one.claim(2)
                with pytest.raises(BrokerUnavailable):
                    await one.redis.people.keep(S.id, P.id)
                with pytest.raises(BrokerUnavailable):
                    await one.redis.people.visit([S.id], P.id)
        while not opened.exists(P.process):
            await anyio.lowlevel.checkpoint()
        assert list(await one.claim(2)) == ["~a"]


async def test_a_client_waits_for_its_channel_in_an_emptied_redis(
    redis: RedisServer, opened: Client
) -> None:
    """The worker that is asked finds Redis emptied before the one that has the channel."""
    one = Worker(redis.url)
    async with serving(one):
        opened.flushall()
        await reconnect(one)
        run(opened, PEOPLE.open_process(S, P))
        with pytest.raises(BrokerUnavailable):
            await one.claim(1, "~a", start=Position("e", 7))
        waits = await one.claim(2, "~a", start=NEXT_INCARNATION)
        assert waits == {"~a": Found(None, Unknown())}
        one.redis.serving.renewed -= RECOVERY
        gone = await one.claim(3, "~a", start=Position("e", 7))
        assert gone == {"~a": Found(None, Unknown())}


async def test_the_others_have_time_to_report_also_if_redis_is_away_meanwhile(
    redis: RedisServer, opened: Client
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        opened.flushall()
        await reconnect(one)
        one.redis.serving.renewed -= RECOVERY / 2
        await reconnect(one)
        one.redis.serving.renewed -= RECOVERY / 2
        with pytest.raises(BrokerUnavailable):
            await one.claim(1, "~a", start=Position("e", 7))


async def test_an_emptied_redis_is_given_a_process_of_a_new_session_again(
    redis: RedisServer, client: Client
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        await one.redis.people.open(S.id, P.id)
        await one.redis.people.keep(S.id, P.id)
        await one.claim(1)
        client.flushall()
        await reconnect(one)
        await passing(one)
        assert client.hget(P.process, "s") == S.id.encode()
        assert one.people.ended == []


async def test_a_process_that_no_worker_knows_is_gone_after_a_while(
    redis: RedisServer, opened: Client
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        opened.flushall()
        with pytest.raises(BrokerUnavailable):
            await one.claim(1)
        await reconnect(one)
        one.redis.serving.renewed -= RECOVERY
        with pytest.raises(ProcessClosed):
            await one.claim(1)


async def test_a_process_that_has_closed_since_redis_was_emptied_is_gone_at_once(
    redis: RedisServer, client: Client
) -> None:
    """The record of its end is no loss, so no client comes back in vain for seconds."""
    async with pair(redis) as (one, two):
        client.flushall()
        await reconnect(one)
        await reconnect(two)
        await one.redis.people.open(S.id, P.id)
        await one.redis.people.close(S.id, P.id)
        assert (await two.redis.people.visit([S.id], P.id)).owner == ""
        with pytest.raises(BrokerUnavailable):
            await two.redis.people.visit([S.id], Q.id)


@pytest.mark.parametrize("reconnects", [True, False])
async def test_a_channel_waits_for_its_process_in_an_emptied_redis(
    redis: RedisServer, opened: Client, reconnects: bool
) -> None:
    """The worker that publishes finds Redis emptied before the one that knows the process."""
    async with RedisProxy(redis).run() as proxy, pair(redis, proxy) as (one, two):
        await two.redis.people.visit([S.id], P.id)
        log = await one.make_own(P.id, "~a")
        window = await two.read(1)
        await one.publish(log, b"1")
        await two.until(lambda: window.top == 1)
        with proxy.away():
            opened.flushall()
            if reconnects:
                await reconnect(one)
            stored = [one.redis.append(log, data) for data in (b"2", b"3")]
            await come_true(lambda: one.tables()["orphans"] == 1)
            stored.append(one.redis.append(log, b"4"))
            await passing(one)
            assert one.tables()["early"] == 1
        places = [await position(log, one) for one in stored]
        await two.until(lambda: window.top == places[-1].offset)
        assert window.seen[-3:] == [b"2", b"3", b"4"]
        assert (log.closed, one.people.ended, two.people.ended) == (None, [], [])
        assert one.tables()["orphans"] == one.tables()["early"] == 0


async def test_a_channel_waits_for_its_process_for_a_while_only(
    redis: RedisServer, opened: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "WAIT", orphans.PAUSE)  # so there is a second attempt
    one = Worker(redis.url)
    async with serving(one):
        log = await one.make_own(P.id, "~a")
        await one.publish(log, b"1")
        opened.flushall()
        with pytest.raises(ChannelClosed):
            await one.publish(log, b"2")
        assert log.closed == "ended"
        assert one.tables()["orphans"] == one.tables()["early"] == 0


async def test_a_channel_that_was_lost_for_good_is_held_no_more(
    redis: RedisServer, opened: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "WAIT", orphans.PAUSE)
    one = Worker(redis.url)
    async with serving(one):
        log = await one.make_own(P.id, "~a")
        opened.flushall()
        await reconnect(one)
        await come_true(lambda: log.closed == "ended")
        assert one.tables()["held"] == one.tables()["orphans"] == 0


async def reconnect(worker: Worker) -> None:
    """Have a worker connect anew."""
    connection = worker.redis.serving.connection
    assert connection is not None
    connection.close("a test")
    await come_true(lambda: worker.redis.serving.connection not in (None, connection))


async def come_true(condition: Callable[[], bool]) -> None:
    """Wait for what no host is told of; `serving` limits the time."""
    while not condition():
        await anyio.lowlevel.checkpoint()


async def test_a_log_of_another_generation_has_another_epoch(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        await one.publish(log, b"1")
        await two.until(lambda: window.top == 1)
        before = window.epoch
        opened.hset(KEYS.lineage, mapping={"id": "other", "run": "other"})
        proxy.reset()
        await two.until(lambda: window.epoch != before)
        found = await two.claim(2, start=Position(before, 1))
        assert (found["~a"].window, found["~a"].start) == (window, Full())
        (place,) = await one.publish(log, b"2")
        assert place == Position(window.epoch, 2)
        await two.until(lambda: window.top == 2)


async def test_a_log_that_was_deleted_is_told_as_a_gap(redis: RedisServer, opened: Client) -> None:
    one = Worker(redis.url)
    async with serving(one):
        log = await one.make_own(P.id, "~a")
        places = await one.publish(log, b"1", b"2")
        opened.delete(A.log)
        assert (await one.claim(1, start=places[0]))["~a"].start == Full()
        assert (await one.claim(2, start=places[1]))["~a"].start == Placed(2, log.epoch)


async def test_a_lost_channel_is_opened_again_while_its_process_lives(
    redis: RedisServer, opened: Client
) -> None:
    async with reading(redis) as (one, two, log, window):
        await one.publish(log, b"1")
        await two.until(lambda: window.top == 1)
        before = window.epoch
        opened.delete(A.meta, A.log)
        await one.publish(log, b"2")
        await two.until(lambda: window.epoch != before and window.top == 1)
        assert window.seen == [b"1", b"2"]


async def test_a_channel_that_has_ended_elsewhere_is_not_opened_again(
    redis: RedisServer, opened: Client
) -> None:
    async with pair(redis) as (one, two):
        log = await one.make_own(P.id, "~a", adopt=True)
        other = await two.make_own(P.id, "~a", adopt=True)
        await one.redis.end(log, "ended")
        opened.delete(A.meta, A.log)  # its linger time is over
        with pytest.raises(ChannelClosed) as caught:
            await two.publish(other, b"late")
        assert caught.value.name == "~a"
        await two.until(lambda: other.closed == "ended")
        assert not opened.exists(A.meta)
        assert await two.redis.place(other, Now()) == Unknown()


async def test_the_channels_of_a_process_that_has_closed_end(
    redis: RedisServer, opened: Client
) -> None:
    async with reading(redis) as (one, two, log, window):
        run(opened, PEOPLE.close(S, P))
        run(opened, PEOPLE.finish(P, [A]))
        with pytest.raises(ChannelClosed):
            await one.publish(log, b"late")
        await one.until(lambda: log.closed == "ended")
        with pytest.raises(ChannelClosed):
            await two.publish(window, b"late")
        assert not opened.exists(A.meta)


async def test_a_reader_is_told_of_a_channel_that_is_gone_for_good(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        with proxy.away():
            await one.redis.end(log, "ended")
            opened.delete(A.meta, A.log)  # its linger time is over
        await two.until(lambda: window.closed == "ended")


async def test_a_redis_that_is_full_serves_readers(redis: RedisServer, opened: Client) -> None:
    async with pair(redis) as (one, two):
        log = await one.make_own(P.id, "~a")
        await one.make_own(P.id, "~b")
        window = await two.read(1)
        await one.publish(log, b"1", b"2")
        await two.until(lambda: window.top == 2)
        opened.config_set("maxmemory", 1)
        try:
            with pytest.raises(BrokerUnavailable, match="OOM"):
                await one.publish(log, b"3")
            two.redis.acknowledge(window, 1)
            two.redis.mark_sent(window, 2)
            while opened.llen(A.log) > 1:
                await anyio.lowlevel.checkpoint()
            again = await one.claim(1, "~a", "~b", "~c", start=Now())
            assert again["~a"].start == Placed(2, log.epoch)
            await two.until(lambda: two.people.readers == [(P.id, 1)])
            await one.redis.end(log, "ended")
            assert run(opened, PEOPLE.close(S, P)).channels == {"b": "P,100"}
        finally:
            opened.config_set("maxmemory", 0)


async def test_a_key_of_another_program_stops_one_reader_only(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, pair(redis, proxy) as (one, two):
        await one.make_own(P.id, "~a")
        await two.claim(1)
        reader = opened.hget(P.process, "r")
        opened.delete(A.log)
        opened.set(A.log, "theirs")
        with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
            await one.claim(1)
        opened.hset(P.process, "r", reader)
        proxy.reset()
        await two.until(lambda: two.people.readers == [(P.id, 1)])


# Progress


async def test_progress_that_a_connection_has_lost_is_reported_again(
    redis: RedisServer, opened: Client
) -> None:
    async with (
        RedisProxy(redis).run() as proxy,
        reading(redis, proxy, size=8) as (one, two, log, window),
    ):
        await one.publish(log, b"1", b"2", b"3")
        await two.until(lambda: window.top == 3)
        proxy.harm.deaf = True
        two.redis.acknowledge(window, 1)
        two.redis.mark_sent(window, 3)
        await turns()
        proxy.reset()
        while two.redis.connected:
            await turns()
        two.redis.acknowledge(window, 2)
        two.redis.want(window, 2)
        await turns()
        proxy.harm.deaf = False
        proxy.reset()
        while opened.hmget(A.meta, "k", "a") != [b"3", b"2"]:
            await anyio.lowlevel.checkpoint()
        await passing(two)
        assert two.tables()["marks"] == 0
        with proxy.away():
            while two.redis.connected:
                await turns()
            two.redis.acknowledge(window, 3)
            await turns()
        while opened.hget(A.meta, "a") != b"3":
            await anyio.lowlevel.checkpoint()


async def test_without_a_connection_the_client_acknowledges_by_its_next_request(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, pair(redis, proxy) as (one, two):
        log = await one.make_own(P.id, "~a")
        first, second = await one.publish(log, b"1", b"2")
        with proxy.away():
            while two.redis.connected:
                await turns()
            two.redis.people.acknowledge(P.id, {"~a": first})
            with pytest.raises(BrokerUnavailable):
                await two.redis.people.reported(P.id)
        await passing_soon(two)
        assert opened.hget(A.meta, "a") is None
        two.redis.people.acknowledge(P.id, {"~a": second})
        await two.redis.people.reported(P.id)
        assert opened.hget(A.meta, "a") == b"2"


async def test_an_acknowledgement_whose_connection_ends_is_not_settled(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        await one.publish(log, b"1", b"2")
        await two.until(lambda: window.top == 2)
        two.redis.acknowledge(window, 1)
        await two.redis.people.reported(P.id)
        assert opened.hget(A.meta, "a") == b"1"
        proxy.harm.deaf = True
        two.redis.acknowledge(window, 2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(settle_in_vain, two)
            await turns(20)
            proxy.reset()
        proxy.harm.deaf = False
        await until(lambda: two.redis.connected)
        while opened.hget(A.meta, "a") != b"2":  # told again on the next connection
            await anyio.lowlevel.checkpoint()
        await two.redis.people.reported(P.id)


async def is_reported(worker: Worker) -> bool:
    try:
        await worker.redis.people.reported(P.id)
    except BrokerUnavailable:
        return False
    return True


@pytest.mark.parametrize("repeats", [True, False])
async def test_an_acknowledgement_that_redis_refuses_is_told_again(
    redis: RedisServer, opened: Client, repeats: bool
) -> None:
    async with reading(redis) as (one, two, log, window):
        other = await one.make_own(P.id, "~b")
        await one.publish(log, b"1", b"2")
        await one.publish(other, b"1")
        await two.until(lambda: window.top == 2)
        await passing(two)
        opened.config_set("min-replicas-to-write", 1)
        try:
            two.redis.acknowledge(window, 1)
            with pytest.raises(BrokerUnavailable, match="NOREPLICAS"):
                await two.redis.people.reported(P.id)
        finally:
            opened.config_set("min-replicas-to-write", 0)
        await until(lambda: two.redis.connected)
        assert opened.hget(A.meta, "a") is None
        if repeats:
            two.redis.acknowledge(window, 1)
        else:
            assert two.tables()["marks"] == 1
            two.redis.people.acknowledge(P.id, {"~b": Position(other.epoch, 1)})
        while not await is_reported(two):  # perhaps not on the connection that ends now
            await anyio.lowlevel.checkpoint()
        while not repeats and opened.hget(A.meta, "a") is None:
            await anyio.lowlevel.checkpoint()
        assert opened.hget(A.meta, "a") == b"1"
        await until(lambda: two.tables()["marks"] == 0)  # what was refused is told once more


async def test_a_key_of_another_program_fails_the_acknowledgements_of_one_process_only(
    redis: RedisServer, opened: Client
) -> None:
    run(opened, PEOPLE.open_process(S, Q))
    async with reading(redis) as (one, two, log, window):
        await one.publish(log, b"1")
        theirs = await one.make_own(Q.id, "~a")
        await one.publish(theirs, b"1")
        found = (await two.redis.people.claim(S.id, Q.id, 2, {"~a": First()}))["~a"]
        assert isinstance(found.window, Window)
        await two.until(lambda: window.top == 1)
        opened.delete(Q.channel("a").log)
        opened.set(Q.channel("a").log, "theirs")
        for _ in range(2):
            two.redis.acknowledge(found.window, 1)
            two.redis.acknowledge(window, 1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(settle_in_vain, two, Q.id)
                await two.redis.people.reported(P.id)
            assert opened.hget(A.meta, "a") == b"1"
        opened.delete(Q.channel("a").log)
        two.redis.acknowledge(found.window, 1)
        await two.redis.people.reported(Q.id)
        assert opened.hget(Q.channel("a").meta, "a") == b"1"


async def settle_in_vain(worker: Worker, process: str = P.id) -> None:
    with pytest.raises(BrokerUnavailable):
        await worker.redis.people.reported(process)


async def passing_soon(worker: Worker) -> None:
    """Wait for the next connection of a worker, and return as `passing`."""
    while not worker.redis.connected:
        await anyio.lowlevel.checkpoint()
    await passing(worker)


async def test_skipped_messages_that_a_connection_has_not_reported_are_reported_again(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        await one.publish(log, b"1", b"2", b"3", b"4")
        await two.until(lambda: window.top == 4)
        two.redis.acknowledge(window, 1)
        await passing(two)
        proxy.harm.deaf = True
        two.redis.skip(window, 1, 2)
        await turns()
        proxy.reset()
        while two.redis.connected:
            await turns()
        proxy.harm.deaf = False
        proxy.reset()
        while opened.hmget(A.meta, "ja", "j") != [b"1", b"2"]:
            await anyio.lowlevel.checkpoint()
        two.redis.skip(window, 3, 4)
        await passing(two)
        assert opened.hmget(A.meta, "ja", "j") == [b"1", b"4"]
        assert two.tables()["marks"] == 0


async def test_what_was_sent_is_reported_once_it_is_a_quarter(
    redis: RedisServer, opened: Client
) -> None:
    async with reading(redis, size=8) as (one, two, log, window):
        await one.publish(log, b"1")
        await two.until(lambda: window.top == 1)
        two.redis.mark_sent(window, 1)
        await passing(two)
        assert opened.hget(A.meta, "k") is None
        await one.publish(log, b"2")  # the record lacks two of eight by now
        while opened.hget(A.meta, "k") != b"1":
            await anyio.lowlevel.checkpoint()
        two.redis.acknowledge(window, 2)
        two.redis.mark_sent(window, 2)
        while opened.hmget(A.meta, "k", "a") != [b"2", b"2"]:
            await anyio.lowlevel.checkpoint()
        two.redis.acknowledge(window, 1)
        assert two.tables()["marks"] == 0


async def test_large_messages_that_were_sent_are_reported(
    redis: RedisServer, opened: Client
) -> None:
    async with reading(redis, size=1000) as (one, two, log, window):
        for number in range(8):
            await one.publish(log, b"x" * 2**18)  # a quarter of the bytes that it may hold
            await two.until(lambda top=number + 1: window.top == top)  # type: ignore[misc]
            two.redis.mark_sent(window, window.top)
        assert window.closed is None


async def test_progress_that_the_record_cannot_take_is_dropped(
    redis: RedisServer, opened: Client
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        await one.make_own(P.id, "~a")
        window = await one.read(1)
        opened.delete(A.meta)
        opened.set(A.meta, "theirs")
        one.redis.acknowledge(window, 1)
        await passing(one)
        await passing(one)
        assert one.tables()["marks"] == 0


# Sources


async def test_the_source_of_a_worker_that_dies_has_failed(
    redis: RedisServer, opened: Client
) -> None:
    async with pair(redis) as (one, two):
        await one.make_own(P.id, "~a", sourced=True)
        window = await two.read(1)
        one.die()
        await two.until(lambda: window.closed == "failed")


async def test_a_claim_that_finds_no_owner_bids_again(redis: RedisServer, opened: Client) -> None:
    clock = ManualClock()
    one, two = Worker(redis.url, clock=clock), Worker(redis.url, clock=clock)
    async with serving(one, two):
        log = await one.make_own(P.id, "~a")
        one.redis.bid(log)
        await until(lambda: opened.hget(A.meta, "o") is not None)
        owner = opened.hget(A.meta, "o")
        window = await two.read(1)
        two.redis.bid(window)
        await passing(two)
        assert opened.hget(A.meta, "o") == owner
        opened.hdel(A.meta, "o", "x")  # and no worker is told, nor looks
        await two.claim(2)
        await until(lambda: opened.hget(A.meta, "o") not in (None, owner))


async def test_the_worker_with_the_source_is_told_of_the_end(
    redis: RedisServer, opened: Client
) -> None:
    async with reading(redis, sourced=True, size=1) as (one, two, log, window):
        await position(log, one.redis.append(log, b"1", sourced=True))
        with pytest.raises(Exception, match="full"):
            await two.publish(window, b"2")
        await one.until(lambda: log.closed == "full")
        other = await one.make_own(P.id, "~b", sourced=True)
        theirs = await two.read(2, "~b")
        await two.redis.end(theirs, "ended")
        await one.until(lambda: other.closed == "ended")
        for one_ in (log, other):
            one.redis.unfollow(one_)
        await passing(one)
        await one.make_own(P.id, "~c")  # after all that was sent before
        assert one.tables()["bids"] == 0
        assert not opened.keys("*own:*")


async def test_the_window_of_a_source_has_what_others_publish(
    redis: RedisServer, opened: Client
) -> None:
    async with (
        RedisProxy(redis).run() as proxy,
        reading(proxy, redis, sourced=True, kind="unlimited") as (one, two, log, window),
    ):

        async def yield_(data: bytes) -> None:
            await position(log, one.redis.append(log, data, sourced=True))

        await yield_(b"1")
        await two.publish(window, b"2")
        await yield_(b"3")
        await one.until(lambda: log.top == 3)
        assert log.seen == [b"1", b"2", b"3"]
        two.redis.people.unclaim(P.id, 1)
        await one.claim(1)
        await two.claim(2)  # the worker with the source reads no more, and keeps the window
        await two.publish(window, b"4")
        proxy.reset()
        await one.until(lambda: log.top == 4)
        await yield_(b"5")
        await one.until(lambda: log.top == 5)
        await two.until(lambda: window.top == 5)
        await one.redis.end(log, "ended")
        one.redis.unfollow(log)
        assert one.tables()["followed"] == 0


async def test_a_source_of_a_channel_that_was_there_begins_with_its_messages(
    redis: RedisServer, opened: Client
) -> None:
    async with pair(redis) as (one, two):
        theirs = await two.make_own(P.id, "~a", kind="unlimited", adopt=True, sourced=True)
        await two.publish(theirs, b"1")
        log = await one.make_own(P.id, "~a", kind="unlimited", adopt=True, sourced=True)
        one.redis.bid(log)
        await one.until(lambda: log.owned == 1)
        await position(log, one.redis.append(log, b"2", sourced=True))
        await one.until(lambda: log.top == 2)
        assert log.seen == [b"1", b"2"]
        one.redis.renew(log)
        before = log.epoch
        await position(log, one.redis.append(log, b"3", sourced=True))
        await one.until(lambda: log.epoch != before)
        await one.until(lambda: log.top == 3)


async def test_the_window_of_a_source_is_not_cut_back(redis: RedisServer, opened: Client) -> None:
    one = Worker(redis.url, window_bytes=1000)
    async with serving(one):
        log = await one.make_own(P.id, "~a", sourced=True, kind="unlimited")
        for _ in range(3):
            await position(log, one.redis.append(log, b"x" * 300, sourced=True))
        site = await one.make("site")
        await one.publish(site, b"x" * 300)
        await one.until(lambda: site.top == 1)
        assert (log.drops, log.first, site.drops) == (0, 1, 1)


async def test_the_progress_of_a_source_without_a_reader_is_not_reported(
    redis: RedisServer, opened: Client, caplog: pytest.LogCaptureFixture
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        log = await one.make_own(P.id, "~a", sourced=True, kind="unlimited")
        await position(log, one.redis.append(log, b"1", sourced=True))
        opened.publish(one.redis.inbox.topic, f"k{A.name}")
        await passing(one)
        assert "could not be taken in" not in caplog.text
        assert one.tables()["marks"] == 0
        assert opened.hget(A.meta, "k") is None


async def test_a_request_that_comes_with_the_reply_that_a_channel_is_open_is_not_lost(
    redis: RedisServer, opened: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis names the owner as soon as the channel is open, before the owner goes on."""
    one, hold = Worker(redis.url), Ownership.hold

    def hold_after_a_request(*arguments: Any) -> None:
        one.redis.inbox.on[b"w"](f"w2 {A.name}".encode())
        hold(*arguments)

    monkeypatch.setattr(Ownership, "hold", hold_after_a_request)
    async with serving(one):
        log = await one.make_own(P.id, "~a", sourced=True, kind="unlimited")
        assert log.wanted == 2


async def test_a_request_to_a_source_is_repeated_until_the_source_answers(
    redis: RedisServer, opened: Client
) -> None:
    clock = ManualClock()
    async with RedisProxy(redis).run() as proxy:
        one, two = Worker(proxy.url), Worker(redis.url, clock=clock)
        async with serving(one, two):
            log = await one.make_own(P.id, "~a", sourced=True, kind="unlimited")
            window = await two.read(1)
            proxy.harm.lost = b"w"
            two.redis.want(window, 2)
            await passing(two)
            await passing(one)
            proxy.harm.lost = None
            assert log.wanted == 0
            while not log.wanted:
                clock.advance(REPEAT)
                await anyio.lowlevel.checkpoint()
            for data in (b"1", b"2"):
                await position(log, one.redis.append(log, data, sourced=True))
            await two.until(lambda: window.top == 2)
            while two.tables()["wanted"]:
                clock.advance(REPEAT)
                await anyio.lowlevel.checkpoint()


# Names


@pytest.mark.parametrize("partitions", [1, 64])
async def test_a_site_channel_never_reaches_an_own_one(redis: RedisServer, partitions: int) -> None:
    keys = Keys(partitions=partitions)
    people = PeopleScripts(keys)
    with redis.client() as client:
        run(client, people.open_process(keys.session(S.id), keys.process(P.id)))
    one = Worker(redis.url, partitions=partitions)
    async with serving(one):
        log = await one.make_own(P.id, "~a")
        await one.publish(log, b"secret")
        for name in ("~a", "a", f"{P.id}~a", f"~{P.id}~a"):
            window = Window(ChannelSpec(name=name, kind="site", size=9, max_bytes=99))
            assert await one.redis.find(name) is None
            assert await one.redis.place(window, First()) == Unknown()
            assert await one.redis.recover(window, 0, 99) is None
            with pytest.raises(ChannelClosed):
                await one.redis.follow(window)
            assert window.seen == []
        if partitions == 1:
            window = Window(ChannelSpec(name=f"~{P.id}~a", kind="site", size=9, max_bytes=99))
            with pytest.raises(NonUniqueChannelName):
                await one.redis.open(window)


async def test_kinds_of_the_site_and_of_processes_are_not_mixed(redis: RedisServer) -> None:
    one = Worker(redis.url)
    async with serving(one):
        window = Window(ChannelSpec(name="~a", kind="site", size=1, max_bytes=1, owner=P.id))
        with pytest.raises(InvalidDeclaration, match="of kind process or unlimited on Redis"):
            await one.redis.open(window)


async def test_a_window_that_the_worker_does_not_want_is_none(
    redis: RedisServer, opened: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(redis) as (one, two):
        await one.make_own(P.id, "~a")
        await two.claim(1, "~later")

        def none(spec: ChannelSpec) -> None:
            """Return no window: the process has closed here."""

        monkeypatch.setattr(two.people, "window", none)
        assert (await two.claim(1))["~a"] == Found(None, Closed("ended"))
        await one.make_own(P.id, "~later")
        await passing(two)
        await passing(two)
        assert two.tables()["followed"] == 0


async def test_a_channel_that_is_gone_before_the_worker_has_looked_has_no_window(
    redis: RedisServer, opened: Client
) -> None:
    two = Worker(redis.url)
    async with serving(two):
        await two.claim(1)
        inbox = opened.hget(P.process, "i").decode()
        opened.publish(inbox, f"ee 0 {A.name}")
        opened.publish(inbox, f"ee 0 {B.name}")
        opened.publish(inbox, "ee 0 ~AAother~a")
        opened.publish(inbox, f"ce ended {B.name}")
        opened.publish(inbox, f"me 1 {B.name}\n1:x")
        opened.publish(inbox, "rW:77")
        opened.publish(inbox, f"w1 {B.name}")
        two.redis.want(Window(_spec("~b")), 1)
        await passing(two)
        await passing(two)
        assert two.people.windows == {}
        assert redis_tables(two.redis)["readers"] == 1


async def test_a_reader_that_has_gone_does_not_wait_for_a_channel(
    redis: RedisServer, opened: Client
) -> None:
    async with pair(redis) as (one, two):
        await two.claim(1)
        inbox = opened.hget(P.process, "i").decode()
        opened.publish(inbox, f"ee 0 {A.name}")
        two.redis.people.unclaim(P.id, 1)
        await one.make_own(P.id, "~a")
        await passing(two)
        await passing(two)
        assert two.people.windows == {}


async def test_the_state_of_the_registration_protocol_has_a_bound(
    redis: RedisServer, opened: Client
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        await one.claim(1)
        assert await one.redis.people.save(P.id, 1, b"x" * MOST_STATE)
        with pytest.raises(ValueError, match="expected at most"):
            await one.redis.people.save(P.id, 1, b"x" * (MOST_STATE + 1))


async def test_a_worker_that_was_read_from_holds_nothing_in_the_end(
    redis: RedisServer, opened: Client
) -> None:
    clock = ManualClock()
    one, two = Worker(redis.url), Worker(redis.url, clock=clock)
    async with serving(one, two):
        log = await one.make_own(P.id, "~a")
        await two.claim(1, "~a", "~b")
        await one.claim(1, "~a", "~b")
        await two.until(lambda: two.people.readers == [(P.id, 1)])
        two.redis.people.leave(P.id, 0)
        await one.redis.end(log, "ended")
        one.redis.unfollow(log)
        two.people.windows.clear()
        one.people.windows.clear()
        del log
        await passing(one)  # what was asked about the end is answered
        gc.collect()
        assert {name for name, size in two.tables().items() if size} == {"attending", "copies"}
        while two.tables()["copies"]:  # opened again if Redis loses it within a minute
            clock.advance(TICK)
            await passing(two)
        assert set(two.tables().values()) == {0}
        assert {name for name, size in one.tables().items() if size} == {
            "attending",
            "copies",
            "readers",
        }


# A client that polls the same worker again


async def test_a_client_that_comes_back_to_its_worker_needs_no_claim(
    redis: RedisServer, opened: Client
) -> None:
    async with reading(redis) as (one, two, log, window):
        two.redis.people.unclaim(P.id, 1)
        first, second = await one.publish(log, b"1", b"2")
        await two.until(lambda: window.top == 2)
        before = opened.hget(P.process, "r")
        found = await two.claim(2, "~a", start=first)
        assert opened.hget(P.process, "r") == before
        assert found["~a"] == Found(window, Placed(1, first.epoch))
        while opened.hget(A.meta, "a") != b"1":  # the position has acknowledged
            await anyio.lowlevel.checkpoint()
        came = read_clock(two.redis)
        while milliseconds(opened) <= came:  # by which Redis tells them apart
            await anyio.lowlevel.checkpoint()
        await one.claim(3, "~a", start=second)
        await two.until(lambda: two.people.readers == [(P.id, 2)])


async def test_a_connection_that_came_after_the_claim_of_another_worker_reads_on(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        two.redis.people.unclaim(P.id, 1)
        first, _ = await one.publish(log, b"1", b"2")
        await two.until(lambda: window.top == 2)
        reader = opened.hget(P.process, "r").decode()
        proxy.harm.lost = b"r"
        await one.claim(2, "~a")
        at = milliseconds(opened)
        while read_clock(two.redis) <= at:
            await anyio.lowlevel.checkpoint()
        await two.claim(3, "~a", start=first)  # before it is told of the other one
        proxy.harm.lost = None
        opened.publish(two.redis.inbox.topic, f"r{reader} {at * 1000}")
        await one.until(lambda: one.people.readers == [(P.id, 2)])
        await one.publish(log, b"3")
        await two.until(lambda: window.top == 3)
        assert two.people.readers == []
        assert opened.hget(A.meta, "a") == b"1"  # the client has not said more


@pytest.mark.parametrize("back", ["without a claim", "on a new connection"])
async def test_a_connection_that_came_back_reads_further_channels(
    redis: RedisServer, opened: Client, back: str
) -> None:
    async with RedisProxy(redis).run() as proxy, pair(redis, proxy) as (one, two):
        logs = [await one.make_own(P.id, name) for name in ("~a", "~b")]
        window, reader = await two.read(1), 1
        (first,) = await one.publish(logs[0], b"1")
        (other,) = await one.publish(logs[1], b"x")
        await two.until(lambda: window.top == 1)
        if back == "without a claim":
            two.redis.people.unclaim(P.id, reader)
            reader += 1
            await two.claim(reader, start=first)
        else:
            proxy.reset()
            await one.publish(logs[0], b"2")
            await two.until(lambda: window.top == 2)
        found = await two.claim(reader, "~b", start=other)
        assert found["~b"].start == Placed(1, other.epoch)
        while opened.hget(B.meta, "a") != b"1":  # the position has acknowledged
            await anyio.lowlevel.checkpoint()
        (last,) = await one.publish(logs[0], b"last")
        await two.until(lambda: window.top == last.offset)
        assert two.people.readers == []
        two.redis.people.unclaim(P.id, reader)
        await one.claim(1)
        await passing(two)
        assert redis_tables(two.redis)["readers"] == 0


async def test_a_connection_that_was_replaced_reads_no_further_channel(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, pair(redis, proxy) as (one, two):
        await one.make_own(P.id, "~a")
        await two.claim(1)
        proxy.harm.lost = b"r"
        await one.claim(1)
        assert await two.claim(1, "~b") == {"~b": Found(None, Unknown())}
        assert two.people.readers == [(P.id, 1)]
        assert one.people.readers == []
        assert redis_tables(two.redis)["readers"] == 0


async def test_a_connection_that_was_replaced_while_redis_was_away_takes_nothing_back(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, pair(redis, proxy) as (one, two):
        await one.make_own(P.id, "~a")
        await two.claim(1)
        proxy.harm.deaf = True
        proxy.reset()
        while two.redis.connected:
            await anyio.lowlevel.checkpoint()
        found = list[dict[str, Found]]()

        async def claim_more() -> None:
            found.append(await two.claim(1, "~b"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(claim_more)
            await one.claim(1)
            proxy.harm.deaf = False
            proxy.reset()
        assert found == [{"~b": Found(None, Unknown())}]
        assert two.people.readers == [(P.id, 1)]
        assert one.people.readers == []
        assert two.tables()["readers"] == 0


async def test_a_connection_whose_claim_of_more_failed_reads_on(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, reading(redis, proxy) as (one, two, log, window):
        proxy.harm.deaf = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(two.claim, 1, "~b")
            await turns()
            tasks.cancel_scope.cancel()
        proxy.harm.deaf = False
        proxy.reset()
        await one.publish(log, b"1")
        await two.until(lambda: window.top == 1)
        assert two.people.readers == []
        assert two.tables()["idle"] == 0


async def test_a_client_that_comes_back_for_other_channels_claims(
    redis: RedisServer, opened: Client
) -> None:
    async with pair(redis) as (one, two):
        logs = [await one.make_own(P.id, name) for name in ("~a", "~b")]
        places = [(await one.publish(log, b"0"))[0] for log in logs]
        window = await two.read(1)
        await two.until(lambda: window.top == 1)
        two.redis.people.unclaim(P.id, 1)
        starts = dict(zip(("~a", "~b"), places, strict=True))
        found = await two.redis.people.claim(S.id, P.id, 2, starts)
        windows = [found[name].window for name in ("~a", "~b")]
        for log in logs:
            await one.publish(log, b"1")
        for other in windows:
            assert isinstance(other, Window)
            await two.until(lambda w=other: w.top == 2)  # type: ignore[misc]


async def test_two_claims_of_a_connection_at_once_are_one_reader(
    redis: RedisServer, opened: Client
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        logs = [await one.make_own(P.id, name) for name in ("~a", "~b")]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.claim, 1, "~a")
            tasks.start_soon(one.claim, 1, "~b")
        await one.publish(logs[1], b"x")
        assert one.people.readers == []
        assert redis_tables(one.redis)["readers"] == 1


async def test_a_client_that_comes_back_while_its_window_lacks_messages_claims(
    redis: RedisServer, opened: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RedisProxy(redis).run() as proxy:
        one, two = Worker(redis.url), Worker(proxy.url)
        async with serving(one, two), anyio.create_task_group() as tasks:
            log = await one.make_own(P.id, "~a")
            window = await two.read(1)
            (first,) = await one.publish(log, b"1")
            await two.until(lambda: window.top == 1)
            two.redis.people.unclaim(P.id, 1)
            proxy.harm.lost = b"m"
            await one.publish(log, b"2")
            await passing(two)
            proxy.harm.lost = None
            before, received = opened.hget(P.process, "r"), two.received

            def come_back(*arguments: Any) -> Received:
                found = received(*arguments)
                if found is Received.GAP:  # what is lost is read next
                    tasks.start_soon(partial(two.claim, 2, "~a", start=first))
                return found

            monkeypatch.setattr(two, "received", come_back)
            await one.publish(log, b"3")
            while opened.hget(P.process, "r") == before:
                await anyio.lowlevel.checkpoint()
            await two.until(lambda: window.top == 3)
            assert window.seen == [b"1", b"2", b"3"]


async def test_of_two_connections_the_later_one_reads_however_late_a_claim_arrives(
    redis: RedisServer, opened: Client
) -> None:
    async with RedisProxy(redis).run() as proxy, pair(redis, proxy) as (one, two):
        log = await one.make_own(P.id, "~a")
        found, reader, refused = dict[str, Found](), 0, {"~a": Found(None, Unknown())}

        async def claim() -> None:
            found.update(await two.claim(reader))

        while found != refused:  # the longer apart they come, the surer a worker knows which
            reader += 1
            await cut_off(two, proxy)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(claim)
                later = milliseconds(opened) + 10 * reader
                while milliseconds(opened) < later:
                    await turns()
                window = await one.read(reader)
                proxy.harm.deaf = False
                proxy.reset()
        assert (one.people.readers[reader:], two.people.readers[-1]) == ([], (P.id, reader))
        await one.publish(log, b"x")
        await one.until(lambda: window.top == 1)
        assert redis_tables(two.redis)["readers"] == 0


async def test_a_connection_that_waited_before_its_claim_came_when_it_came(
    redis: RedisServer, opened: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        await one.make_own(P.id, "~a")
        early = At(time.monotonic())
        latest = tell_time(two.redis, early.came)[1]
        while read_clock(one.redis) * 1000 <= latest:
            await turns()
        await one.read(1)
        found = await two.redis.people.claim(S.id, P.id, 1, {"~a": First()}, early)
        assert found == {"~a": Found(None, Unknown())}
        assert (one.people.readers, two.people.readers) == ([], [(P.id, 1)])


async def test_a_connection_that_waited_for_its_worker_came_when_it_came(
    redis: RedisServer, opened: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one):
        await one.make_own(P.id, "~a")
        await one.read(1)
        early = At(time.monotonic() - 60)
        async with living(two, seconds=20):
            assert not two.redis.connected  # the claim waits
            found = await two.redis.people.claim(S.id, P.id, 1, {"~a": First()}, early)
        assert found == {"~a": Found(None, Unknown())}


async def cut_off(worker: Worker, proxy: RedisProxy) -> None:
    """Let a worker have no connection until the proxy hears again."""
    proxy.harm.deaf = True
    proxy.reset()
    while worker.redis.connected:
        await turns()
