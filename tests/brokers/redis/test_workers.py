"""Workers on a Redis, with their clients: what readers get while Redis fails."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from asgi_comet import SITE, Channel, Comet, CometMiddleware, Delivery, Outcome, Settings
from asgi_comet.brokers.redis import RedisBroker, probing
from asgi_comet.brokers.redis.following import Following
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.replicas import Replica
from asgi_comet.testing._inspect import inside
from asgi_comet.testing._inspect_redis import lose_frames, redis_tables
from tests.kit.clients import Client as Reader
from tests.kit.clients import PollClient, SseClient, WebSocketClient
from tests.kit.loop import outcome, wait_in_loop
from tests.kit.processes import process_of
from tests.kit.redis import Client, RedisServer
from tests.kit.redis_workers import promoted, saved
from tests.kit.servers import Kind, running
from tests.kit.serving import Address, Tab, serve
from tests.kit.stage import KEY

MakeRedis = Callable[..., RedisServer]
AUCTION = Keys().site("auction")


class Worker:
    """A `Comet` on a Redis, with its server; each makes the same channels."""

    def __init__(self, url: str, loop: str = "uvloop", **options: Any) -> None:
        self.broker = RedisBroker(url, **options)
        self.comet = Comet(KEY, broker=self.broker, settings=Settings(jitter=0))
        self.news: Channel[Any] = self.comet.create(scope=SITE, name="news", size=1000)
        self.gauge: Channel[Any] = self.comet.create_newest(name="gauge")
        self.app = Starlette(middleware=[Middleware(CometMiddleware, comet=self.comet)])
        self.loop = loop
        self.address: Address

    def stored(self, value: Any, channel: Channel[Any] | None = None) -> str:
        """Publish, and return the position once the message is stored."""
        done, found = threading.Event(), list[Any]()

        async def publish() -> None:
            try:
                found.append(str(await (channel or self.news).publish(value).stored()))
            finally:
                done.set()

        inside(self.comet).background.start(publish)
        assert done.wait(40)
        (position,) = found
        return str(position)


@contextmanager
def serving(*workers: Worker) -> Iterator[None]:
    with ExitStack() as stack:
        for worker in workers:
            worker.address = stack.enter_context(serve(worker.app, loop=worker.loop))
        for worker in workers:
            assert worker.address.request("GET", "/comet/comet.js").status == 200
            worker.stored("ready", worker.gauge)
        yield


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_readers_of_an_emptied_redis_are_told_full_and_go_on(
    redis: RedisServer,
    client: Client,
    loop: str,
    monkeypatch: pytest.MonkeyPatch,
    at_end: ExitStack,
) -> None:
    monkeypatch.setattr(probing, "EVERY", 0.05)
    one, two = Worker(redis.url, loop), Worker(redis.url, loop)
    with serving(one, two):
        one.stored("a")
        readers = [kind(None, two.address) for kind in (SseClient, WebSocketClient, PollClient)]
        for reader in readers:
            at_end.callback(reader.cut)
            reader.follow({"news": "last:1"})
            assert reader.data(1) == ["a"]
        client.flushall()
        for reader in readers:  # nothing is published
            event = reader.next()
            assert (event["channel"], event["error"]) == ("news", "full")
            assert event["position"].endswith(".0")
        for number, worker in enumerate((one, two, one)):
            worker.stored(number)  # on the window that came in place of the former one
        two.news.close()
        for reader in readers:
            assert reader.data(3) == [0, 1, 2]
            assert reader.error() == ("closed", "ended")
            reader.cut()


def test_a_channel_is_published_on_in_each_epoch_and_lifespan(
    redis: RedisServer, client: Client, loop: str, at_end: ExitStack
) -> None:
    worker, other = Worker(redis.url, loop), Worker(redis.url, loop)
    with serving(other):
        for _ in range(2):
            with serving(worker):
                for _ in range(2):
                    worker.stored("x")
                    client.flushall()
                    worker.stored("y")
                position = worker.stored("last")
                for one in (worker, other):
                    while one.news.reference("now")["position"] != position:
                        pass  # the window hears of the other epoch, and reads it
        reader = SseClient(None, other.address)
        at_end.callback(reader.cut)
        reader.follow({"news": "last:1"})
        assert reader.data(1) == ["last"]
        reader.cut()


def test_a_client_that_is_ahead_of_a_worker_is_not_told_full(
    redis: RedisServer, loop: str, at_end: ExitStack
) -> None:
    """Frames to one worker are held back; its client comes from a worker that is ahead."""
    one, two = Worker(redis.url, loop), Worker(redis.url, loop)
    with serving(one, two):
        reader = PollClient(None, one.address)
        at_end.callback(reader.cut)
        reader.follow({"news": "now"})
        lose_frames(two.broker)
        one.stored("a")
        assert reader.data(1) == ["a"]
        reader.cut()
        reader.address = two.address
        one.stored("b")
        assert reader.data(1) == ["b"]


@pytest.mark.parametrize("always", [False, True])
def test_a_client_whose_epoch_changes_while_its_position_is_located_is_told_full(
    redis: RedisServer,
    client: Client,
    always: bool,
    monkeypatch: pytest.MonkeyPatch,
    at_end: ExitStack,
) -> None:
    """The window is behind, so it catches up after Redis has located the position."""
    one, two = Worker(redis.url), Worker(redis.url)
    meta, epochs = Keys().site("gauge" if always else "news").meta, count()

    def renew() -> None:
        client.hset(meta, mapping={"e": f"epoch{next(epochs)}", "q": client.hget(meta, "s")})

    async def late(self: Following, replica: Replica) -> None:
        renew()
        await catch_up(self, replica)
        if always:
            renew()

    catch_up = Following.catch_up
    with serving(one, two):
        lose_frames(two.broker)
        position = one.stored("a", one.gauge if always else one.news)
        one.stored("b", one.gauge if always else one.news)
        monkeypatch.setattr(Following, "catch_up", late)
        reader = PollClient(None, two.address)
        at_end.callback(reader.cut)
        reader.follow({"gauge": "another.7"} if always else {"news": position})
        assert reader.error() == ("full", None)
        assert next(epochs) == (6 if always else 1)
        reader.cut()


def sell(worker: Worker, client: Client) -> str:
    """Make a channel, publish twice, and close it; return the position of the first message."""
    made: list[Channel[Any]] = []

    async def make() -> None:
        made.append(worker.comet.create(scope=SITE, name="auction"))

    wait_in_loop(worker.comet, make)
    first = worker.stored(1, made[0])
    made[0].publish("sold!")
    made[0].close()
    while client.hget(AUCTION.meta, "c") is None:
        pass
    return first


@pytest.mark.parametrize("kind", [SseClient, WebSocketClient, PollClient])
def test_the_last_messages_of_a_channel_are_read_at_every_worker(
    redis: RedisServer, client: Client, kind: Callable[..., Reader], at_end: ExitStack
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    with serving(one, two):
        first = sell(one, client)
        registry, before = inside(two.comet).channels, redis_tables(two.broker)
        live = len(registry)
        for worker in (one, two, two):  # the second one did not follow the channel
            reader = kind(None, worker.address)
            at_end.callback(reader.cut)
            reader.begin({"auction": first})
            assert reader.data(1) == ["sold!"]
            last = reader.positions["auction"]
            assert reader.error() == ("closed", "ended")
            reader.begin({"auction": last})
            assert reader.error() == ("closed", "ended")
            reader.cut()
        assert len(registry) == live
        after = redis_tables(two.broker)
        assert all(after[table] == before[table] for table in ("followed", "topics", "held"))


@pytest.mark.parametrize("lost", [AUCTION.log, AUCTION.meta])
def test_what_is_lost_of_a_channel_that_has_ended_is_told(
    redis: RedisServer, client: Client, lost: str, at_end: ExitStack
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    with serving(one, two):
        first = sell(one, client)
        client.delete(lost)  # as if its time was over
        reader = PollClient(None, two.address)
        at_end.callback(reader.cut)
        reader.begin({"auction": first})
        if lost == AUCTION.meta:
            assert reader.error() == ("closed", "unknown")
        else:
            assert reader.error() == ("full", None)
            assert reader.error() == ("closed", "ended")
        reader.cut()


def test_a_namesake_of_a_channel_that_has_ended_begins_at_once(
    redis: RedisServer, client: Client, at_end: ExitStack
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    with serving(one, two):
        first = sell(one, client)
        reader = PollClient(None, two.address)
        at_end.callback(reader.cut)
        reader.begin({"auction": first})
        assert reader.data(1) == ["sold!"]
        assert reader.error() == ("closed", "ended")
        again = sell(two, client)
        assert again.partition(".")[0] != first.partition(".")[0]
        reader.begin({"auction": again})
        assert reader.data(1) == ["sold!"]
        reader.cut()


def test_readers_of_the_newest_value_go_on_with_an_emptied_redis(
    redis: RedisServer, client: Client, loop: str
) -> None:
    one, two = Worker(redis.url, loop), Worker(redis.url, loop)
    with serving(one, two):
        one.stored("a", one.gauge)
        readers = [kind(None, two.address) for kind in (SseClient, WebSocketClient, PollClient)]
        for reader in readers:
            reader.follow({"gauge": "last:1"})
            assert reader.data(1) == ["a"]
        client.flushall()
        one.stored("b", one.gauge)  # whose offset is lower
        for reader in readers:
            assert reader.data(1) == ["b"]
            reader.cut()


def test_the_last_messages_are_those_in_redis_if_the_window_was_dropped(
    redis: RedisServer, loop: str
) -> None:
    worker = Worker(redis.url, loop, window_bytes=20)
    with serving(worker):
        for value in ("first", "second", "third"):
            worker.stored(value)
        worker.stored("later", worker.gauge)  # all frames before have come
        reader = SseClient(None, worker.address)
        reader.follow({"news": "last:2"})
        assert reader.data(2) == ["second", "third"]
        reader.cut()


# A replica that lags


@pytest.mark.usefixtures("quick")
def test_a_lost_message_is_not_acknowledged_by_the_one_that_took_its_place(
    redis: RedisServer, client: Client, at_end: ExitStack
) -> None:
    one, two = Worker(redis.url), Worker(redis.url)
    with serving(one, two):
        tab = Tab(one.address)
        inbox = one.comet.create(scope=process_of(one.comet, tab), name="inbox")
        one.stored("a", inbox)
        data = saved(client)
        reader = SseClient(tab, two.address)
        at_end.callback(reader.cut)
        reader.begin({"~inbox": "new.0"})
        assert reader.data(1) == ["a"]

        def come_back() -> None:
            assert reader.data(1) == ["lost"]
            promoted(client, data)
            assert reader.error() == ("full", None)
            reader.cut()
            assert one.stored("b", inbox) == reader.positions["~inbox"].replace(".1", ".2")
            reader.resume()
            assert reader.data(1) == ["b"]
            reader.cut()
            reader.address = one.address
            reader.resume()

        coming = threading.Thread(target=come_back)

        def write() -> Delivery:
            coming.start()
            return inbox.publish("lost")

        assert outcome(one.comet, write) is Outcome.UNKNOWN
        coming.join()
        reader.cut()


# Sentinel


def test_clients_go_on_when_a_sentinel_has_promoted_a_replica(
    make_redis: MakeRedis, at_end: ExitStack
) -> None:
    primary, replica = make_redis(with_port=True), make_redis(with_port=True)
    with replica.client() as second, primary.client() as first:
        second.replicaof("127.0.0.1", primary.port)
        while second.info("replication")["master_link_status"] != "up":
            pass
        sentinel = make_redis(sentinel_of=primary.port)
        with sentinel.client() as third:
            third.execute_command("SENTINEL", "SET", "name", "down-after-milliseconds", "300")
            third.execute_command("SENTINEL", "SET", "name", "failover-timeout", "1000")
            while not third.execute_command("SENTINEL", "REPLICAS", "name"):
                pass
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/name/0"
        one, two = Worker(url), Worker(url)
        with serving(one, two):
            reader = SseClient(None, two.address)
            at_end.callback(reader.cut)
            reader.follow({"news": "now"})
            one.stored("a")
            assert reader.data(1) == ["a"]
            while not first.wait(1, 1000):
                pass
            primary.stop()
            one.stored("b")  # waits for the promotion
            event = reader.next()
            assert (event["channel"], event["error"]) == ("news", "full")
            assert event["position"].endswith(".1")  # where the new epoch began
            assert reader.data(1) == ["b"]
            reader.cut()


# Redis away for a while, in processes of their own

ATTEMPTS = int(os.environ.get("ATTEMPTS", "8"))


class Deaf:
    """Where Redis was: counts who tries to connect, and when."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.times: list[float] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()

    def wait(self, count: int) -> None:
        while len(self.times) < count:
            connection, _ = self._listening.accept()
            self.times.append(time.monotonic())
            connection.close()

    def close(self) -> None:
        self._listening.close()


