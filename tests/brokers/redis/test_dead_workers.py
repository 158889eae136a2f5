"""What is left in Redis after the death of workers, once the documented times are over.

The time of Redis cannot be turned: the times in its data are moved into the past instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet.brokers.redis import caretaker
from asgi_comet.core.messages import First
from asgi_comet.testing._inspect_redis import redis_tables, worker_of
from asgi_comet.testing.party import new_id, position
from asgi_comet.testing.window import Window
from tests.kit.redis import Client, RedisServer, milliseconds
from tests.kit.redis_workers import KEYS, Worker, answered, serving
from tests.kit.turns import until

pytestmark = pytest.mark.anyio

ANN = '"ann"'
MINUTE, HOUR, DAY = 60_000, 3_600_000, 24 * 3_600_000  # ms
TIMEOUT = 690_000  # ms until a tab closes whose worker was killed, at most

CALM = KEYS.calm.encode()  # kept after a time without heartbeats, as on a busy machine
TIMES = {
    "p": HOUR,  # that the client process has closed
    "s": 30 * DAY,  # a user that is remembered; else how many default processes there were
    "u": 32 * DAY,
    "f": 10 * MINUTE,
    "c": 30 * DAY,  # a channel that has a name and no source; 10 minutes once it has ended
    "h": 30 * DAY,
    "d": 10 * MINUTE,
    "dp": 10 * MINUTE,
    "b": 10 * MINUTE,
    "li": 2 * MINUTE,
    "log": DAY,
    "logr": DAY,
}
"""How long the keys may stay that the end of all client processes leaves; docs/operating.md."""


@pytest.fixture(autouse=True)
def sweeping_often(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caretaker, "ROUND", 1)


def passed(client: Client, ms: int) -> None:
    """Let time have passed, as far as deadlines and other times in the data tell it."""
    for key in client.keys("*"):
        kind = kind_of(key)
        if kind in ("exp", "closing", "names"):
            scores = client.zrange(key, 0, -1, withscores=True)
            client.zadd(key, {one.decode(): at - ms for one, at in scores}, xx=True)
        if kind == "c" and (used := client.hget(key, "u")):
            client.hset(key, "u", int(used) - ms)
    client.delete(KEYS.calm)


def expired(client: Client, ms: int) -> None:
    """Let time have passed for the keys that expire."""
    for key in client.keys("*"):
        if (life := client.pttl(key)) >= 0:
            client.pexpire(key, max(life - ms, 0))


def kind_of(key: bytes) -> str:
    """Return the letters that tell what a key holds."""
    return key.decode().partition("}")[2].partition(":")[0]


async def gone(client: Client, *kinds: str) -> None:
    """Wait until there is no key of some kinds."""
    while any(kind_of(key) in kinds for key in client.keys("*")):
        await anyio.lowlevel.checkpoint()


async def inherited(client: Client, living: int) -> None:
    """Wait until the dead workers are known to be dead, and others have taken over."""
    while client.zcard(KEYS.workers) > living or client.exists(KEYS.dead):
        await anyio.lowlevel.checkpoint()


def fields_of(client: Client, workers: Iterable[str]) -> list[bytes]:
    """Return the fields of all client processes that name workers."""
    names = {f"{has}:{worker}".encode() for worker in workers for has in "kw"}
    processes = [key for key in client.keys("*") if kind_of(key) == "p"]
    return [name for key in processes for name in client.hkeys(key) if name in names]


class Use:
    """All that a worker can have in Redis.

    Attributes:
        opened: The client processes.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.opened: list[str] = []

    async def begin(self) -> None:
        await self.serve_a_visitor()
        await self.serve_a_user()
        await self.make_channels()
        await self.worker.store.tell_all("event")
        await answered(self.worker)

    async def open(self, session: str, *, default: bool = False) -> str:
        process = await self.worker.store.open(session, new_id(session), default=default)
        self.opened.append(process)
        return process

    async def serve_a_visitor(self) -> None:
        session = new_id()
        process = await self.open(session, default=True)
        await self.open(session)  # which never connects
        await self.connect(session, process)
        left = await self.open(session)
        self.worker.store.enter(session, left)
        self.worker.store.leave(left, 0)

    async def serve_a_user(self) -> None:
        session = new_id()
        process = await self.open(session)
        await self.worker.store.move(session, new := new_id(session), user=ANN, keep=True)
        await self.connect(new, process)
        await self.worker.store.keep(new, await self.open(new))
        for keep in (True, False):  # users that have no client process
            await self.worker.store.move(other := new_id(), new_id(other), user=ANN, keep=keep)

    async def connect(self, session: str, process: str) -> None:
        """Read and acknowledge own channels, one with a source; be told by notifiers."""
        worker, store = self.worker, self.worker.store
        log = await worker.make_own(process, "~news")
        await worker.make_own(process, "~source", sourced=True)
        await worker.make_own(process, "~demand", kind="unlimited", sourced=True)
        await store.audience.listen(process, "news", "key")
        store.enter(session, process)
        found = await store.claim(session, process, 1, {"~news": First(), "~source": First()})
        assert await store.save(process, 1, b"state")
        await store.keep(session, process)
        await store.audience.tell("~news", [process], b"1")
        at = await self.publish(log)
        window = found["~news"].window
        assert isinstance(window, Window)
        await worker.until(lambda: window.top == 2)
        store.acknowledge(process, {"~news": at})

    async def make_channels(self) -> None:
        worker = self.worker
        name = new_id()
        for log in (
            await worker.make(f"{name} plain"),
            await worker.make(f"{name} source", sourced=True),
            await worker.make(f"{name} family", adopt=True, sourced=True, reclaim=True),
            await worker.make(f"{name} unnamed", reclaim=True),
        ):
            await self.publish(log)

    async def publish(self, log: Window) -> Any:
        return await position(log, self.worker.broker.append(log, b"2", id="id"))


