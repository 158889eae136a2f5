"""Sessions and client processes while Redis fails, loses data, or workers die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from asgi_comet import BrokerUnavailable, ProcessClosed
from asgi_comet.brokers.people import Moved, SessionState, Visited
from asgi_comet.brokers.redis import (
    control,
    control_scripts,
    heard,
    lua,
    people,
    presence,
    stock_scripts,
)
from asgi_comet.brokers.redis.asking import Asking
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.control_scripts import ControlScripts, Row
from asgi_comet.brokers.redis.entries import Change, write_entry
from asgi_comet.brokers.redis.foreign import passing_over
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.lua import Script
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.serving import Beginning
from asgi_comet.testing._inspect_redis import redis_tables
from asgi_comet.testing.clock import ManualClock
from asgi_comet.testing.party import new_id
from tests.kit.redis import Client, RedisServer, milliseconds, run
from tests.kit.redis_proxy import RedisProxy, turns
from tests.kit.redis_workers import KEYS, Worker, answered, promoted, saved, serving
from tests.kit.turns import until

pytestmark = pytest.mark.anyio

ANN = '"ann"'
TIMEOUT, LATE, NEW = 600_000, 90_000, 30_000  # ms
HOUR, MONTH = 3_600_000, 30 * 24 * 3_600_000
MakeRedis = Callable[..., RedisServer]


async def opened(worker: Worker, session: str = "", *, default: bool = False) -> tuple[str, str]:
    session = session or new_id()
    return session, await worker.store.open(session, new_id(session), default=default)


async def owner(worker: Worker, process: str) -> str:
    """Ask until the store answers."""
    while True:
        try:
            return (await worker.store.visit([], process)).owner
        except BrokerUnavailable:
            await anyio.lowlevel.checkpoint()


def remaining(client: Client, process: str) -> float:
    """Return how many ms there are until the deadline."""
    seconds, micros = client.time()
    keys = KEYS.process(process)
    return float(client.zscore(keys.deadlines, process) - seconds * 1000 - micros // 1000)


def moved(client: Client, session: str, process: str) -> str:
    """Give a session another id, as a worker does that dies before it tells the others."""
    new, scripts = new_id(session), PeopleScripts(KEYS)
    of = [KEYS.process(process)]
    run(client, scripts.move(KEYS.session(session), KEYS.session(new), of, user=None))
    return new


def about(ms: float) -> Any:
    return pytest.approx(ms, abs=20_000)


# Deadlines


async def test_the_deadline_of_a_process_follows_its_last_connection(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        session, process = await opened(one)
        for worker in (one, two):
            worker.store.enter(session, process)
        await answered(one, two)
        assert remaining(client, process) == about(TIMEOUT + LATE)
        one.store.leave(process, 0)
        await answered(one)
        assert remaining(client, process) == about(TIMEOUT + LATE)
        client.hset(KEYS.process(process).process, "seen", 1)
        two.store.leave(process, 300)
        await answered(two)
        assert remaining(client, process) == about(TIMEOUT - 300_000)
        one.store.leave(process, 0)
        one.store.leave("unknown", 0)
        one.store.drop("unknown")


async def test_a_connected_process_is_postponed_every_minute(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one)
        one.store.enter(session, process)
        await answered(one)
        client.zadd(KEYS.process(process).deadlines, {process: 1})
        while remaining(client, process) < TIMEOUT:
            await anyio.lowlevel.checkpoint()
        client.delete(KEYS.process(process).deadlines)
        while not client.exists(KEYS.process(process).deadlines):
            await anyio.lowlevel.checkpoint()
        assert one.people.ended == []
        client.delete(KEYS.process(process).process)
        await one.until(lambda: process in one.people.ended)


async def test_a_worker_that_stops_leaves_its_processes(redis: RedisServer, client: Client) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(two):
        async with serving(one):
            session, process = await opened(one)
            one.store.enter(session, process)
            await one.store.keep(session, process)
            _, idle = await opened(one, session)
            await one.store.keep(session, idle)
        assert remaining(client, process) == about(TIMEOUT)
        assert set(client.hkeys(KEYS.process(process).process)) == {b"s", b"seen"}
        assert await owner(two, process) == session


async def test_the_processes_of_a_worker_that_was_killed_expire(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        session, process = await opened(one)
        one.store.enter(session, process)
        await answered(one)
        one.die()
        client.delete(KEYS.calm)
        client.zadd(KEYS.process(process).deadlines, {process: 1})
        while await owner(two, process):
            await anyio.lowlevel.checkpoint()


async def killed(redis: RedisServer, client: Client, session: str, process: str) -> None:
    """Have three workers die, one after the other, that have a connection of a process."""
    for _ in range(3):
        one = Worker(redis.url)
        async with serving(one):
            one.store.enter(session, process)
            await one.store.keep(session, process)
            await answered(one)
            one.die()
    assert len(client.hkeys(KEYS.process(process).process)) == 2 + 3 * 2  # their fields stay


async def test_a_connected_process_forgets_the_workers_that_were_killed(
    redis: RedisServer, client: Client, quick: None
) -> None:
    last = Worker(redis.url)
    async with serving(last):
        session, process = await opened(last)
        await killed(redis, client, session, process)
        last.store.enter(session, process)
        keys = KEYS.process(process).process
        while len(fields := client.hkeys(keys)) > 3:
            await anyio.lowlevel.checkpoint()
        assert [field[:2] for field in fields] == [b"s", b"se", b"k:"]


async def test_no_killed_worker_postpones_the_end_of_a_process(
    redis: RedisServer, client: Client
) -> None:
    last = Worker(redis.url)
    async with serving(last):
        session, process = await opened(last)
        await killed(redis, client, session, process)
        while client.zcard(KEYS.workers) > 1 or client.exists(KEYS.dead):
            await anyio.lowlevel.checkpoint()
        last.store.enter(session, process)
        last.store.leave(process, 0)
        await answered(last)
        assert set(client.hkeys(KEYS.process(process).process)) == {b"s", b"seen"}
        assert remaining(client, process) == about(TIMEOUT)


async def test_a_closing_that_a_dead_worker_began_is_finished(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one)
        await one.store.keep(session, process)
        keys = KEYS.process(process)
        client.hset(keys.channels, mapping={"a b": "P,9", "-c": "P,9", ":gone": "1"})
        for name in ("a b", "-c"):
            client.hset(keys.channel(name).meta, "K", "P")
        client.sadd(keys.audiences, "news\x1fkey")
        client.zadd(KEYS.listeners("news", "key"), {process: 1, "other": 1})
        client.hset(keys.process, "x", 1)
        client.zadd(keys.closing, {process: 1})
        client.zrem(keys.deadlines, process)
        client.delete(KEYS.calm)
        await one.until(lambda: process in one.people.ended)
        while client.exists(keys.closing):
            await anyio.lowlevel.checkpoint()
        assert client.zrange(KEYS.listeners("news", "key"), 0, -1) == [b"other"]
        assert not client.exists(keys.channels, keys.audiences)
        assert not client.exists(*(keys.channel(name).meta for name in ("a b", "-c")))


async def test_a_deadline_without_a_process_is_forgotten(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        keys = KEYS.process("ab-lost")
        client.zadd(keys.deadlines, {"ab-lost": 1})
        client.delete(KEYS.calm)
        while client.exists(keys.deadlines):
            await anyio.lowlevel.checkpoint()


async def test_keys_of_another_program_end_no_connection_and_stop_no_sweep(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one = Worker(redis.url)
    theirs = KEYS.process("ab-theirs")
    async with serving(one):
        session, process = await opened(one)
        same, entered = await opened(one, new_id("ab"))
        one.store.enter(same, entered)
        await answered(one)
        connection = one.redis.serving.connection
        client.delete(theirs.deadlines, KEYS.site("a").names)
        for key in (theirs.process, theirs.deadlines, KEYS.site("a").names):
            client.set(key, "theirs")
        client.zadd(KEYS.process(process).deadlines, {process: 1, session[:2] + "~theirs": 1})
        client.set(KEYS.process(session[:2] + "~theirs").process, "theirs")
        client.delete(KEYS.calm)
        await one.until(lambda: process in one.people.ended)
        for _ in range(100):
            await answered(one)
        assert connection is not None
        assert one.redis.serving.connection is connection
        connection.close("the test ends it")
        while one.redis.serving.connection in (None, connection):
            await anyio.lowlevel.checkpoint()


# Lost keys


async def test_the_next_visit_notices_that_a_record_is_lost(
    redis: RedisServer, client: Client
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one, default=True)
        client.delete(KEYS.process(process).process)
        found = await one.store.visit([session], process)
        assert found == Visited((SessionState(id=session, defaults=1),), "")
        _, next_ = await opened(one, session, default=True)
        assert (await one.store.visit([session])).sessions[0].default == next_


@pytest.mark.parametrize("user", [ANN, None])
async def test_a_process_that_no_login_or_logout_can_find_is_closed(
    redis: RedisServer, client: Client, user: str | None
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        session, process = await opened(one)
        if user is None:
            before, session = session, new_id(session)
            await one.store.move(before, session, user=ANN, keep=True)
        two.store.enter(session, process)
        await answered(two)
        client.delete(KEYS.session(session).processes)
        new = new_id(session)
        await one.store.move(session, new, user=user, keep=user is not None)
        for asked in (new, session):
            assert (await one.store.visit([asked], process)).owner == ""
            with pytest.raises(ProcessClosed):
                await one.store.claim(asked, process, 1, {})
        await two.until(lambda: process in two.people.ended)


async def test_all_processes_of_a_lost_list_are_found_among_all_keys(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, first = await opened(one, default=True)
        _, second = await opened(one, session)
        client.delete(KEYS.session(session).processes, KEYS.calm)
        await one.until(lambda: {first, second} <= {*one.people.farewells})
        assert 0 < client.pttl(KEYS.session(session).session) <= HOUR


@pytest.mark.parametrize("all_lost", [True, False])
async def test_a_lost_record_leaves_nothing(
    redis: RedisServer, client: Client, quick: None, all_lost: bool
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one, default=True)
        keys = KEYS.process(process)
        await one.make_own(process, "~news")
        await one.store.audience.listen(process, "news", "key")
        client.set(keys.registered, "state")
        client.delete(keys.process, *([keys.deadlines] if all_lost else []))
        if not all_lost:
            client.zadd(keys.deadlines, {process: 1})
        client.delete(KEYS.calm)
        rest = [keys.channels, keys.audiences, keys.registered, keys.deadlines]
        rest += [keys.channel("~news").meta, KEYS.listeners("news", "key")]
        of = KEYS.session(session)
        while client.exists(*rest, of.processes, keys.closing):
            await anyio.lowlevel.checkpoint()
        assert 0 < client.pttl(of.session) <= HOUR  # how many default processes there were
        assert one.people.farewells == [process]


async def test_what_nothing_leads_to_is_found_among_all_keys(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one)
        keys = KEYS.process(process)
        await one.make_own(process, "~news")
        client.delete(keys.process, keys.deadlines, KEYS.session(session).processes, KEYS.calm)
        while client.exists(keys.channels, keys.channel("~news").meta):
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("lost", ["list", "list and records"])
async def test_channels_that_no_list_names_are_found_among_all_keys(
    redis: RedisServer, client: Client, quick: None, lost: str
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one)
        _, open_one = await opened(one)
        keys, kept = KEYS.process(process), KEYS.process(open_one).channel("news")
        of = keys.channel("news")
        await one.make_own(process, "~news")
        await one.make_own(open_one, "~news")
        for key in (kept.state, of.log, of.ids, of.positions, of.state):
            client.set(key, "of a lost channel")
        client.delete(keys.channels)
        if lost == "list and records":
            client.delete(of.meta, keys.process, keys.deadlines, KEYS.session(session).processes)
        else:
            await one.store.close(session, process)
            assert client.exists(of.meta, of.log) == 2
        client.delete(KEYS.calm)
        for _ in range(7):  # the keys lead there five times at once, so all keys were looked at
            while client.exists(of.meta, of.log, of.ids, of.positions, of.state):
                await anyio.lowlevel.checkpoint()
            client.set(of.log, "of a lost channel")
        assert client.exists(kept.meta, kept.state) == 2


async def test_a_tab_that_closes_while_a_worker_begins_to_keep_it_leaves_nothing(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        session, process = await opened(two)
        send = Connection.send

        def hear_of_the_end(connection: Connection, call: Any) -> Any:
            """Let the report that the tab has closed come together with the reply."""
            reply = send(connection, call)
            reply.add_done_callback(lambda _: one.store.presence.forget(process))
            return reply

        monkeypatch.setattr(Connection, "send", hear_of_the_end)
        await one.store.keep(session, process)
        assert len(one.store.presence) == len(one.store.attending) == 0


async def test_lost_deadlines_are_given_anew(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, connected = await opened(one)
        one.store.enter(session, connected)
        _, idle = await opened(one, session)
        _, closed = await opened(one, session)
        await one.store.close(session, closed)
        await answered(one)
        client.delete(KEYS.process(idle).deadlines, KEYS.calm)
        while client.zcard(KEYS.process(idle).deadlines) < 2:
            await anyio.lowlevel.checkpoint()
        for process in (idle, connected):
            assert remaining(client, process) == about(TIMEOUT + LATE)
        assert one.people.ended == [closed]
        (state,) = (await one.store.visit([session])).sessions
        assert set(state.processes) == {connected, idle}


async def test_a_session_whose_list_is_lost_stays_for_a_month(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one, default=True)
        keys = KEYS.session(session)
        client.delete(keys.processes, KEYS.process(process).process, KEYS.calm)
        while client.pttl(keys.session) < 0:
            await anyio.lowlevel.checkpoint()
        assert client.pttl(keys.session) == about(MONTH)


async def test_keys_of_other_programs_are_looked_over(
    redis: RedisServer, client: Client, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock_scripts, "MOST", 1)
    theirs = [b"comet:{10}p:\xff", b"comet:{10}p:A", b"comet:{x}p:AAx", b"comet:{10}sp:AAx"]
    theirs += [b"comet:{x}c:~AAx~a", b"comet:{10}h:~A~a"]
    for key in theirs:
        client.set(key, "theirs")
    client.set(KEYS.process("AAy").process, "theirs")
    one = Worker(redis.url)
    async with serving(one):
        _, process = await opened(one)
        connection = one.redis.serving.connection
        client.delete(KEYS.process(process).deadlines, KEYS.calm)
        while not client.exists(KEYS.process(process).deadlines):
            await anyio.lowlevel.checkpoint()
        assert one.redis.serving.connection is connection
        assert client.mget(theirs) == [b"theirs"] * 6


async def test_a_worker_that_may_not_look_at_all_keys_goes_on(
    redis: RedisServer, client: Client, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    client.acl_log_reset()
    client.acl_setuser("default", enabled=True, commands=["-scan"])
    try:
        one = Worker(redis.url)
        async with serving(one):
            _, process = await opened(one)
            connection = one.redis.serving.connection
            client.delete(KEYS.calm)
            while not client.acl_log():  # until the worker has tried
                await anyio.lowlevel.checkpoint()
            client.zadd(KEYS.process(process).deadlines, {process: 1})
            await one.until(lambda: one.people.farewells == [process])
            assert one.redis.serving.connection is connection
            assert "NOPERM" in refusal_of_scan(caplog)
    finally:
        client.acl_setuser("default", enabled=True, commands=["+@all"])


async def test_a_server_without_scan_is_asked_once(
    redis: RedisServer,
    client: Client,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    renamed = Call(("SCANNED", "0"), bool)
    monkeypatch.setattr(stock_scripts.StockScripts, "scan", lambda *_: renamed)
    one = Worker(redis.url)
    async with serving(one):
        connection = one.redis.serving.connection
        client.delete(KEYS.calm)
        session = new_id()
        for _ in range(3):  # sweeps, for all these are in one partition
            _, process = await opened(one, session)
            client.zadd(KEYS.process(process).deadlines, {process: 1})
            await one.until(lambda gone=process: gone in one.people.farewells)  # type: ignore[misc]
        assert one.redis.serving.connection is connection
    assert "unknown command 'SCANNED'" in refusal_of_scan(caplog)


def refusal_of_scan(caplog: pytest.LogCaptureFixture) -> str:
    (line,) = [one for one in caplog.messages if "SCAN must be allowed" in one]
    return line


async def test_keys_that_cannot_be_looked_at_now_end_the_connection(
    redis: RedisServer, client: Client, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        connection = one.redis.serving.connection
        busy = Call(("EVAL", "return redis.error_reply('BUSY for now')", 0), bool)
        with monkeypatch.context() as patched:
            patched.setattr(stock_scripts.StockScripts, "scan", lambda *_: busy)
            client.delete(KEYS.calm)
            while one.redis.serving.connection is connection:
                await anyio.lowlevel.checkpoint()
        while one.redis.serving.connection is None:
            await anyio.lowlevel.checkpoint()


# Lost data


async def test_tabs_go_on_when_redis_was_emptied(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        session, process = await opened(one, default=True)
        new = new_id(session)
        await two.store.move(session, new, user=ANN, keep=True)
        one.store.enter(new, process)
        _, kept = await opened(two, new)
        await two.store.keep(new, kept)
        _, left = await opened(one, new)
        one.store.enter(new, left)
        one.store.leave(left, 10)
        _, unused = await opened(one, new)
        await answered(one, two)
        client.flushall()
        while await owner(one, process) != new or await owner(two, kept) != new:
            await anyio.lowlevel.checkpoint()
        assert await owner(two, left) == new
        assert await owner(two, unused) == ""
        (state,) = await two.store.sessions(ANN)
        assert (state.id, state.user, state.default, state.kept) == (new, ANN, process, True)
        assert set(state.processes) == {process, kept, left}
        assert remaining(client, process) == about(TIMEOUT + LATE)
        assert remaining(client, left) == about(TIMEOUT - 10_000)
        await one.store.close(new, kept)
        await two.until(lambda: kept in two.people.ended)
        assert {*one.people.ended, *two.people.ended} == {kept}


async def test_a_kept_process_is_not_taken_for_closed_when_redis_was_emptied(
    redis: RedisServer, client: Client, quick: None
) -> None:
    client.script_flush()  # Redis does not know the script that opens a process again
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one)
        await one.store.visit([session])
        await one.store.keep(session, process)
        client.flushall()
        while await owner(one, process) != session:
            await anyio.lowlevel.checkpoint()
        await answered(one)
        assert one.people.ended == []


async def test_a_failover_undoes_no_login_no_logout_and_no_closing(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        visitor, tab = await opened(one)
        user = new_id()
        await one.store.move(user, ann := new_id(user), user=ANN, keep=True)
        _, page = await opened(one, ann)
        await two.store.keep(ann, page)
        session, closed = await opened(one)
        data = saved(client)
        await one.store.move(visitor, next_ := new_id(visitor), user='"bob"', keep=True)
        await one.store.move(ann, out := new_id(ann), user=None, keep=False)
        await one.store.close(session, closed)
        assert await two.store.tell_all("event") == 2
        promoted(client, data)
        while [await owner(two, one) for one in (tab, page, closed)] != [next_, "", ""]:
            await anyio.lowlevel.checkpoint()
        while not all(worker.store.current for worker in (one, two)):
            await anyio.lowlevel.checkpoint()
        found = await two.store.visit([visitor, ann, out])
        assert [(state.id, state.user) for state in found.sessions] == [
            (next_, '"bob"'), (out, None), (out, None)
        ]  # fmt: skip
        assert [one.id for one in await two.store.sessions('"bob"')] == [next_]
        assert await two.store.sessions(ANN) == []
        assert [*one.people.events, *two.people.events] == ["event"] * 2
        assert await two.store.tell_all("more") == 2


async def test_a_failover_leaves_a_session_alone_whose_id_was_another_ones(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        session, _ = await opened(one)
        await one.store.move(session, new := new_id(session), user=ANN, keep=True)
        client.pexpire(KEYS.session(session).heir, 580_000)  # 20 s later
        assert (await two.store.visit([session])).sessions == (
            SessionState(id=session, followed=new),
        )
        _, first = await opened(two, session)  # with the former cookie
        data = saved(client)
        _, page = await opened(two, session)
        await two.store.keep(session, page)
        moves = [*one.people.moves], [*two.people.moves]
        promoted(client, data)
        while not (of := await owner(one, page)) and two.people.moves == moves[1]:
            await anyio.lowlevel.checkpoint()
        assert of == session
        await answered(one, two)
        found = await one.store.visit([session, new])
        assert [(state.id, state.user) for state in found.sessions] == [
            (session, None), (new, ANN)
        ]  # fmt: skip
        assert found.sessions[0].processes == (first, page)
        assert (one.people.moves, two.people.moves) == moves
        assert two.people.ended == []


# Lost replies, and connections that end


@pytest.mark.parametrize("lost", [lua.VISIT, lua.INDEX, lua.MOVE, lua.UNINDEX, lua.CLOSE])
async def test_a_login_of_which_a_reply_is_lost_is_made_once(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, lost: Script
) -> None:
    proxy, ask_all, muted = RedisProxy(redis), Asking.ask_all, list[bool]()

    async def ask(self: Asking, calls: Sequence[Call[Any]]) -> list[Any]:
        if muted == [True] and any(call.script is lost for call in calls):
            proxy.harm.mute = True
            muted.append(True)
            asyncio.get_running_loop().call_later(0.05, reset)
        return await ask_all(self, calls)

    def reset() -> None:
        proxy.harm.mute = False
        proxy.reset()

    monkeypatch.setattr(Asking, "ask_all", ask)
    async with proxy.run():
        one, two = Worker(proxy.url), Worker(redis.url)
        async with serving(one, two):
            user = new_id()
            await one.store.move(user, session := new_id(user), user='"bob"', keep=True)
            _, process = await opened(one, session)
            await two.store.keep(session, process)
            new = new_id(session)
            muted.append(True)
            # The last step is beside the confirmations, which may be lost as well.
            with pytest.raises(BrokerUnavailable) if lost is lua.CLOSE else nullcontext():
                await one.store.move(session, new, user=ANN, keep=True)
            assert len(muted) == 2
            for worker in (one, two):
                await worker.until(lambda w=worker: len(w.people.moves) == 2)  # type: ignore[misc]
                assert worker.people.moves[1] == (session, new, ANN)
            await two.until(lambda: two.people.ended == [process])
            assert await two.store.sessions('"bob"') == await two.store.sessions(ANN) == []
            _, last = await opened(two, new)
            assert [state.processes for state in await one.store.sessions(ANN)] == [(last,)]


async def test_a_sender_is_told_if_redis_goes_away_before_all_have_confirmed(
    redis: RedisServer,
) -> None:
    proxy, cut = RedisProxy(redis), RedisProxy(redis, "q")
    async with proxy.run(), cut.run():
        one, two = Worker(proxy.url), Worker(cut.url)
        async with serving(one, two):
            cut.harm.lost = b""

            async def tell() -> None:
                with pytest.raises(BrokerUnavailable, match="which may have been made") as raised:
                    await one.store.tell_all("event")
                assert raised.value.maybe_stored

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tell)
                await one.until(lambda: one.people.events == ["event"])
                proxy.reset()
            cut.reset()
            cut.harm.lost = None
            await two.until(lambda: two.people.events == ["event"])
            assert await one.store.tell_all("next") == 2
            assert one.people.events == two.people.events == ["event", "next"]


async def test_no_sender_waits_for_a_worker_that_was_killed(redis: RedisServer) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        two.die()
        assert await one.store.tell_all("event") == 1


async def test_a_worker_that_was_away_reads_the_log_in_pages_before_it_serves(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PAGE", 3)
    proxy = RedisProxy(redis)
    async with proxy.run():
        one, two = Worker(redis.url), Worker(proxy.url, timeout=20)
        async with serving(one, two):
            session, process = await opened(one)
            await two.store.keep(session, process)
            proxy.server = RedisServer(redis.folder / "away")
            proxy.reset()
            while two.store.current:  # until its heartbeat is too old
                await anyio.lowlevel.checkpoint()
            for number in range(10):
                await one.store.tell_all(f"{number}")
            new = new_id(session)
            await one.store.move(session, new, user=ANN, keep=True)
            assert two.people.events == []
            proxy.server = redis
            assert await owner(two, process) == new
            assert two.store.current
            assert two.people.events == [f"{number}" for number in range(10)]
            assert two.people.moves == [(session, new, ANN)]


async def test_a_worker_whose_heartbeat_is_not_answered_delivers_nothing(
    redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy, clock = RedisProxy(redis), ManualClock()
    async with proxy.run():
        one, two = Worker(proxy.url, clock=clock), Worker(redis.url)
        async with serving(one, two):
            session, process = await opened(two)
            await one.store.keep(session, process)
            assert one.store.current
            proxy.harm.deaf = True
            clock.advance(0.7)
            assert one.store.current
            clock.advance(0.1)
            assert not one.store.current
            links = proxy.links
            await two.store.close(session, process)
            while proxy.links == links:  # the frame has ended the connection
                clock.advance(0.1)
                await turns(100)
            assert "stood still for too long" in caplog.text
            assert one.people.ended == []
            proxy.harm.deaf = False
            proxy.reset()
            while not one.store.current:
                clock.advance(0.1)
                await turns(100)
            await one.until(lambda: one.people.ended == [process])


async def test_a_worker_that_joins_confirms_what_is_told_before_it_reads_the_log(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    confirmed: list[int] = []
    begin = Heartbeat.begin

    async def tell() -> None:
        confirmed.append(await one.store.tell_all("early"))

    async with serving(one), anyio.create_task_group() as tasks:

        async def begin_late(heartbeat: Heartbeat, beginning: Beginning) -> None:
            await begin(heartbeat, beginning)
            tasks.start_soon(tell)
            await one.until(lambda: one.people.events == ["early"])

        monkeypatch.setattr(Heartbeat, "begin", begin_late)
        async with serving(two):
            await until(lambda: confirmed == [2])
            assert two.people.events == ["early"]


async def test_a_gap_in_the_control_log_is_filled_in_order(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        await one.store.tell_all("first")
        epoch, top = (x.decode() for x in client.hmget(KEYS.control_record, "e", "s"))
        row = b'%d id worker ["told", "second"]' % (client.time()[0] * 1000)
        client.rpush(KEYS.control, row)
        client.hset(KEYS.control_record, "s", int(top) + 1)  # no frame comes
        assert await one.store.tell_all("third") == 2
        assert one.people.events == two.people.events == ["first", "second", "third"]
        client.publish(KEYS.everyone, f"{epoch} 1 ".encode() + row)  # long known
        later = b'%d later worker ["of a later version"]' % (client.time()[0] * 1000)
        client.rpush(KEYS.control, later)
        client.hset(KEYS.control_record, "s", int(top) + 3)
        assert await two.store.tell_all("fourth") == 2
        assert two.people.events == ["first", "second", "third", "fourth"]


async def test_entries_that_the_log_holds_no_longer_are_an_error_and_no_right_is_sure(
    redis: RedisServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        await one.store.tell_all("first")
        client.delete(KEYS.control)
        row = b'%d id worker ["told", "last"]' % (client.time()[0] * 1000)
        client.rpush(KEYS.control, row)
        client.hset(KEYS.control_record, mapping={"s": 9, "f": 9})
        await one.store.tell_all("next")
        assert one.people.events == ["first", "last", "next"]
        assert "7 changes were missed" in caplog.text
        assert one.people.gaps == 1


@asynccontextmanager
async def latecomer(client: Client, one: Worker, two: Worker) -> AsyncIterator[int]:
    """Serve, and have a worker come after an event and a login; the offset of the last event."""
    async with serving(one):
        session, _ = await opened(one)
        await one.store.move(session, new_id(session), user=ANN, keep=False)
        await one.store.tell_all("before")
        while milliseconds(client) <= int(client.lindex(KEYS.control, -1).partition(b" ")[0]):
            await anyio.lowlevel.checkpoint()
        async with serving(two):
            await one.store.tell_all("after")
            yield int(client.hget(KEYS.control_record, "s"))


async def test_a_worker_is_not_told_again_of_events_from_before_it_came(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with latecomer(client, one, two):
        client.flushall()
        while client.llen(KEYS.control) < 3 or client.zcard(KEYS.workers) < 2:
            await anyio.lowlevel.checkpoint()
        assert await one.store.tell_all("next") == 2
        assert one.people.events == ["before", "after", "next"]
        assert two.people.events == ["after", "next"]


async def test_a_worker_that_came_later_hears_of_logins_when_the_data_are_others(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with latecomer(client, one, two) as top:
        assert two.people.moves == []
        # The clock of the other data is behind.
        row = b'%d new worker ["told", "behind"]' % (milliseconds(client) - 60_000)
        client.rpush(KEYS.control, row)
        client.hset(KEYS.control_record, mapping={"e": "other", "s": top + 1})
        assert await one.store.tell_all("next") == 2
        assert one.people.events == ["before", "after", "behind", "next"]
        assert two.people.events == ["after", "behind", "next"]
        assert two.people.moves == one.people.moves != []  # which the other data may have undone


async def test_the_control_log_is_bounded(
    redis: RedisServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_scripts, "ENTRIES", 3)
    one = Worker(redis.url)
    async with serving(one):
        for number in range(5):
            await one.store.tell_all(f"{number}")
        assert client.llen(KEYS.control) == 3
        old = client.lindex(KEYS.control, 0)
        client.lset(KEYS.control, 0, b"1" + old[old.index(b" ") :])
        await one.store.tell_all("5")
        assert client.llen(KEYS.control) == 3
        assert one.people.events == list("012345")
        assert 0 < client.pttl(KEYS.control) <= 86_400_000


async def test_the_index_of_a_user_forgets_sessions_that_are_gone(
    redis: RedisServer, client: Client
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session = new_id()
        await one.store.move(session, new := new_id(session), user=ANN, keep=True)
        await opened(one, new)
        index = KEYS.user(ANN.encode())
        gone, lately = new_id(), new_id()
        now = client.time()[0] * 1000
        client.zadd(index, {gone: 1, lately: now})
        assert [state.id for state in await one.store.sessions(ANN)] == [new]
        assert set(client.zrange(index, 0, -1)) == {new.encode(), lately.encode()}
        client.zadd(index, {gone: 1})
        other = new_id()
        await one.store.move(other, new_id(other), user=ANN, keep=True)
        assert gone.encode() not in client.zrange(index, 0, -1)
        assert client.pttl(index) > 0


async def test_nothing_but_the_control_log_is_left_when_all_is_closed(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        session, process = await opened(one, default=True)
        two.store.enter(session, process)
        await one.store.keep(session, process)
        await one.store.move(session, new := new_id(session), user=ANN, keep=False)
        await two.store.close(new, process)
        await one.until(lambda: one.people.ended != [])
        await two.until(lambda: two.people.ended != [])
        for worker in (one, two):
            tables = redis_tables(worker.redis)
            assert {name: tables[name] for name in ("copies", "doubts", "confirmations")} == {
                "copies": 0, "doubts": 0, "confirmations": 0
            }  # fmt: skip
    lasting = {key.decode() for key in client.keys("*") if client.pttl(key) == -1}
    assert lasting <= {KEYS.lineage, KEYS.format, KEYS.calm}
    assert not client.keys("*u:*")
    assert not client.keys("*exp")


async def test_a_worker_that_was_taken_for_dead_reports_all_under_another_id(
    redis: RedisServer, client: Client
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one)
        one.store.enter(session, process)
        await one.store.keep(session, process)
        (worker,) = client.zrange(KEYS.workers, 0, -1)
        client.hset(KEYS.dead, worker, "0 ")
        keys = KEYS.process(process)

        def reported() -> list[bytes]:
            return [key for key in client.hkeys(keys.process) if key[:2] in (b"k:", b"w:")]

        while any(worker in key for key in reported()) or len(reported()) < 2:
            await anyio.lowlevel.checkpoint()
        await one.store.close(session, process)
        assert one.people.ended != []


async def test_what_a_worker_reports_while_redis_is_away_reaches_redis_later(
    redis: RedisServer, client: Client
) -> None:
    proxy = RedisProxy(redis)
    async with proxy.run():
        one = Worker(proxy.url)
        async with serving(one):
            session, entered = await opened(one)
            left, kept, dropped, refused = [(await opened(one, session))[1] for _ in range(4)]
            one.store.enter(session, left)
            for process in (kept, dropped):
                await one.store.keep(session, process)
            client.hset(KEYS.process(left).process, "seen", 1)
            proxy.server = RedisServer(redis.folder / "away")
            proxy.reset()
            while one.redis.connected:
                await anyio.lowlevel.checkpoint()
            one.store.enter(session, entered)
            one.store.leave(left, 100)
            one.store.drop(dropped)
            waiting = [one.store.keep(session, process) for process in (refused, kept)]
            answers = await asyncio.gather(
                *waiting, one.store.tell_all("event"), return_exceptions=True
            )
            assert [type(answer) for answer in answers] == [BrokerUnavailable] * 3
            proxy.server = redis
            while not one.redis.connected:
                await anyio.lowlevel.checkpoint()
            await answered(one)
            assert remaining(client, entered) == about(TIMEOUT + LATE)
            assert remaining(client, left) == about(TIMEOUT - 100_000)
            fields = {
                process: {key[:2] for key in client.hkeys(KEYS.process(process).process)}
                for process in (entered, left, kept, dropped, refused)
            }
            assert [b"k:" in fields[one] for one in (entered, left)] == [True, False]
            assert [b"w:" in fields[one] for one in (kept, dropped, refused)] == [
                True,
                False,
                False,
            ]


async def test_a_process_that_has_closed_is_not_opened_again(redis: RedisServer) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one)
        await one.store.close(session, process)
        with pytest.raises(ProcessClosed):
            await one.store.open(session, process)


async def test_what_a_worker_remembers_is_bounded(
    redis: RedisServer, client: Client, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "NOTED", 2)
    monkeypatch.setattr(presence, "LEFT", 0)
    monkeypatch.setattr(presence, "HOUR", 1)
    monkeypatch.setattr(people, "PURGE", 0.05)
    monkeypatch.setattr(heard, "REMEMBERED", 0)
    one = Worker(redis.url)
    async with serving(one):
        session = new_id()
        await one.store.move(session, new := new_id(session), user=ANN, keep=True)
        _, process = await opened(one, new)
        one.store.enter(new, process)
        for _ in range(5):
            await one.store.visit([new_id()])
        index = KEYS.user(ANN.encode())
        client.pexpire(index, 1000_000)
        while client.pttl(index) <= 1000_000:  # the session is remembered: it has a connection
            await anyio.lowlevel.checkpoint()
        one.store.leave(process, 0)
        while any(redis_tables(one.redis)[name] for name in ("copies", "news", "heard")):
            await anyio.lowlevel.checkpoint()
        for _ in range(5):
            await one.store.visit([new_id()])
        assert redis_tables(one.redis)["notes"] == 2


async def test_an_answer_that_is_older_than_a_change_is_asked_for_again(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_all, late = Asking.ask_all, list[str]()

    async def ask(self: Asking, calls: Sequence[Call[Any]]) -> list[Any]:
        found = await ask_all(self, calls)
        if late and calls[-1].script is lua.VISIT:
            session, new = late.pop(), late.pop()
            await two.store.move(session, new, user=ANN, keep=True)
        return found

    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        session, process = await opened(one)
        new = new_id(session)
        monkeypatch.setattr(Asking, "ask_all", ask)
        late += [new, session]
        found = await one.store.visit([session], process)
        assert one.people.moves == [(session, new, ANN)]
        assert (found.owner, found.sessions[0].id, found.sessions[0].user) == (new, new, ANN)
        one.store.enter(session, process)  # of which the rooms of this worker knew before
        await one.until(lambda: len(one.people.moves) == 2)
        one.store.enter(new, process)
        await answered(one)
        assert redis_tables(one.redis)["copies"] == 1


async def test_a_control_log_that_cannot_be_read_ends_the_connection(
    redis: RedisServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        await one.store.tell_all("first")
        row = b'%d id worker ["told", "second"]' % (client.time()[0] * 1000)
        epoch, log = client.hget(KEYS.control_record, "e"), client.dump(KEYS.control)
        client.set(KEYS.control, "of another application")
        client.publish(KEYS.everyone, epoch + b" 9 " + row)
        while one.redis.connected:
            await anyio.lowlevel.checkpoint()
        assert "the control log could not be read" in caplog.text
        with pytest.raises(BrokerUnavailable):
            await one.store.tell_all("lost")
        client.restore(KEYS.control, 0, log, replace=True)
        while not one.redis.connected:
            await anyio.lowlevel.checkpoint()
        assert await one.store.tell_all("last") == 1
        assert one.people.events == ["first", "last"]


# What a worker and Redis know at different times


async def test_what_a_worker_reports_before_its_first_connection_reaches_redis_later(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(two):
        session, left = await opened(two)
        _, dropped = await opened(two, session)
        one.store.enter(session, left)
        one.store.leave(left, 300)
        one.store.enter(session, dropped)
        one.store.drop(dropped)
        async with serving(one):
            await answered(one)
            assert remaining(client, left) == about(NEW)
            assert remaining(client, dropped) == about(TIMEOUT + LATE)


async def test_a_connected_process_whose_session_has_moved_is_still_postponed(
    redis: RedisServer, client: Client, quick: None
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one)
        one.store.enter(session, process)
        await answered(one)
        new = moved(client, session, process)  # of which the worker is not told
        await one.store.keep(new, process)
        client.zadd(KEYS.process(process).deadlines, {process: 1})
        while remaining(client, process) < TIMEOUT:
            await anyio.lowlevel.checkpoint()
        await one.store.visit([new])
        client.flushall()
        while await owner(one, process) != new:
            await anyio.lowlevel.checkpoint()
        await one.store.close(new, process)
        assert redis_tables(one.redis)["copies"] == 0


async def test_a_change_of_which_a_worker_is_told_meanwhile_is_applied_once(
    redis: RedisServer, client: Client
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        session, process = await opened(two)
        new = moved(client, session, process)
        one.store.enter(session, process)
        entry = write_entry(Change(session, new, None, False))
        run(client, ControlScripts(KEYS).tell_all(Row(0, "id", "worker", entry)))
        for _ in range(5):
            await answered(one)
        assert one.people.moves == two.people.moves == [(session, new, None)]


async def test_a_login_of_a_session_that_has_moved_changes_nothing(redis: RedisServer) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        session, process = await opened(one)
        await one.store.move(session, new := new_id(session), user=ANN, keep=True)
        for user in (None, '"bob"'):
            with pytest.raises(Moved) as raised:
                await two.store.move(session, new_id(session), user=user, keep=True)
            assert raised.value.session == new
        assert await owner(two, process) == new
        assert await two.store.sessions('"bob"') == []


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script, Callable[[], Any]], None]:
    """Have a function called once, right before a script is first run."""
    ask_all = Asking.ask_all

    def arrange(script: Script, function: Callable[[], Any]) -> None:
        left = [function]

        async def ask(self: Asking, calls: Sequence[Call[Any]]) -> list[Any]:
            if left and any(call.script is script for call in calls):
                await left.pop()()
            return await ask_all(self, calls)

        monkeypatch.setattr(Asking, "ask_all", ask)

    return arrange


async def test_a_process_that_opens_during_a_login_moves_as_well(
    redis: RedisServer, before: Callable[[Script, Callable[[], Any]], None]
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one)
        late = new_id(session)
        before(lua.MOVE, lambda: one.store.open(session, late))
        await one.store.move(session, new := new_id(session), user=ANN, keep=True)
        (state,) = (await one.store.visit([new])).sessions
        assert set(state.processes) == {process, late}
        assert await owner(one, late) == new


async def test_a_late_process_whose_session_moves_is_closed_a_little_later(
    redis: RedisServer,
    client: Client,
    quick: None,
    before: Callable[[Script, Callable[[], Any]], None],
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        session, process = await opened(one)
        await one.store.keep(session, process)
        connection = one.redis.serving.connection
        before(lua.CLOSE, lambda: anyio.to_thread.run_sync(moved, client, session, process))
        client.zadd(KEYS.process(process).deadlines, {process: 1})
        client.delete(KEYS.calm)
        await one.until(lambda: process in one.people.ended)
        assert one.redis.serving.connection is connection


async def test_a_change_that_cannot_be_told_is_an_error_of_its_sender(
    redis: RedisServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    one = Worker(redis.url)
    async with serving(one):
        client.set(KEYS.control, "of another application")
        with anyio.CancelScope() as gone:
            gone.cancel()
            await one.store.tell_all("first")  # does not wait for the answer
        with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
            await one.store.tell_all("second")
        client.delete(KEYS.control)
        assert await one.store.tell_all("third") == 1
        assert one.people.events == ["third"]
    assert "Exception in callback" not in caplog.text


def test_a_worker_remembers_changes_for_ten_minutes() -> None:
    clock = ManualClock()
    lately: heard.Lately[int] = heard.Lately(clock)
    lately.add("first", 1)
    clock.advance(heard.REMEMBERED / 2)
    lately.add("second", 2)
    lately.forget()
    assert len(lately) == 2
    clock.advance(heard.REMEMBERED / 2)
    lately.forget()
    assert ("first" in lately, "second" in lately) == (False, True)


def test_only_a_key_of_another_program_is_passed_over() -> None:
    with passing_over(3):
        raise ReplyError("WRONGTYPE of another program")
    with pytest.raises(ReplyError, match="OOM"), passing_over(3):
        raise ReplyError("OOM")


async def test_an_answer_that_comes_too_late_is_ignored(
    redis: RedisServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    async with serving(one, two):
        client.publish(one.redis.inbox.topic, b"q99 late")  # no question waits for it any more
        await answered(one)
        assert await one.redis.ask_all("late", 20) == ["late"] * 2
    assert "could not be taken in" not in caplog.text