@pytest.mark.slow
def test_no_client_notices_that_redis_was_away(make_redis: MakeRedis, at_end: ExitStack) -> None:
    redis = make_redis("--appendonly", "yes", "--appendfsync", "always")
    environ = {"COMET_BROKER": redis.url, "DURABLE": "1"}
    kind, app = Kind("uvicorn", ("--no-access-log",)), "tests.kit.redis_app:app"
    with running(kind, app, **environ) as server:
        server.wait_for("running on")
        readers = [SseClient(None, server.address), WebSocketClient(None, server.address)]
        for reader in readers:
            at_end.callback(reader.cut)
            reader.follow({"news": "now"})
        server.get("/publish/0/10")
        assert readers[0].data(10) == readers[1].data(10) == list(range(10))
        redis.stop()
        deaf = Deaf(redis.path)
        server.get("/publish/10/200")
        deaf.wait(ATTEMPTS)
        refused = server.address.request("POST", "/comet/poll", '{"channels": {"other": "now"}}', {
            "Content-Type": "application/json"
        })  # fmt: skip
        assert refused.status == 503
        assert refused.headers["retry-after"]
        deaf.close()
        redis.start()
        for reader in readers:
            assert reader.data(190) == list(range(10, 200))
            assert reader.connected == 1
            reader.cut()
        server.get("/stored/x")
        log = server.stop(20)
    lines = [line for line in log.splitlines() if "broker is not available" in line]
    assert len(lines) <= 3, log  # of a kind each: the connection that ended, a client
    pauses = [b - a for a, b in zip(deaf.times, deaf.times[1:], strict=False)]
    assert min(pauses) > 0.15  # at most five a second
    print(f"{len(deaf.times)} attempts in {sum(pauses):.1f} s; log lines: {lines}")
