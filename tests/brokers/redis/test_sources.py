"""Sources of several workers on one Redis: each is read by one of them."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from asgi_comet import (
    SITE,
    BrokerUnavailable,
    ClientProcess,
    Comet,
    CometMiddleware,
    Message,
    Outcome,
    Position,
    Settings,
)
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.brokers.redis.calls import IMPORTED, Log
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.errors import ChannelClosed, NonUniqueChannelName
from tests.kit.clients import PollClient, SseClient
from tests.kit.loop import outcome, wait_in_loop
from tests.kit.redis import Client, RedisServer, run
from tests.kit.serving import Address, Answer, Tab, serve
from tests.kit.stage import KEY

KEYS = Keys()
SETTINGS = Settings(jitter=0, linger=0.2, heartbeat=1, timeout=1)
PATIENCE = 20.0  # seconds


class Stream:
    """A source that yields what a test puts into it; each `Worker` has its own."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.readers: list[tuple[asyncio.AbstractEventLoop, asyncio.Queue[Any]]] = []
        self.asked = 0
        self.closed = 0

    async def read(self) -> AsyncIterator[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        reader = asyncio.get_running_loop(), queue
        with self.changed:
            self.readers.append(reader)
            self.changed.notify_all()
        try:
            while True:
                with self.changed:
                    self.asked += 1
                    self.changed.notify_all()
                value = await queue.get()
                if isinstance(value, Exception):
                    raise value
                if value is None:
                    return
                yield value
        finally:
            with self.changed:
                self.readers.remove(reader)
                self.closed += 1
                self.changed.notify_all()
            await asyncio.sleep(0)  # as a source that closes something

    def put(self, value: Any) -> None:
        for loop, queue in self.readers:
            loop.call_soon_threadsafe(queue.put_nowait, value)

    def until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE)


class Worker:
    """A `Comet` with declared channels, whose sources the test feeds."""

    def __init__(self, url: str, *more: str, settings: Settings = SETTINGS) -> None:
        self.broker = RedisBroker(url)
        self.comet = Comet(KEY, broker=self.broker, settings=settings)
        self.news = Stream()
        self.rooms: dict[str, Stream] = {}
        self.declared = self.comet.channel("news")(self._news)
        self.last_words: Callable[[], object] = lambda: None  # when the source of the news ends
        self.count = Stream()
        self.comet.channel("count", continues=True)(self._count)
        self.steps = Stream()
        self.comet.unlimited("steps")(self._steps)
        self.room_family = self.comet.channel("room:{room}")(self._room)
        self.given = Stream()
        self.comet.create(self.given.read, scope=SITE, name="given")
        self.halls = self.comet.family("hall:{hall}")
        for name in more:
            self.comet.channel(name)(self._nothing)
        self.app = Starlette(middleware=[Middleware(CometMiddleware, comet=self.comet)])
        self.stack = ExitStack()
        self.address: Address = self.stack.enter_context(serve(self.app))

    async def _news(self) -> AsyncIterator[Any]:
        try:
            async for value in self.news.read():
                yield value
        finally:
            self.last_words()

    async def _count(self, after: Message | None = None) -> AsyncIterator[Any]:
        async for value in self.count.read():
            yield value if after is None else [after.value, value]

    async def _steps(self, process: ClientProcess) -> AsyncIterator[Any]:
        async for value in self.steps.read():
            yield value

    async def _nothing(self, place: str) -> AsyncIterator[Any]:
        async for value in Stream().read():
            yield value

    async def _room(self, room: str) -> AsyncIterator[Any]:
        async for value in self.room(room).read():
            yield value

    def room(self, room: str) -> Stream:
        return self.rooms.setdefault(room, Stream())

    def follow(self, starts: dict[str, str]) -> SseClient:
        client = SseClient(None, self.address)
        client.follow(starts)
        self.stack.callback(client.cut)
        return client

    def ask(self, name: str) -> Answer:
        body = b'{"channels": {"%s": "now"}, "idle": true}' % name.encode()
        headers = {"Content-Type": "application/json"}
        return self.address.request("POST", "/comet/poll", body, headers)

    def stop(self) -> None:
        self.stack.close()