class Shared:
    """A client process that workers have which die, and one that does not."""

    def __init__(self, session: str, process: str) -> None:
        self._session = session
        self.process = process

    async def enter(self, worker: Worker) -> None:
        worker.store.enter(self._session, self.process)
        await worker.store.keep(self._session, self.process)
        await answered(worker)

    async def touched(self, client: Client) -> None:
        """Wait until the living worker has postponed the deadline."""
        deadlines = KEYS.process(self.process).deadlines
        least = milliseconds(client) + TIMEOUT - MINUTE
        while client.zscore(deadlines, self.process) < least:
            await anyio.lowlevel.checkpoint()

    async def close(self, worker: Worker) -> None:
        await worker.store.close(self._session, self.process)
        await answered(worker)


async def share(last: Worker, dying: list[Worker]) -> Shared:
    session = new_id()
    shared = Shared(session, await last.store.open(session, new_id(session)))
    for worker in (*dying, last):
        await shared.enter(worker)
    return shared


def constant(client: Client) -> set[bytes]:
    """Return the keys that stay while a worker lives."""
    return {key for key in client.keys("*") if client.pttl(key) < 0} - {CALM}


@pytest.mark.parametrize("at_once", [True, False])
async def test_killed_workers_leave_nothing_after_the_documented_times(
    redis: RedisServer, client: Client, at_once: bool
) -> None:
    last, *dying = [Worker(redis.url) for _ in range(3)]
    async with serving(last):
        always, topics, tables = constant(client), client.pubsub_channels(), tables_of(last)
        uses = [Use(worker) for worker in dying]
        async with serving(*dying):
            dead = [worker_of(worker.redis) for worker in dying]
            for use in uses:
                await use.begin()
            shared = await share(last, dying)
            for living, use in zip((2, 1), uses, strict=True):
                use.worker.die()
                if not at_once:
                    await inherited(client, living)
        await inherited(client, living=1)
        await no_field(client, dead, KEYS.process(shared.process).process)
        for _ in range(TIMEOUT // MINUTE + 1):
            passed(client, MINUTE)
            await shared.touched(client)
        opened = [one for use in uses for one in use.opened]
        await last.until(lambda: len(last.people.farewells) >= len(opened))
        await gone(client, "closing", "names", "own")

        left = {key: client.pttl(key) for key in set(client.keys("*")) - always - {CALM}}
        lasting = {kind_of(key) for key, life in left.items() if life < 0}
        assert lasting == {"p", "sp", "exp"}  # of the shared process
        late = {key: life for key, life in left.items() if life > TIMES.get(kind_of(key), -1)}
        assert late == {}
        expired(client, HOUR)
        assert fields_of(client, dead) == []
        await shared.close(last)
        await gone(client, "exp", "closing")
        expired(client, 32 * DAY)
        assert set(client.keys("*")) - {CALM} == always
        assert set(client.pubsub_channels()) == set(topics)
        await until(lambda: not redis_tables(last.redis)["doubts"])  # looked at in a moment
        assert tables_of(last) == tables
        assert sorted(last.people.farewells) == sorted([*opened, shared.process])
        assert last.people.ended[-1] == shared.process


async def no_field(client: Client, dead: Iterable[str], key: str) -> None:
    """Wait until a client process has no field of dead workers."""
    names = {f"{has}:{worker}".encode() for worker in dead for has in "kw"}
    while names & set(client.hkeys(key)):
        await anyio.lowlevel.checkpoint()
    assert {name[:2] for name in client.hkeys(key)} == {b"s", b"se", b"k:", b"w:"}


def tables_of(worker: Worker) -> dict[str, int]:
    """Return the sizes of tables, but for what a worker remembers for ten minutes."""
    remembered = {"notes", "news", "heard"}
    return {name: n for name, n in redis_tables(worker.redis).items() if name not in remembered}
