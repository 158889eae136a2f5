"""Notifiers and farewells while Redis fails, loses data, or workers die."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet import BrokerUnavailable, ProcessClosed
from asgi_comet.brokers.redis import attending, audience_scripts, farewells, probing
from asgi_comet.brokers.redis.audience_scripts import SEPARATOR, AudienceScripts
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.replies import Reply
from asgi_comet.core.messages import First
from asgi_comet.testing._inspect_redis import attended, flusher_of, redis_tables, worker_of
from asgi_comet.testing.party import new_id
from asgi_comet.testing.window import Window
from tests.kit.redis import Client, RedisServer
from tests.kit.redis_proxy import RedisProxy
from tests.kit.redis_workers import KEYS, Worker, answered, promoted, saved, serving, workers_on

pytestmark = pytest.mark.anyio

NAME, KEY = "news", '"k"'
MEMBER = f"{NAME}{SEPARATOR}{KEY}"


async def open_tab(worker: Worker, *keys: str) -> tuple[str, str]:
    """Open a client process with a channel, which listens on keys."""
    session = new_id()
    process = await worker.store.open(session, new_id(session))
    await worker.make_own(process, f"~{NAME}", adopt=True)
    for key in keys:
        await worker.store.audience.listen(process, NAME, key)
    return session, process


async def seen(session: str, *workers: Worker) -> None:
    """Have workers know a session, as each does before a connection comes."""
    for worker in workers:
        await worker.store.visit([session])


async def read(worker: Worker, session: str, process: str, reader: int = 1) -> Window:
    found = await worker.store.claim(session, process, reader, {f"~{NAME}": First()})
    window = found[f"~{NAME}"].window
    assert isinstance(window, Window)
    return window


async def tell(worker: Worker, data: bytes, *processes: str) -> list[int | None]:
    told = await worker.store.audience.tell(f"~{NAME}", processes, data)
    return [None if at is None else at.offset for at in told]


async def listeners(worker: Worker, key: str = KEY) -> set[str]:
    parts = worker.store.audience.listeners(NAME, key)
    return {one.process async for part in parts for one in part}


async def until_listens(worker: Worker, expected: set[str], key: str = KEY) -> None:
    """Return once the store answers so."""
    while True:
        try:
            if await listeners(worker, key) == expected:
                return
        except BrokerUnavailable:
            pass
        await anyio.lowlevel.checkpoint()


# Lost data


async def test_an_emptied_redis_is_told_who_listens(
    redis: RedisServer, client: Client, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attending, "MOST", 2)
    async with workers_on(redis, 3) as workers:
        one, two, three = workers
        session, process = await open_tab(three, KEY, "1", "2", "3")
        await seen(session, *workers)
        two.store.enter(session, process)
        await three.store.keep(session, process)
        await answered(*workers)
        await one.store.audience.listen(process, NAME, "4")  # by a worker that has no copy
        await one.store.audience.unlisten(process, NAME, "1")
        await three.store.audience.unlisten(process, NAME, "2")
        _, unused = await open_tab(one, KEY)
        client.flushall()
        for key in (KEY, "3", "4"):
            await until_listens(one, {process}, key)
        await until_listens(one, set(), "1")
        assert await listeners(one, "2") == set()
        assert unused not in await listeners(two)
        while await tell(three, b"1", process) == [None]:
            await anyio.lowlevel.checkpoint()  # until a worker has opened the channel again
        window = await read(two, session, process)
        await two.until(lambda: window.seen[-1:] == [b"1"])


async def test_a_channel_that_redis_has_lost_still_listens(
    redis: RedisServer, client: Client
) -> None:
    async with workers_on(redis, 2) as (one, two):
        _, process = await open_tab(one, KEY)
        keys = KEYS.process(process)
        client.delete(keys.channel(NAME).meta)
        assert await tell(two, b"1", process) == [None]
        assert await listeners(two) == {process}
        client.hdel(keys.channels, NAME)
        client.hset(keys.channels, f":{NAME}", 1)  # now it has ended, and was forgotten
        assert await tell(two, b"1", process) == [None]
        assert await listeners(two) == set()


@pytest.mark.parametrize("lost", ["keys", "set"])
async def test_a_tab_that_would_listen_in_vain_is_told_full(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(attending, "LOOK", 0.01)
    async with workers_on(redis, 2) as (one, two):
        session, process = await open_tab(one, KEY, "1")
        _, other = await open_tab(one, "1")
        await seen(session, two)
        window = await read(two, session, process)
        two.store.enter(session, other)
        await answered(two)
        keys, index = KEYS.process(process), KEYS.listeners(NAME, KEY)
        client.delete(keys.audiences if lost == "keys" else index)
        try:
            client.config_set("maxmemory", 1)
            while not client.info("errorstats").get("errorstat_OOM"):  # until it cannot be told
                await anyio.lowlevel.checkpoint()
        finally:
            client.config_set("maxmemory", 0)
        await two.until(lambda: window.closed == "full")
        assert await listeners(one) == set()
        assert await listeners(one, "1") == {other}
        await two.make_own(process, f"~{NAME}", adopt=True)
        await two.store.audience.listen(process, NAME, KEY)
        assert await listeners(one) == {process}


async def test_a_process_that_listens_at_this_moment_is_not_told_full(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attending, "LOOK", 0.01)
    looked = anyio.Event()
    is_indexed = AudienceScripts.is_indexed

    def late(self: AudienceScripts, process: str, member: str) -> Call[bool]:
        call = is_indexed(self, process, member)

        def read(reply: Reply) -> bool:
            client.zadd(KEYS.listeners(NAME, KEY), {process: 1})  # by the worker that lets it
            there = call.read(reply)
            if there:
                looked.set()
            return there

        return Call(call.command, read)

    monkeypatch.setattr(AudienceScripts, "is_indexed", late)
    async with workers_on(redis, 1) as (one,):
        session, process = await open_tab(one, KEY)
        window = await read(one, session, process)
        client.delete(KEYS.listeners(NAME, KEY))
        await looked.wait()
        assert await tell(one, b"1", process) == [1]
        assert window.closed is None


async def test_a_set_of_another_program_is_not_taken_for_lost(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attending, "LOOK", 0.01)
    async with workers_on(redis, 1) as (one,):
        session, process = await open_tab(one, KEY)
        client.set(KEYS.listeners(NAME, KEY), "theirs")
        connection = one.redis.serving.connection
        window = await read(one, session, process)
        while not client.info("errorstats").get("errorstat_WRONGTYPE"):
            await anyio.lowlevel.checkpoint()
        await answered(one)
        assert one.redis.serving.connection is connection
        assert window.closed is None


async def test_the_keys_of_a_process_are_known_after_a_lost_connection(
    redis: RedisServer, client: Client, quick: None
) -> None:
    async with workers_on(redis, 2) as (one, two):
        session, process = await open_tab(one, KEY)
        await seen(session, two)
        two.store.enter(session, process)
        await answered(two)
        generation = two.redis.serving.connection
        gone_session, gone = await open_tab(one, KEY)
        two.store.enter(gone_session, gone)
        two.store.leave(gone, 0)
        await answered(two)
        two.redis.serving.connection.close("planned")  # type: ignore[union-attr]
        await one.store.audience.listen(process, NAME, "1")
        while two.redis.serving.connection in (None, generation):
            await anyio.lowlevel.checkpoint()
        await answered(one, two)
        await one.store.audience.listen(process, NAME, "2")
        await answered(one, two)
        client.flushall()
        for key in (KEY, "1", "2"):
            await until_listens(one, {process}, key)


async def test_the_keys_of_a_full_channel_are_not_told_again(
    redis: RedisServer, client: Client, quick: None
) -> None:
    async with workers_on(redis, 2) as (one, two):
        session, process = await open_tab(one, KEY)
        kept_session, kept = await open_tab(one, KEY)
        await seen(session, one, two)
        await seen(kept_session, one, two)
        for worker in (one, two):
            worker.store.enter(session, process)
            worker.store.enter(kept_session, kept)
        await answered(one, two)
        await one.store.audience.overflow(f"~{NAME}", process)
        await answered(one, two)
        client.flushall()
        await until_listens(one, {kept})
        await until_listens(two, {kept})
        assert (await two.store.visit([session], process)).owner == session


async def test_the_keys_of_a_process_that_comes_back_to_an_emptied_redis_are_told_again(
    redis: RedisServer, client: Client, quick: None
) -> None:
    """The tab comes back before its worker knows that Redis has lost the data."""
    async with workers_on(redis, 1) as (one,):
        session, process = await open_tab(one, KEY)
        await seen(session, one)
        await one.store.keep(session, process)
        await answered(one)
        one.store.leave(process, 0)
        await answered(one)
        client.flushall()
        one.store.enter(session, process)
        await until_listens(one, {process})
        assert (await one.store.visit([session], process)).owner == session


async def test_a_worker_forgets_the_keys_of_what_it_does_not_have(
    redis: RedisServer, client: Client
) -> None:
    async with workers_on(redis, 2) as (one, two):
        session, process = await open_tab(one, KEY)
        two.store.enter(session, process)
        two.store.enter(session, process)
        await answered(two)
        assert redis_tables(two.redis)["attending"] == 1
        assert redis_tables(one.redis)["attending"] == 0
        two.store.leave(process, 0)
        two.store.leave("unknown", 0)
        await one.store.audience.listen(process, NAME, "1")
        await two.store.keep(session, process)  # reads the keys again
        await one.store.close(session, process)
        await two.until(lambda: process in two.people.ended)
        assert redis_tables(two.redis)["attending"] == 0
        for frame in (b"lunknown x", b"uunknown x", b"k~unknown~x", b"tx\n1:1\nunknown e 1"):
            client.publish(KEYS.inbox(worker_of(two.redis)), frame)
        await answered(two)


async def test_the_listeners_of_another_generation_are_asked_anew(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience_scripts, "SCANNED", 10)
    monkeypatch.setattr(probing, "EVERY", 3600.0)  # a probe would end the connection for it
    async with workers_on(redis, 1) as (one,):
        processes = {(await open_tab(one, KEY))[1] for _ in range(300)}
        found = list[str]()
        async for part in one.store.audience.listeners(NAME, KEY):
            if not found:
                one.redis.serving.generation = "another"
            found += [item.process for item in part]
        assert set(found) == processes
        assert len(found) == len(processes)


# Entries out of date


async def test_entries_that_are_out_of_date_are_removed(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workers_on(redis, 1) as (one,):
        session, process = await open_tab(one, KEY)
        closed_session, closed = await open_tab(one, KEY)
        await one.store.close(closed_session, closed)
        _, silent = await open_tab(one)
        index = KEYS.listeners(NAME, KEY)
        client.zadd(index, {closed: 1, silent: 1, new_id(): 1})
        assert await listeners(one) == {process}
        assert client.zrange(index, 0, -1) == [process.encode()]
        await one.store.close(session, process)
        assert not client.exists(index)


async def test_a_process_that_closes_while_it_begins_to_listen_leaves_nothing(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workers_on(redis, 1) as (one,):
        _, process = await open_tab(one)
        index = AudienceScripts.index

        def late(self: Any, process: str, member: str) -> Any:
            client.hset(KEYS.process(process).process, "x", 1)  # closed right before
            return index(self, process, member)

        monkeypatch.setattr(AudienceScripts, "index", late)
        with pytest.raises(ProcessClosed):
            await one.store.audience.listen(process, NAME, KEY)
        assert not client.exists(KEYS.listeners(NAME, KEY))


async def test_the_user_is_that_of_the_session_which_the_process_has_by_then(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workers_on(redis, 1) as (one,):
        session, process = await open_tab(one, KEY)
        user, new = AudienceScripts.user, new_id(session)

        def late(self: Any, of: str) -> Any:
            if of == session:  # it moves right before
                client.hset(KEYS.process(process).process, "s", new)
                client.hset(KEYS.session(new).session, "u", '"ann"')
            return user(self, of)

        monkeypatch.setattr(AudienceScripts, "user", late)
        (part,) = [part async for part in one.store.audience.listeners(NAME, KEY)]
        assert [(item.session, item.user) for item in part] == [(new, '"ann"')]


async def test_the_sets_of_used_keys_last(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attending, "LOOK", 0.01)
    monkeypatch.setattr(attending, "KEEP", 2)
    async with workers_on(redis, 1) as (one,):
        session, process = await open_tab(one, KEY)
        index = KEYS.listeners(NAME, KEY)
        client.pexpire(index, 100_000)
        one.store.enter(session, process)
        while client.pttl(index) <= 100_000:
            await anyio.lowlevel.checkpoint()


# Messages


async def test_a_message_is_stored_once_if_the_reply_is_lost(redis: RedisServer) -> None:
    async with RedisProxy(redis).run() as proxy:
        one, two = Worker(proxy.url), Worker(redis.url)
        async with serving(one, two):
            session, process = await open_tab(two, KEY)
            window = await read(two, session, process)
            assert await tell(two, b"1", process) == [1]  # Redis has the script from now on
            proxy.harm.mute = True
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tell, one, b"2", process)
                await two.until(lambda: window.top == 2)
                proxy.harm.mute = False
                proxy.reset()
                tasks.start_soon(tell, one, b"3", process)
                await two.until(lambda: window.top == 3)
            assert await tell(two, b"4", process) == [4]
            await two.until(lambda: window.top == 4)
            assert window.seen == [b"1", b"2", b"3", b"4"]


async def test_messages_that_wait_too_long_are_given_up(redis: RedisServer) -> None:
    async with RedisProxy(redis).run() as proxy:
        one, two = Worker(proxy.url, timeout=0.2, patience=0.5), Worker(redis.url)
        async with serving(one, two):
            processes = [(await open_tab(two, KEY))[1] for _ in range(300)]
            proxy.harm.mute = True
            audience = one.store.audience
            with anyio.CancelScope() as gone:
                gone.cancel()
                await tell(one, b"0", processes[0])
            with pytest.raises(BrokerUnavailable):
                await tell(one, b"1", *processes)
            each = await audience.tell_each(f"~{NAME}", [(processes[0], b"2")])
            assert isinstance(each[0], BrokerUnavailable)
            with pytest.raises(BrokerUnavailable):
                await audience.overflow(f"~{NAME}", processes[0])
            proxy.harm.mute = False
            proxy.reset()
            while True:
                try:
                    assert (await tell(one, b"3", processes[1]))[0] is not None
                    break
                except BrokerUnavailable:
                    await anyio.lowlevel.checkpoint()


async def test_a_redis_that_is_full_refuses_listeners_and_takes_messages_later(
    redis: RedisServer, client: Client
) -> None:
    async with workers_on(redis, 1) as (one,):
        session, process = await open_tab(one, KEY, "1")
        window = await read(one, session, process)
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(BrokerUnavailable):
                await one.store.audience.listen(process, NAME, "2")
            await one.store.audience.unlisten(process, NAME, "1")
            async with anyio.create_task_group() as tasks:
                for data in (b"1", b"2"):
                    tasks.start_soon(tell, one, data, process)
                    while redis_tables(one.redis)["queued"] < int(data):
                        await anyio.lowlevel.checkpoint()
                client.config_set("maxmemory", 0)
        finally:
            client.config_set("maxmemory", 0)
        await one.until(lambda: window.top == 2)
        assert window.seen == [b"1", b"2"]
        assert await listeners(one, "1") == await listeners(one, "2") == set()


async def test_a_key_of_another_program_harms_no_other_message(
    redis: RedisServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with workers_on(redis, 1) as (one,):
        _, strange = await open_tab(one, KEY)
        _, process = await open_tab(one, KEY)
        key = KEYS.process(strange).channel(NAME).log
        client.set(key, "of another program")
        assert await tell(one, b"1", strange, process) == [None, 1]
        assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
            "a key of channel '~news' of a client process is not ours"
        ]
        client.delete(key)
        client.hset(KEYS.process(strange).channel(NAME).meta, "K", "U")
        assert await tell(one, b"2", strange, process) == [None, 2]


async def test_the_messages_of_a_lost_generation_have_another_epoch(
    redis: RedisServer, client: Client, quick: None
) -> None:
    async with workers_on(redis, 1) as (one,):
        session, process = await open_tab(one, KEY)
        window = await read(one, session, process)
        (before,) = await one.store.audience.tell(f"~{NAME}", [process], b"1")
        data = saved(client)
        promoted(client, data)
        while True:
            try:
                (after,) = await one.store.audience.tell(f"~{NAME}", [process], b"2")
            except BrokerUnavailable:
                continue
            if after is not None and before is not None and after.epoch != before.epoch:
                break
        assert after.offset > before.offset
        await one.until(lambda: window.epoch == after.epoch and window.top == after.offset)


async def test_a_number_that_redis_has_passed_is_a_fault(
    redis: RedisServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with workers_on(redis, 1) as (one,):
        _, process = await open_tab(one, KEY)
        assert await tell(one, b"1", process) == [1]
        (batch,) = client.keys("*b:*")
        client.hset(batch, "n", 1000)
        with pytest.raises(BrokerUnavailable) as raised:
            await tell(one, b"2", process)
        assert raised.value.maybe_stored
        assert "came after a later one" in caplog.text


async def test_a_message_to_more_than_one_call_may_be_stored_in_part(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workers_on(redis, 1) as (one,):
        _, process = await open_tab(one, KEY)
        tell_ = flusher_of(one.redis).tell
        calls = iter([tell_])

        def once(scripts: Any, message: Any) -> Any:
            for call in calls:
                return call(scripts, message)
            future = asyncio.get_running_loop().create_future()
            future.set_exception(BrokerUnavailable("planned"))
            return future

        monkeypatch.setattr(flusher_of(one.redis), "tell", once)
        with pytest.raises(BrokerUnavailable, match="planned") as raised:
            await tell(one, b"1", *[process] * 300)
        assert raised.value.maybe_stored


async def test_nothing_is_left_of_closed_processes(redis: RedisServer, client: Client) -> None:
    async with workers_on(redis, 2) as (one, two):
        tabs = [await open_tab(one, KEY, "1", "2") for _ in range(5)]
        for session, process in tabs:
            await read(two, session, process)
        processes = [process for _, process in tabs]
        await tell(two, b"1", *processes)
        await two.store.audience.unlisten(processes[0], NAME, "1")
        await two.store.audience.overflow(f"~{NAME}", processes[1])
        for session, process in tabs:
            await one.store.close(session, process)
        await answered(one, two)
        kinds = {key.decode().partition("}")[2].partition(":")[0] for key in client.keys("*")}
        assert kinds <= {
            "lin",
            "numbers",
            "format",
            "workers",
            "calm",
            "members",
            "b",
            "p",
            "logr",
            "s",
        }
        assert redis_tables(two.redis)["attending"] == 0


async def test_a_caller_that_is_gone_does_not_harm_the_others(redis: RedisServer) -> None:
    async with workers_on(redis, 1) as (one,):
        _, process = await open_tab(one, KEY)
        scripts = AudienceScripts(KEYS)
        message = audience_scripts.Message(NAME, [process], b"1")
        flusher_of(one.redis).tell(scripts, message).cancel()
        assert await tell(one, b"2", process) == [2]


# Farewells


async def test_another_worker_bids_farewell_if_one_dies(
    redis: RedisServer, client: Client, quick: None
) -> None:
    async with workers_on(redis, 2) as (one, two):
        one.people.withheld = []
        session = new_id()
        process = await one.store.open(session, new_id(session))
        await one.store.close(session, process)
        await one.until(lambda: one.people.farewells == [process])
        one.die()
        keys = KEYS.process(process)
        client.delete(KEYS.calm)
        client.zadd(keys.closing, {process: 1})  # a minute later
        await two.until(lambda: two.people.farewells == [process])
        while client.exists(keys.closing):
            await anyio.lowlevel.checkpoint()


async def test_another_worker_bids_farewell_if_one_stops(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(two):
        async with serving(one):
            one.people.withheld = []
            session = new_id()
            process = await one.store.open(session, new_id(session))
            await one.store.close(session, process)
            await one.until(lambda: one.people.farewells == [process])
        one.people.withheld[0]()  # too late
        client.delete(KEYS.calm)
        await two.until(lambda: two.people.farewells == [process])


@pytest.mark.parametrize("turns_between", range(12))
async def test_a_process_that_is_closed_twice_at_once_gets_one_farewell(
    redis: RedisServer, turns_between: int
) -> None:
    async with workers_on(redis, 1) as (one,):
        for _ in range(5):
            session = new_id()
            process = await one.store.open(session, new_id(session))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(one.store.close(session, process))
                for _ in range(turns_between):
                    await asyncio.sleep(0)
                tasks.create_task(one.store.close(session, process))
            await answered(one, one)
            assert one.people.farewells.count(process) == 1
        assert redis_tables(one.redis)["farewells"] == 0


async def test_a_farewell_follows_a_closing_that_has_failed_before(
    redis: RedisServer, client: Client
) -> None:
    async with workers_on(redis, 1) as (one,):
        session, process = await open_tab(one, KEY)
        client.set(KEYS.listeners(NAME, KEY), "theirs")
        with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
            await one.store.close(session, process)
        assert (one.people.farewells, redis_tables(one.redis)["farewells"]) == ([], 0)
        client.delete(KEYS.listeners(NAME, KEY))
        await one.store.close(session, process)
        assert one.people.farewells == [process]


async def test_a_slow_farewell_is_left_to_its_worker(
    redis: RedisServer, client: Client, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewells, "RENEW", 0.01)
    async with workers_on(redis, 2) as (one, two):
        one.people.withheld = []
        session = new_id()
        process = await one.store.open(session, new_id(session))
        await one.store.close(session, process)
        keys = KEYS.process(process)
        client.zadd(keys.closing, {process: 1})
        while client.zscore(keys.closing, process) == 1:
            await anyio.lowlevel.checkpoint()
        one.redis.serving.connection.close("planned")  # type: ignore[union-attr]
        one.people.withheld[0]()  # reported on the next connection
        while client.exists(keys.closing):
            await anyio.lowlevel.checkpoint()
        await answered(one, two)
        assert (one.people.farewells, two.people.farewells) == ([process], [])
        assert redis_tables(one.redis)["farewells"] == 0


async def test_connections_of_dead_workers_do_not_count(redis: RedisServer, client: Client) -> None:
    async with workers_on(redis, 1) as (one,):
        session = new_id()
        process = await one.store.open(session, new_id(session))
        keys = KEYS.process(process)
        seconds, _ = client.time()
        client.hset(keys.process, mapping={"k:dead": 1, "seen": (seconds - 500) * 1000})
        client.zadd(keys.deadlines, {process: (seconds - 100 + 600 + 90) * 1000})
        assert await one.store.idle(process) == pytest.approx(100, abs=5)
        client.hdel(keys.process, "k:dead")
        assert await one.store.idle(process) == pytest.approx(500, abs=5)


# Events that last


async def test_a_lasting_event_outlives_the_data(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one):
        await one.store.tell_all("off", lasting="switch")
        connection = one.redis.serving.connection
        client.flushall()
        while one.redis.serving.connection in (None, connection):
            await anyio.lowlevel.checkpoint()
        async with serving(two):
            await two.until(lambda: two.people.events[:1] == ["off"])
        assert one.people.events == ["off"]


async def test_a_lasting_event_that_redis_has_lost_is_written_again(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one):
        await one.store.tell_all("off", lasting="switch")
        client.delete(KEYS.lasting)
        connection = one.redis.serving.connection
        connection.close("planned")  # type: ignore[union-attr]
        while one.redis.serving.connection in (None, connection):
            await anyio.lowlevel.checkpoint()
        async with serving(two):
            await two.until(lambda: two.people.events[:1] == ["off"])


async def test_keys_are_read_once_there_is_a_connection(redis: RedisServer) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one):
        session, process = await open_tab(one, KEY)
        two.store.attending.attend(process)
        async with serving(two):
            two.store.enter(session, process)
            await answered(two)
            assert attended(two.redis, process) == {MEMBER}