Workers = list[Worker]


@pytest.fixture
def workers(redis: RedisServer) -> Iterator[Workers]:
    made: Workers = []
    try:
        made += [Worker(redis.url) for _ in range(3)]
        yield made
    finally:
        for worker in made:
            worker.stop()


def reading(workers: Workers, find: Callable[[Worker], Stream]) -> Worker:
    """Wait until one of the workers reads a source, and return it."""
    found: list[Worker] = []
    done = threading.Event()

    def wait(worker: Worker) -> None:
        stream = find(worker)
        with stream.changed:
            if stream.changed.wait_for(lambda: bool(stream.readers) or done.is_set(), PATIENCE):
                if stream.readers:
                    found.append(worker)
                done.set()

    threads = [threading.Thread(target=wait, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    assert done.wait(PATIENCE)
    for worker in workers:
        with find(worker).changed:
            find(worker).changed.notify_all()
    for thread in threads:
        thread.join()
    (one,) = found
    return one


def news(worker: Worker) -> Stream:
    return worker.news


def given(worker: Worker) -> Stream:
    return worker.given


def counting(worker: Worker) -> Stream:
    return worker.count


def blue(worker: Worker) -> Stream:
    return worker.room("blue")


def test_one_worker_reads_a_source_and_all_clients_get_its_values(workers: Workers) -> None:
    clients = [worker.follow({"news": "now"}) for worker in workers]
    owner = reading(workers, news)
    for number in range(100):
        owner.news.put(number)
    for client in clients:
        assert client.data(100) == list(range(100))
    assert sum(len(worker.news.readers) for worker in workers) == 1


def test_a_worker_that_stops_hands_its_source_over_and_readers_notice_nothing(
    workers: Workers,
) -> None:
    left = list(workers)
    for turn in range(2):
        owner = reading(left, news)
        readers = [worker.follow({"news": "last:2"}) for worker in left if worker is not owner]
        owner.news.put(f"{turn} a")
        owner.news.put(f"{turn} b")
        left.remove(owner)
        for reader in readers:
            assert reader.data(2 + 2 * (turn > 0))[-2:] == [f"{turn} a", f"{turn} b"]
        owner.stop()
        assert owner.news.closed == 1
        heir = reading(left, news)
        heir.news.put(f"{turn} c")
        for reader in readers:
            event = reader.next()  # no `full` before
            assert event["data"] == f"{turn} c"


def test_a_source_that_fails_is_started_again_and_every_reader_is_told(workers: Workers) -> None:
    clients = [worker.follow({"news": "now"}) for worker in workers]
    owner = reading(workers, news)
    owner.news.put("before")
    owner.news.put(OSError("the line is cut"))
    owner.news.until(lambda: owner.news.closed == 1)
    again = reading(workers, news)
    assert again is owner
    again.news.put("after")
    for client in clients:
        assert client.next()["data"] == "before"
        full = client.next()
        assert full["error"] == "full"
        client.follow({"news": full["position"]})
        assert client.next()["data"] == "after"


def test_a_source_that_ends_ends_the_channel_for_all(workers: Workers) -> None:
    clients = [worker.follow({"news": "now"}) for worker in workers]
    owner = reading(workers, news)
    owner.news.put("last words")
    owner.news.put(None)
    for client in clients:
        assert client.next()["data"] == "last words"
        assert client.error() == ("closed", "ended")


def test_a_member_of_a_family_is_read_once_and_ends_when_no_worker_uses_it(
    workers: Workers, client: Client
) -> None:
    one = workers[0].follow({"room:blue": "now"})
    owner = reading(workers, blue)
    assert owner is workers[0]
    two = workers[1].follow({"room:blue": "now"})
    blue(owner).put("hello")
    assert [one.next()["data"], two.next()["data"]] == ["hello", "hello"]
    one.cut()  # the owner has no listener any more, but goes on for the other
    for number in range(20):
        blue(owner).put(number)
        assert two.next()["data"] == number
    two.cut()
    blue(owner).until(lambda: blue(owner).closed == 1)
    assert not [key for key in client.keys("*own:*") if b"room" in b"".join(client.smembers(key))]
    three = workers[2].follow({"room:blue": "now"})
    assert reading(workers, blue) is workers[2]
    blue(workers[2]).put("again")
    assert three.next()["data"] == "again"


def test_a_member_whose_owner_stops_goes_to_a_worker_with_listeners(workers: Workers) -> None:
    one, two = (worker.follow({"room:blue": "now"}) for worker in workers[:2])
    owner = reading(workers, blue)
    other = workers[1] if owner is workers[0] else workers[0]
    reader = two if owner is workers[0] else one
    blue(owner).put("a")
    assert reader.next()["data"] == "a"
    owner.stop()
    assert reading([other], blue) is other
    blue(other).put("b")
    assert reader.next()["data"] == "b"


def next_value(reader: SseClient) -> Any:
    """Return the next value; before that the reader may be told `full` again."""
    event = reader.next()
    while event.get("error") == "full":
        reader.follow({event["channel"]: event["position"]})
        event = reader.next()
    return event["data"]


def end_as_unused(client: Client, name: str) -> None:
    """End a member, as the owner does once it sees no other worker."""
    keys = KEYS.site(name)
    with client.pipeline() as pipe:
        pipe.hset(keys.meta, "c", "unused").hdel(keys.meta, "o").hget(keys.meta, "e")
        epoch = pipe.execute()[-1]
    client.publish(keys.topic, b"c" + epoch + f" unused {name}".encode())


def test_a_member_that_ended_while_a_worker_was_cut_off_is_opened_again_for_its_listeners(
    workers: Workers, client: Client
) -> None:
    readers = [worker.follow({"room:blue": "now"}) for worker in workers[:2]]
    owner = reading(workers, blue)
    blue(owner).put("a")
    assert [reader.next()["data"] for reader in readers] == ["a", "a"]
    end_as_unused(client, "room:blue")
    blue(owner).until(lambda: blue(owner).closed == 1)
    for reader in readers:
        full = reader.next()
        assert full["error"] == "full"
        reader.follow({"room:blue": full["position"]})
    blue(reading(workers, blue)).put("b")
    assert [next_value(reader) for reader in readers] == ["b", "b"]


def test_a_member_without_a_source_is_opened_again_as_well(
    workers: Workers, client: Client
) -> None:
    readers = [worker.follow({"hall:red": "now"}) for worker in workers[:2]]
    workers[0].halls.publish("a", hall="red")
    assert [reader.next()["data"] for reader in readers] == ["a", "a"]
    end_as_unused(client, "hall:red")
    for reader in readers:
        full = reader.next()
        assert full["error"] == "full"
        reader.follow({"hall:red": full["position"]})
    workers[0].halls.publish("b", hall="red")
    assert [next_value(reader) for reader in readers] == ["b", "b"]


def test_a_worker_that_stops_ends_no_member_for_the_others(workers: Workers) -> None:
    owner = reading(workers, news)
    other = next(worker for worker in workers if worker is not owner)
    reader = other.follow({"hall:red": "now"})
    owner.halls.publish("a", hall="red")
    assert reader.next()["data"] == "a"
    owner.last_words = partial(owner.halls.publish, "last words", hall="red")
    owner.stop()
    assert reader.next()["data"] == "last words"
    other.halls.publish("b", hall="red")
    assert reader.next()["data"] == "b"


def test_what_an_application_publishes_as_it_stops_is_stored(
    workers: Workers, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Its channels belong to all workers, so they do not end with this one."""
    comet = Comet(KEY, broker=RedisBroker(redis.url), settings=SETTINGS)
    named = comet.create(scope=SITE, name="named")
    stored: list[Position] = []

    @asynccontextmanager
    async def publishing(app: Starlette) -> AsyncIterator[None]:
        yield
        stored.append(await named.publish("last words").stored())
        named.publish("and last")

    middleware = [Middleware(CometMiddleware, comet=comet)]
    with serve(Starlette(middleware=middleware, lifespan=publishing)):
        pass
    reader = workers[0].follow({"named": "last:2"})
    assert reader.data(2) == ["last words", "and last"]
    assert [position.offset for position in stored] == [1]
    assert "not stored" not in caplog.text
    with pytest.raises(BrokerUnavailable, match="the server has stopped"):
        named.publish("too late")


def test_an_iterator_given_at_run_time_cannot_move(workers: Workers) -> None:
    stream = Stream()

    async def make() -> None:
        workers[0].comet.create(stream.read(), scope=SITE, name="once")

    wait_in_loop(workers[0].comet, make)
    stream.until(lambda: bool(stream.readers))
    reader = workers[1].follow({"once": "now"})
    stream.put("a")
    assert reader.next()["data"] == "a"
    workers[0].stop()
    assert reader.error() == ("closed", "failed")
    assert stream.closed == 1


def test_a_name_that_only_some_workers_declare_is_asked_for_again(
    workers: Workers, redis: RedisServer, client: Client
) -> None:
    def ask() -> int:
        return workers[0].ask("weather:rome").status

    assert ask() == 200  # the channel is unknown
    newer = Worker(redis.url, "weather:{place}")
    try:
        deadline = time.monotonic() + PATIENCE
        while ask() != 503:
            assert time.monotonic() < deadline
        log = Log(KEYS.site("weather:rome"), "S", IMPORTED, 9, 99, traits="r")
        run(client, Scripts(KEYS).open(log, "e"))
        run(client, Scripts(KEYS).end(log, "ended", 60_000))
        assert ask() == 503  # the other worker starts the channel afresh
    finally:
        newer.stop()
    deadline = time.monotonic() + PATIENCE
    while ask() != 200:
        assert time.monotonic() < deadline


def take_for_dead(client: Client, name: str) -> None:
    """Have the other workers take the owner of a channel for dead."""
    owner = client.hget(KEYS.site(name).meta, "o")
    with client.pipeline() as pipe:
        pipe.zrem(KEYS.workers, owner).hset(KEYS.dead, owner, "0 ").execute()


def test_a_worker_that_others_took_for_dead_closes_its_source(
    workers: Workers, client: Client
) -> None:
    owner = reading(workers, news)
    reader = next(worker for worker in workers if worker is not owner).follow({"news": "now"})
    owner.news.put("a")
    assert reader.next()["data"] == "a"
    take_for_dead(client, "news")
    owner.news.until(lambda: owner.news.closed == 1)
    reading(workers, news).news.put("b")
    full = reader.next()
    assert full["error"] == "full"
    reader.follow({"news": full["position"]})
    assert reader.next()["data"] == "b"


def test_a_source_that_continues_keeps_the_epoch_when_its_owner_dies(
    workers: Workers, client: Client
) -> None:
    owner = reading(workers, counting)
    readers = [worker.follow({"count": "now"}) for worker in workers]
    owner.count.put("a")
    assert [reader.next()["data"] for reader in readers] == ["a"] * 3
    take_for_dead(client, "count")
    owner.count.until(lambda: owner.count.closed == 1)
    counting(reading(workers, counting)).put("b")
    assert [reader.next()["data"] for reader in readers] == [["a", "b"]] * 3


def test_a_visitor_always_gets_a_room_though_others_have_just_left_many(redis: RedisServer) -> None:
    worker = Worker(
        redis.url, settings=dataclasses.replace(SETTINGS, max_family_channels_per_session=2)
    )
    try:
        for number in range(10):
            assert b"failed" not in worker.ask(f"room:{number}").body
    finally:
        worker.stop()


def test_a_worker_that_starts_while_redis_is_full_reads_its_sources_later(
    redis: RedisServer, client: Client
) -> None:
    client.config_set("maxmemory", 1)
    worker = Worker(redis.url)

    async def make() -> None:
        channel: Any = worker.comet.create(scope=SITE, name="behind")
        with pytest.raises(BrokerUnavailable):
            await channel.publish("x").stored()

    try:
        wait_in_loop(worker.comet, make)  # the declared channels were refused before
        client.config_set("maxmemory", 0)
        reading([worker], news).news.put("a")
        assert worker.follow({"news": "last:1"}).next()["data"] == "a"
    finally:
        worker.stop()


def test_a_source_given_at_import_is_read_by_another_worker_from_then_on(
    workers: Workers, client: Client
) -> None:
    owner = reading(workers, given)
    readers = [worker.follow({"given": "now"}) for worker in workers]
    owner.given.put("a")
    assert [reader.next()["data"] for reader in readers] == ["a"] * 3
    take_for_dead(client, "given")
    owner.given.until(lambda: owner.given.closed == 1)
    reading([worker for worker in workers if worker is not owner], given).given.put("b")
    for reader in readers:
        full = reader.next()
        assert full["error"] == "full"
        reader.follow({"given": full["position"]})
        assert reader.next()["data"] == "b"


def test_a_member_without_a_source_stays_when_its_owner_was_taken_for_dead(
    workers: Workers, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    reader = workers[0].follow({"hall:red": "now"})
    meta = KEYS.site("hall:red").meta
    while not (owner := client.hget(meta, "o")):
        pass  # the owner is known after the first listener
    take_for_dead(client, "hall:red")
    while client.hget(meta, "o") in (owner, None):
        pass
    workers[0].halls.publish("a", hall="red")
    assert reader.next()["data"] == "a"
    assert [one for one in caplog.records if one.exc_info] == []


def test_a_source_given_at_run_time_ends_with_the_right_to_read_it(
    workers: Workers, client: Client
) -> None:
    stream = Stream()

    async def make() -> None:
        workers[0].comet.create(stream.read(), scope=SITE, name="once")

    wait_in_loop(workers[0].comet, make)
    stream.until(lambda: bool(stream.readers))
    readers = [worker.follow({"once": "now"}) for worker in workers]
    take_for_dead(client, "once")
    stream.until(lambda: stream.closed == 1)
    for reader in readers:
        assert reader.error() == ("closed", "failed")


def test_a_source_that_never_waits_loses_nothing(workers: Workers) -> None:
    count = 1000

    async def numbers() -> AsyncIterator[int]:
        for number in range(count):
            yield number
        await asyncio.Event().wait()

    async def make() -> None:
        source: Any = numbers()
        channel: Any = workers[0].comet.create(source, scope=SITE, name="many", size=count + 1)
        await channel.publish(-1).stored()  # the other workers know the channel

    wait_in_loop(workers[0].comet, make)
    reader = workers[1].follow({"many": f"last:{count + 1}"})
    found = reader.data(count + 1)
    assert [value for value in found if value >= 0] == list(range(count))


def test_a_channel_that_is_being_closed_takes_no_more_messages(workers: Workers) -> None:
    refused: list[str] = []

    async def make() -> None:
        channel: Any = workers[0].comet.create(scope=SITE, name="short", type=str)
        channel.publish("last words")
        channel.close()
        try:
            channel.publish("too late")
        except ChannelClosed as error:
            refused.append(error.reason)

    wait_in_loop(workers[0].comet, make)
    assert refused == ["ended"]


def test_a_reference_is_right_before_other_workers_know_the_channel(workers: Workers) -> None:
    told: list[dict[str, str]] = []

    async def make() -> None:
        channel: Any = workers[0].comet.create(scope=SITE, name="made", type=str)
        told.append(channel.reference("first"))
        await channel.publish("x").stored()

    wait_in_loop(workers[0].comet, make)
    for worker in workers:
        reader = worker.follow({"made": told[0]["position"]})
        assert reader.next()["data"] == "x"  # no `full` before


def test_every_worker_publishes_beside_a_source(workers: Workers) -> None:
    reader = workers[2].follow({"news": "now"})
    reading(workers, news).news.put("of the source")
    assert reader.next()["data"] == "of the source"
    for number, worker in enumerate(workers):
        worker.declared.publish(number)
        assert reader.next()["data"] == number


def test_a_name_that_another_worker_has_stays_that_channel_for_all_clients(
    workers: Workers,
) -> None:
    made: list[Any] = []

    async def make() -> None:
        made.append(workers[0].comet.create(scope=SITE, name="mine"))
        await made[0].publish("first").stored()

    async def make_again() -> None:
        late: Any = workers[1].comet.create(scope=SITE, name="mine")
        with pytest.raises(NonUniqueChannelName):
            await late.publish("of a channel that is not made").stored()

    wait_in_loop(workers[0].comet, make)
    wait_in_loop(workers[1].comet, make_again)
    readers = [worker.follow({"mine": "last:5"}) for worker in workers]
    made[0].publish("second")
    for reader in readers:
        assert reader.data(2) == ["first", "second"]


@pytest.mark.parametrize("where", [0, 1], ids=["here", "elsewhere"])
def test_a_source_on_demand_is_not_read_further_because_the_epoch_changes(
    redis: RedisServer, workers: Workers, where: int
) -> None:
    steps, client = workers[0].steps, PollClient(Tab(workers[0].address), workers[0].address)
    client.begin({"~steps": "new.0"})
    for number in (1, 3):  # the second change is of a channel that was renewed before
        steps.until(lambda: steps.asked == number)  # noqa: B023 - called at once
        with redis.client() as store:
            store.hset(KEYS.lineage, mapping={"id": "other", "run": "other"})
        steps.put(number)
        steps.put(number + 1)
        full = client.next()
        assert (full["error"], full["position"][-2:]) == ("full", f".{number - 1}")
        wait_in_loop(workers[0].comet, workers[0].declared.publish("after all values").stored)
        client.address = workers[where].address
        assert client.data(2) == [number, number + 1]
        client.resume()  # acknowledges
    client.cut()


def test_a_message_that_no_listener_of_this_worker_has_may_be_with_another_one(
    workers: Workers,
) -> None:
    reader = workers[1].follow({"news": "now"})
    assert outcome(workers[0].comet, lambda: workers[0].declared.publish("x")) is Outcome.UNKNOWN
    assert reader.next()["data"] == "x"


def test_max_family_channels_bounds_all_workers_at_n_and_n_plus_one(redis: RedisServer) -> None:
    bounded = dataclasses.replace(SETTINGS, max_family_channels=2, heartbeat=5)
    workers = [Worker(redis.url, settings=bounded) for _ in range(3)]

    def publish(worker: Worker, room: str) -> None:
        async def call() -> None:
            await worker.room_family.publish("x", room=room).stored()

        wait_in_loop(worker.comet, call)

    def until_elsewhere(worker: Worker, count: int) -> None:
        async def wait() -> None:
            while worker.broker.elsewhere != count:
                await anyio.lowlevel.checkpoint()

        wait_in_loop(worker.comet, wait)

    try:
        one = workers[0].follow({"room:1": "now"})
        workers[1].follow({"room:2": "now"})
        until_elsewhere(workers[2], 2)
        with pytest.raises(ChannelClosed):
            publish(workers[2], "3")
        answer = workers[2].ask("room:3")
        assert (answer.status, b'"failed"' in answer.body) == (200, True)
        publish(workers[2], "1")  # there is one of that name
        assert one.next()["data"] == "x"
    finally:
        for worker in workers:
            worker.stop()
