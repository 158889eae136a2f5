"""What a worker writes is stored in order, each once, whatever becomes of the connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import pytest

from asgi_comet import BrokerUnavailable, ChannelClosed, ChannelFull
from asgi_comet._runtime.clock import MonotonicClock
from asgi_comet.brokers.logs import Fenced
from asgi_comet.brokers.redis import lua
from asgi_comet.brokers.redis.address import Address, parse_address
from asgi_comet.brokers.redis.appends import Append
from asgi_comet.brokers.redis.audience_scripts import AudienceScripts, Message
from asgi_comet.brokers.redis.calls import Call, Item, Log
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.dialing import dial
from asgi_comet.brokers.redis.flusher import FORGOTTEN, Flusher
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.queueing import BATCH, Limits
from asgi_comet.brokers.redis.replies import Ended, Opened, Refused, Stale
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.core.messages import First
from asgi_comet.position import Position
from asgi_comet.testing.clock import ManualClock
from tests.kit.redis import Client, RedisServer, run
from tests.kit.redis_proxy import RedisProxy, turns

pytestmark = pytest.mark.anyio

T = TypeVar("T")

SCRIPTS = Scripts(Keys())
LOG = Log(SCRIPTS.keys.site("a"), "S", "-", 10_000, 2**24)
OTHER = Log(SCRIPTS.keys.site("b"), "S", "-", 10_000, 2**24)


@pytest.fixture
def store(client: Client) -> Client:
    """A Redis in which both channels are."""
    for log in (LOG, OTHER):
        run(client, SCRIPTS.open(log, "e"))
    return client


def held(store: Client, log: Log = LOG) -> list[bytes]:
    page = run(store, SCRIPTS.follow(log.keys, First(), most=10**6, max_bytes=10**9))
    return [message.data for message in page.run]


def make(clock: Any = None, on_refused: Any = None, **limits: Any) -> Flusher:
    run_soon = asyncio.get_running_loop().call_soon_threadsafe
    clock = clock or MonotonicClock()
    return Flusher(SCRIPTS, "W", clock, run_soon, on_refused, Limits(**limits))


@asynccontextmanager
async def flushing(flusher: Flusher, address: Address) -> AsyncIterator[Connection]:
    """Let a flusher run on a new connection."""
    connection = Connection(await dial(address, 20.0), lambda *_: None, 20.0)
    tasks = [asyncio.create_task(connection.run()), asyncio.create_task(flusher.run(connection))]
    try:
        yield connection
    finally:
        connection.close("the test is over")
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, BrokerUnavailable):
                await task


def address_of(redis: RedisServer) -> Address:
    return parse_address(redis.url)


async def test_messages_are_stored_in_the_order_of_the_calls(
    redis: RedisServer, store: Client
) -> None:
    flusher = make()
    async with flushing(flusher, address_of(redis)):
        sent = [flusher.append((LOG, OTHER)[n % 2], Item(b"%d" % n)) for n in range(2000)]
        positions = [await one() for one in sent]
        assert positions == [Position("e", n // 2 + 1) for n in range(2000)]
        assert flusher.waiting == 0
    assert held(store) == [b"%d" % n for n in range(0, 2000, 2)]
    assert held(store, OTHER) == [b"%d" % n for n in range(1, 2000, 2)]


async def test_the_messages_of_many_threads_are_stored_each_once(
    redis: RedisServer, store: Client
) -> None:
    flusher = make()
    sent: dict[int, list[Append]] = {}

    def publish(writer: int) -> None:
        sent[writer] = [flusher.append(LOG, Item(b"%d:%d" % (writer, n))) for n in range(300)]

    async with flushing(flusher, address_of(redis)):
        threads = [threading.Thread(target=publish, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        for writer, appends in sent.items():
            offsets = [(await one()).offset for one in appends]
            assert offsets == sorted(offsets)
            mine = [data for data in held(store) if data.startswith(b"%d:" % writer)]
            assert mine == [b"%d:%d" % (writer, n) for n in range(300)]
    assert len(held(store)) == 1200


async def test_what_comes_while_a_batch_is_under_way_is_the_next_batch(
    redis: RedisServer, store: Client
) -> None:
    flusher = make()
    async with flushing(flusher, address_of(redis)) as connection:
        await flusher.append(LOG, Item(b"zero"))()  # Redis knows the script
        calls: list[Call[Any]] = []
        send = connection.send

        def note(call: Call[Any]) -> asyncio.Future[Any]:
            calls.append(call)
            return send(call)

        connection.send = note  # type: ignore[method-assign]
        first = flusher.append(LOG, Item(b"first"))
        await turns(2)
        rest = [flusher.append(LOG, Item(b"%d" % n)) for n in range(BATCH + 10)]
        for one in (first, *rest):
            await one()
    assert len(calls) == 3
    assert [call.command[7] for call in calls] == [2, 3, 4]


async def test_a_large_message_is_a_batch_of_its_own(redis: RedisServer, store: Client) -> None:
    flusher = make()
    large = b"x" * 300_000
    sent = [flusher.append(LOG, Item(data)) for data in (b"1", large, b"2", large, large)]
    async with flushing(flusher, address_of(redis)):
        assert [(await one()).offset for one in sent] == [1, 2, 3, 4, 5]
    assert store.hget(SCRIPTS.keys.batch("W"), "n") == b"5"
    assert held(store) == [b"1", large, b"2", large, large]


async def test_a_script_keeps_its_place_among_the_messages(
    redis: RedisServer, store: Client
) -> None:
    flusher = make()
    before = flusher.append(LOG, Item(b"last words"))
    ended = flusher.call(SCRIPTS.end(LOG, "ended", 10**6))
    after = flusher.append(LOG, Item(b"too late"))
    async with flushing(flusher, address_of(redis)):
        assert await before() == Position("e", 1)
        assert (await ended) == (await ended)
        with pytest.raises(ChannelClosed, match="ended"):
            await after()
        await flusher.drained()
    assert held(store) == [b"last words"]


# Connections that end


async def test_a_batch_whose_reply_is_cut_at_any_byte_is_stored_once(
    redis: RedisServer, store: Client
) -> None:
    async with RedisProxy(redis).run() as proxy:
        cut, count, cuts = 0, 0, 0
        while cuts < 2:  # until the reply has passed before the cut, twice
            flusher = Flusher(
                SCRIPTS, f"W{cut}", MonotonicClock(), asyncio.get_running_loop().call_soon
            )
            proxy.harm.cut = None
            async with flushing(flusher, proxy.address) as connection:
                await flusher.call(SCRIPTS.lineage())  # Redis knows the script
                proxy.harm.cut = cut
                sent = [flusher.append(LOG, Item(b"%d:%d" % (cut, n))) for n in range(3)]
                while connection.closed is None and sent[0].outcome is None:
                    await turns(1)
                cuts += sent[0].outcome is not None
            proxy.harm.cut = None
            async with flushing(flusher, proxy.address):
                assert [(await one()).offset for one in sent] == [count + 1, count + 2, count + 3]
            cut, count = cut + 1, count + 3
    assert held(store) == [b"%d:%d" % (one, n) for one in range(cut) for n in range(3)]
    assert cut > 20


async def test_late_bytes_of_a_dead_connection_store_nothing_twice(
    redis: RedisServer, store: Client
) -> None:
    flusher = make()
    async with RedisProxy(redis).run() as proxy:
        async with flushing(flusher, proxy.address):
            await flusher.append(LOG, Item(b"known"))()
            proxy.harm.deaf = True
            sent = [flusher.append(LOG, Item(b"held back"))]
            await turns(20)
        proxy.harm.deaf = False
        async with flushing(flusher, proxy.address):
            for n in range(2):
                sent.append(flusher.append(LOG, Item(b"%d" % n)))
                await sent[-1]()
            await proxy.release()
            await flusher.append(LOG, Item(b"end"))()
    assert held(store) == [b"known", b"held back", b"0", b"1", b"end"]


async def lose_replies(
    proxy: RedisProxy, flusher: Flusher, *, patient: bool = False
) -> list[Append]:
    """Have two messages stored, and the reply lost."""
    async with flushing(flusher, proxy.address) as connection:
        await flusher.append(LOG, Item(b"known"))()  # Redis knows the script
        proxy.harm.cut = 0
        sent = [flusher.append(LOG, Item(b"%d" % n), patient=patient) for n in range(2)]
        while connection.closed is None:
            await turns(1)
        proxy.harm.cut = None
    return sent


async def test_a_full_redis_tells_what_it_stored_before(redis: RedisServer, store: Client) -> None:
    flusher = make()
    async with RedisProxy(redis).run() as proxy:
        sent = await lose_replies(proxy, flusher)
    try:
        store.config_set("maxmemory", 1)
        async with flushing(flusher, address_of(redis)):
            assert [await one() for one in sent] == [Position("e", 2), Position("e", 3)]
            with pytest.raises(ReplyError, match="OOM"):
                await flusher.append(LOG, Item(b"by hand"))()
    finally:
        store.config_set("maxmemory", 0)
    assert held(store) == [b"known", b"0", b"1"]


async def test_a_full_redis_tells_what_it_made_of_a_notification(
    redis: RedisServer, store: Client
) -> None:
    flusher, scripts = make(), AudienceScripts(SCRIPTS.keys)
    message = Message("notes", ["aa-closed"], b"1")
    async with (
        RedisProxy(redis).run() as proxy,
        flushing(flusher, proxy.address) as connection,
    ):
        first = await flusher.tell(scripts, message)
        proxy.harm.cut = 0
        told = flusher.tell(scripts, message)
        while connection.closed is None:
            await turns(1)
    try:
        store.config_set("maxmemory", 1)
        async with flushing(flusher, address_of(redis)):
            assert await told == first
    finally:
        store.config_set("maxmemory", 0)


async def test_what_a_full_redis_refuses_is_not_stored_by_late_bytes(
    redis: RedisServer, store: Client
) -> None:
    clock = ManualClock()
    flusher = make(clock)
    try:
        async with RedisProxy(redis).run() as proxy:
            async with flushing(flusher, proxy.address):
                await flusher.append(LOG, Item(b"known"))()
                proxy.harm.deaf = True
                by_hand = flusher.append(LOG, Item(b"by hand"))
                of_source = flusher.append(LOG, Item(b"of a source"), patient=True)
                await turns(20)
            proxy.harm.deaf = False
            store.config_set("maxmemory", 1)
            async with flushing(flusher, proxy.address):
                with pytest.raises(ReplyError, match="OOM") as caught:
                    await by_hand()
                assert not caught.value.maybe_stored
                store.config_set("maxmemory", 0)
                await proxy.release()
                clock.advance(1)
                assert await of_source() == Position("e", 2)
    finally:
        store.config_set("maxmemory", 0)
    assert held(store) == [b"known", b"of a source"]


async def lose_requests(proxy: RedisProxy, flusher: Flusher, send: Callable[[], T]) -> T:
    """Send what does not reach Redis, nor does Redis store it later; the worker does not know."""
    async with flushing(flusher, proxy.address):
        await flusher.append(LOG, Item(b"known"))()  # the first batch
        proxy.harm.deaf = True
        sent = send()
        await turns(20)
    proxy.harm.deaf = False
    return sent


@pytest.mark.parametrize("logs", [[LOG], [LOG, OTHER]])
async def test_a_batch_that_is_never_stored_is_sent_under_another_number(
    redis: RedisServer, store: Client, logs: list[Log]
) -> None:
    flusher = make()
    async with RedisProxy(redis).run() as proxy:
        sent = await lose_requests(
            proxy, flusher, lambda: [flusher.append(log, Item(b"late")) for log in logs]
        )
        assert run(store, SCRIPTS.void("W", 2, bytes)) == b""  # and the reply is lost
        async with flushing(flusher, proxy.address):
            assert [(await one()).epoch for one in sent] == ["e"] * len(logs)
            await proxy.release()
            await flusher.append(LOG, Item(b"last"))()
    assert held(store) == [b"known", b"late", b"last"]
    assert held(store, OTHER) == [b"late"] * (len(logs) - 1)
    assert run(store, SCRIPTS.void("W", 2, bytes)) == b"stale"


async def test_a_notification_that_is_never_stored_is_sent_under_another_number(
    redis: RedisServer, store: Client
) -> None:
    flusher, scripts = make(), AudienceScripts(SCRIPTS.keys)
    message = Message("notes", ["aa-closed"], b"1")
    async with RedisProxy(redis).run() as proxy:
        told = await lose_requests(proxy, flusher, lambda: flusher.tell(scripts, message))
        run(store, SCRIPTS.void("W", 2, bytes))
        async with flushing(flusher, proxy.address):
            assert await told == await flusher.tell(scripts, message) == ("closed",)


async def test_a_batch_that_is_given_up_while_redis_is_asked_is_over(
    redis: RedisServer, store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    flusher = make(clock, patience=1)
    async with RedisProxy(redis).run() as proxy:
        sent = await lose_replies(proxy, flusher)
    asked, reply = asyncio.Event(), asyncio.get_running_loop().create_future()
    store.config_set("maxmemory", 1)
    try:
        async with flushing(flusher, address_of(redis)) as connection:
            send = connection.send

            def hold(call: Call[Any]) -> asyncio.Future[Any]:
                if call.script is not lua.VOID:
                    return send(call)
                asked.set()
                return reply

            monkeypatch.setattr(connection, "send", hold)
            await asked.wait()
            clock.advance(2)
            flusher.give_up()
            reply.set_result(Stale(void=True))
            with pytest.raises(BrokerUnavailable) as caught:
                await sent[0]()
            assert caught.value.maybe_stored
            store.config_set("maxmemory", 0)
            assert await flusher.append(LOG, Item(b"new"))() == Position("e", 4)
    finally:
        store.config_set("maxmemory", 0)
    assert held(store) == [b"known", b"0", b"1", b"new"]


async def test_a_batch_that_redis_may_have_is_sent_until_redis_can_tell(
    redis: RedisServer, store: Client
) -> None:
    clock = ManualClock()
    flusher = make(clock)
    async with RedisProxy(redis).run() as proxy:
        sent = await lose_replies(proxy, flusher, patient=True)
    try:
        store.config_set("min-replicas-to-write", 1)  # so that Redis refuses all writes
        async with flushing(flusher, address_of(redis)):
            while store.info("errorstats").get("errorstat_NOREPLICAS", {"count": 0})["count"] < 4:
                clock.advance(1)
                await turns(1)
            assert [one.outcome for one in sent] == [None, None]
            store.config_set("min-replicas-to-write", 0)
            while None in [one.outcome for one in sent]:
                clock.advance(1)
                await turns(1)
            assert [await one() for one in sent] == [Position("e", 2), Position("e", 3)]
    finally:
        store.config_set("min-replicas-to-write", 0)
    assert held(store) == [b"known", b"0", b"1"]


async def test_a_lost_reply_to_a_script_is_answered_by_its_retry(
    redis: RedisServer, store: Client
) -> None:
    flusher = make()
    log = Log(SCRIPTS.keys.site("c"), "S", "made", 10, 100)
    async with RedisProxy(redis).run() as proxy:
        async with flushing(flusher, proxy.address):
            await flusher.call(SCRIPTS.find(log.keys))
            proxy.harm.mute = True
            opened = flusher.call(SCRIPTS.open(log, "mine"))
            sent = flusher.append(log, Item(b"x"))
            await wait_for(lambda: store.exists(log.keys.meta) == 1)
        proxy.harm.mute = False
        async with flushing(flusher, proxy.address):
            found = await opened
            assert isinstance(found, Opened)
            assert found.epoch == "mine"
            assert await sent() == Position("mine", 1)


async def wait_for(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not reached():
            await turns(1)


async def test_waiters_that_are_cancelled_change_nothing(redis: RedisServer, store: Client) -> None:
    flusher = make()
    async with flushing(flusher, address_of(redis)):
        for turn in range(8):
            sent = [flusher.append(LOG, Item(b"%d" % n)) for n in range(3)]
            waiters = [asyncio.create_task(one()) for one in sent]
            await turns(turn)
            waiters[1].cancel()
            assert (await waiters[0]).offset == turn * 3 + 1
            assert (await waiters[2]).offset == turn * 3 + 3
            assert (await sent[1]()).offset == turn * 3 + 2


# What is refused


async def test_who_publishes_is_told_why_a_message_was_refused(
    redis: RedisServer, store: Client
) -> None:
    flusher = make()
    nowhere = Log(SCRIPTS.keys.site("nowhere"), "S", "-", 10, 100)
    namesake = Log(LOG.keys, "S", "other", 10, 100)
    foreign = Log(SCRIPTS.keys.site("foreign"), "S", "-", 10, 100)
    store.set(foreign.keys.meta, "ours")
    sent = {
        "nowhere": flusher.append(nowhere, Item(b"1")),
        "namesake": flusher.append(namesake, Item(b"2")),
        "fenced": flusher.append(LOG, Item(b"3"), "V:1"),
        "foreign": flusher.append(foreign, Item(b"4")),
        "stored": flusher.append(LOG, Item(b"5")),
    }
    async with flushing(flusher, address_of(redis)):
        assert await sent["stored"]() == Position("e", 1)
        for name in ("nowhere", "namesake"):
            with pytest.raises(ChannelClosed):
                await sent[name]()
        with pytest.raises(Fenced, match="another worker"):
            await sent["fenced"]()
        with pytest.raises(BrokerUnavailable, match=r"not ours: .*c:foreign WRONGTYPE"):
            await sent["foreign"]()
        assert flusher.waiting == 0


async def test_what_was_refused_may_be_put_back_before_all_that_waits(
    redis: RedisServer, store: Client
) -> None:
    store.flushall()
    calls: list[str] = []

    def open_again(appends: Sequence[Append], refused: Refused) -> None:
        calls.append(refused.why)
        flusher.put_back(appends, SCRIPTS.open(LOG, "again"))

    flusher: Flusher = make(on_refused=open_again)
    sent = [flusher.append(LOG, Item(b"%d" % n)) for n in range(BATCH + 1)]
    async with flushing(flusher, address_of(redis)):
        assert [(await one()).offset for one in sent] == [n + 1 for n in range(BATCH + 1)]
    assert calls == ["gone"]
    assert flusher.waiting == 0


async def test_what_was_given_up_is_not_put_back(redis: RedisServer, store: Client) -> None:
    def open_again(appends: Sequence[Append], refused: Refused) -> None:
        flusher.put_back(appends, SCRIPTS.open(LOG, "again"))

    clock, most = ManualClock(), 5
    flusher: Flusher = make(clock, open_again, patience=60.0, messages=most)
    async with RedisProxy(redis).run() as proxy:
        async with flushing(flusher, proxy.address):
            proxy.harm.deaf = True
            late = flusher.append(LOG, Item(b"late"))
            of_source = flusher.append(LOG, Item(b"of a source"), patient=True)
            await turns(20)
        proxy.harm.deaf = False
        clock.advance(61)
        flusher.give_up()
        with pytest.raises(BrokerUnavailable):
            await late()
        store.flushall()
        async with flushing(flusher, proxy.address):
            assert (await of_source()).offset == 1
            assert flusher.waiting == 0
    assert held(store) == [b"of a source"]
    for number in range(most):
        flusher.append(LOG, Item(b"%d" % number))
    with pytest.raises(BrokerUnavailable):
        flusher.append(LOG, Item(b"one more"))


async def test_a_full_redis_refuses_what_is_published_and_keeps_what_a_source_has(
    redis: RedisServer, store: Client
) -> None:
    clock = ManualClock()
    flusher = make(clock)
    store.config_set("maxmemory", 1)
    try:
        async with flushing(flusher, address_of(redis)):
            by_hand = flusher.append(LOG, Item(b"by hand"))
            of_source = flusher.append(LOG, Item(b"of a source"), patient=True)
            with pytest.raises(ReplyError, match="OOM") as caught:
                await by_hand()
            assert not caught.value.maybe_stored
            later = flusher.append(LOG, Item(b"later"), patient=True)
            with pytest.raises(ReplyError, match="OOM"):
                await flusher.call(SCRIPTS.open(OTHER, "f"))
            assert await flusher.call(SCRIPTS.end(OTHER, "ended", 1)) == Ended("ended")
            clock.advance(1)
            await flusher.call(SCRIPTS.find(LOG.keys))  # the source was refused once more
            store.config_set("maxmemory", 0)
            clock.advance(1)
            assert await of_source() == Position("e", 1)
            assert await later() == Position("e", 2)
            assert flusher.waiting == 0
    finally:
        store.config_set("maxmemory", 0)
    assert held(store) == [b"of a source", b"later"]


async def test_a_message_that_would_make_a_state_too_large_is_refused_alone(
    redis: RedisServer, store: Client
) -> None:
    keyed = Log(SCRIPTS.keys.site("keyed"), "K", "-", 10, 2**20, most_keys=1)
    run(store, SCRIPTS.open(keyed, "e"))
    flusher = make()
    sent = [
        flusher.append(keyed, Item(b"1", changed=[("a", b"1")])),
        flusher.append(keyed, Item(b"2", changed=[("b", b"2")])),
        flusher.append(keyed, Item(b"3", deleted=["a"], changed=[("b", b"3")])),
    ]
    async with flushing(flusher, address_of(redis)):
        assert (await sent[2]()).offset == 2
        with pytest.raises(BrokerUnavailable, match="the state of channel 'keyed' would be too"):
            await sent[1]()
    assert store.hgetall(keyed.keys.state) == {b"b": b"3"}


async def test_a_channel_whose_reader_is_too_far_behind_is_full(
    redis: RedisServer, store: Client
) -> None:
    own = Log(SCRIPTS.keys.site("own"), "P", "-", 1, 2**20)
    run(store, SCRIPTS.open(own, "e"))
    flusher = make()
    sent = flusher.append(own, Item(b"1"))
    async with flushing(flusher, address_of(redis)):
        await sent()
        with pytest.raises(ChannelFull):
            await flusher.append(own, Item(b"2"))()


# Bounds


async def test_what_waits_is_bounded_by_count_and_bytes() -> None:
    flusher = make(messages=3, bytes=100)
    for _ in range(3):
        flusher.append(LOG, Item(b"x"))
    told = (
        r"^the buffer is full: expected at most 3 messages of 100 bytes \(buffer_bytes\) .*, got 3 "
        r"of 3 bytes, and one more of 1; publish no faster .*: await channel\.publish.*stored\(\)$"
    )
    with pytest.raises(BrokerUnavailable, match=told) as caught:
        flusher.append(LOG, Item(b"x"))
    assert not caught.value.maybe_stored
    flusher = make(messages=100, bytes=100)
    flusher.append(LOG, Item(b"x" * 60))
    flusher.append(LOG, Item(b"x" * 40))
    with pytest.raises(BrokerUnavailable, match="got 2 of 100 bytes, and one more of 1;"):
        flusher.append(LOG, Item(b"x"))
    flusher.append(LOG, Item(b"of a source"), patient=True)
    assert flusher.waiting == 3
    flusher = make(messages=100, bytes=100)
    flusher.append(LOG, Item(b"x" * 101))  # larger than all there may be: alone


@pytest.mark.parametrize("patience", [0, 300])
def test_a_patience_beyond_what_redis_remembers_is_refused(patience: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 300 seconds"):
        Limits(patience=patience)
    assert Limits(patience=299).patience == 299


async def test_a_batch_under_way_keeps_the_name_that_it_was_sent_with(
    redis: RedisServer, store: Client
) -> None:
    flusher = make()
    async with RedisProxy(redis).run() as proxy:
        async with flushing(flusher, proxy.address):
            await flusher.append(LOG, Item(b"0"))()
            proxy.harm.mute = True
            sent = flusher.append(LOG, Item(b"1"))
            await wait_for(lambda: store.llen(LOG.keys.log) == 2)
        proxy.harm.mute = False
        flusher.worker = "another"
        async with flushing(flusher, proxy.address):
            assert (await sent()).offset == 2
            assert (await flusher.append(LOG, Item(b"2"))()).offset == 3
    assert held(store) == [b"0", b"1", b"2"]
    assert store.hget(SCRIPTS.keys.batch("another"), "n") == b"3"


async def test_a_source_waits_for_room(redis: RedisServer, store: Client) -> None:
    flusher = make(messages=1)
    await flusher.room(1)
    flusher.append(LOG, Item(b"x"))
    waiting = asyncio.create_task(flusher.room(1))
    await turns(5)
    assert not waiting.done()
    async with flushing(flusher, address_of(redis)):
        async with asyncio.timeout(20):
            await waiting


async def test_what_waits_too_long_is_given_up(redis: RedisServer, store: Client) -> None:
    clock = ManualClock()
    flusher = make(clock, patience=60.0)
    old = flusher.append(LOG, Item(b"old"))
    of_source = flusher.append(LOG, Item(b"of a source"), patient=True)
    opened = flusher.call(SCRIPTS.open(OTHER, "f"))
    asked = flusher.call(SCRIPTS.find(LOG.keys), patient=False)
    clock.advance(60)
    young = flusher.append(LOG, Item(b"young"))
    flusher.give_up()
    assert old.outcome is None
    clock.advance(1)
    flusher.give_up()
    for given_up in (old(), asked):
        with pytest.raises(BrokerUnavailable, match="away for 60 s") as caught:
            await given_up
        assert not caught.value.maybe_stored
    assert flusher.waiting == 2
    async with flushing(flusher, address_of(redis)):
        assert (await of_source()).offset == 1
        assert (await young()).offset == 2
        assert await opened is not None


@pytest.mark.parametrize("with_source", [False, True])
async def test_a_batch_that_may_be_stored_is_given_up_as_a_whole(
    redis: RedisServer, store: Client, with_source: bool
) -> None:
    clock = ManualClock()
    flusher = make(clock, patience=60.0)
    async with RedisProxy(redis).run() as proxy:
        async with flushing(flusher, proxy.address):
            proxy.harm.deaf = True
            sent = [flusher.append(LOG, Item(b"1"))]
            clock.advance(2)
            sent.append(flusher.append(LOG, Item(b"2")))
            if with_source:
                sent.append(flusher.append(LOG, Item(b"3"), patient=True))
            await turns(20)
        proxy.harm.deaf = False
        clock.advance(60)
        flusher.give_up()
        for given_up in sent[:2]:
            with pytest.raises(BrokerUnavailable) as caught:
                await given_up()
            assert caught.value.maybe_stored
        after = flusher.append(LOG, Item(b"after"))
        async with flushing(flusher, proxy.address):
            await after()
            await proxy.release()
            await flusher.append(LOG, Item(b"end"))()
        assert flusher.waiting == 0
    found = held(store)
    assert found == ([b"1", b"2", b"3"] if with_source else []) + [b"after", b"end"]


async def test_a_batch_that_redis_may_have_forgotten_is_never_sent_again(
    redis: RedisServer, store: Client
) -> None:
    clock = ManualClock()
    flusher = make(clock)
    lost: list[Any] = []
    flusher.patience.on_lost = lambda appends, _: lost.extend(appends)
    async with RedisProxy(redis).run() as proxy:
        async with flushing(flusher, proxy.address):
            await flusher.append(LOG, Item(b"before"))()
            proxy.harm.mute = True
            value = flusher.append(LOG, Item(b"value"), patient=True)
            await wait_for(lambda: held(store) == [b"before", b"value"])
        proxy.harm.mute = False
        clock.advance(FORGOTTEN)
        flusher.give_up()
        assert value.outcome is None  # Redis remembers the batch by its number
        clock.advance(1)
        flusher.give_up()
        with pytest.raises(BrokerUnavailable) as caught:
            await value()
        assert caught.value.maybe_stored
        assert lost == [value]
        async with flushing(flusher, proxy.address):
            await flusher.append(LOG, Item(b"after"))()
    assert held(store) == [b"before", b"value", b"after"]
    assert flusher.waiting == 0


async def test_a_script_that_may_have_run_is_given_up(redis: RedisServer, store: Client) -> None:
    clock = ManualClock()
    flusher = make(clock, patience=60.0)
    async with RedisProxy(redis).run() as proxy:
        async with flushing(flusher, proxy.address):
            proxy.harm.deaf = True
            kept = flusher.call(SCRIPTS.find(LOG.keys))
            await turns(20)
            clock.advance(61)
            flusher.give_up()
            assert not kept.done()
        proxy.harm.deaf = False
        async with flushing(flusher, proxy.address):
            assert await kept is not None
            proxy.harm.deaf = True
            asked = flusher.call(SCRIPTS.find(LOG.keys), patient=False)
            await turns(20)
        clock.advance(61)
        flusher.give_up()
        with pytest.raises(BrokerUnavailable) as caught:
            await asked
        assert caught.value.maybe_stored


async def test_batches_that_are_mixed_up_end_the_connection(
    redis: RedisServer, store: Client, caplog: pytest.LogCaptureFixture
) -> None:
    flusher = make()
    lost: list[Any] = []
    flusher.patience.on_lost = lambda appends, _: lost.extend(appends)
    run(store, SCRIPTS.append("W", 5, []))
    async with flushing(flusher, address_of(redis)) as connection:
        with pytest.raises(BrokerUnavailable, match="mixed up") as caught:
            await flusher.append(LOG, Item(b"x"))()
        assert caught.value.maybe_stored
        assert connection.closed == "batches were mixed up"
    assert len(lost) == 1
    assert "came after a later one" in caplog.text
    assert held(store) == []


async def test_a_reply_that_cannot_be_read_is_the_callers(
    redis: RedisServer, store: Client
) -> None:
    flusher = make()
    async with flushing(flusher, address_of(redis)):
        with pytest.raises(ValueError, match="invalid literal"):
            await flusher.call(Call(("ECHO", "x"), int))
        assert await flusher.append(LOG, Item(b"x"))() == Position("e", 1)
