"""Scripts and workers of task queues publish on a real Redis, and leave nothing behind."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest

from asgi_comet import SITE, BrokerUnavailable, Channel, Comet
from asgi_comet.brokers.logs import Unsuitable
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.brokers.redis.keys import Keys
from tests.kit.clients import SseClient
from tests.kit.forking import fork, wait
from tests.kit.loop import wait_in_loop
from tests.kit.programs import ROOT
from tests.kit.redis import Client, RedisServer
from tests.kit.scripted import EACH
from tests.kit.serving import Address, poll, reserved_port, serve
from tests.kit.stage import KEY, application

KEYS = Keys()


class Script:
    """An application as a script has imported it."""

    def __init__(self, redis: RedisServer, **arguments: Any) -> None:
        self.comet = Comet(KEY, broker=RedisBroker(redis.url, **arguments))
        self.news: Channel[Any] = self.comet.create(scope=SITE, name="news")
        self.rooms = self.comet.family("room:{room}", type=str)


def test_a_script_is_no_worker_and_owns_nothing(redis: RedisServer, client: Client) -> None:
    script = Script(redis)
    with script.comet.publishing():
        script.news.publish("a")
        script.rooms.publish("b", room="kitchen")
        made: Channel[Any] = script.comet.create(scope=SITE)
        made.publish("c")
        with script.comet.publishing():
            pass
        assert client.pubsub_channels() == []
        assert not client.exists(KEYS.workers)
        assert client.keys("*own:*") == []
    for name in ("news", "room:kitchen", made.id):
        record = client.hgetall(KEYS.site(name).meta)
        assert record[b"s"] == b"1"
        assert record.get(b"o", b"") == b""
    assert client.client_list(_type="pubsub") == []
    assert len(client.client_list()) == 1


def test_the_clients_of_a_server_get_what_a_script_publishes(redis: RedisServer) -> None:
    server, script = Script(redis), Script(redis)
    with serve(application(server.comet)) as address:
        place = poll(address, {"news": "now"})[0]["position"]
        with script.comet.publishing():
            script.news.publish("hello")
            script.rooms.publish("to no listener", room="kitchen")
        assert [event["data"] for event in poll(address, {"news": place})] == ["hello"]
        assert poll(address, {"room:kitchen": "last:1"})[-1]["data"] == "to no listener"


def test_a_member_that_ended_unused_is_opened_anew(redis: RedisServer, client: Client) -> None:
    script = Script(redis)
    with script.comet.publishing():
        script.rooms.publish("a", room="kitchen")
        with script.comet.publishing():
            pass
        client.hset(KEYS.site("room:kitchen").meta, "c", "unused")
        script.rooms.publish("b", room="kitchen")
    assert client.lrange(KEYS.site("room:kitchen").log, 0, -1) == [b'"b"']


def test_a_record_that_was_lost_is_opened_anew(redis: RedisServer, client: Client) -> None:
    script = Script(redis)
    with script.comet.publishing():
        script.news.publish("a")
        with script.comet.publishing():
            pass
        client.flushall()
        script.news.publish("b")
    assert client.lrange(KEYS.site("news").log, 0, -1) == [b'"b"']


def test_without_redis_the_number_is_told_after_patience(
    make_redis: Callable[..., RedisServer],
) -> None:
    redis = make_redis()
    script = Script(redis, patience=0.2)
    redis.stop()
    with (  # noqa: PT012 - several messages
        pytest.raises(BrokerUnavailable, match="3 messages were not stored"),
        script.comet.publishing(),
    ):
        script.news.publish("a")
        script.news.publish("b")
        script.rooms.publish("c", room="kitchen")
    redis.start()
    with script.comet.publishing():
        script.news.publish("y")
    with redis.client() as client:
        assert client.lrange(KEYS.site("news").log, 0, -1) == [b'"y"']


def test_without_redis_the_error_has_the_reason(tmp_path: Path) -> None:
    comet = Comet(KEY, broker=RedisBroker(f"unix://{tmp_path}/nothing", patience=0.3))
    news: Channel[Any] = comet.create(scope=SITE, name="news")
    told = "1 message was not stored .*s: unix://.*/nothing: Error 2 connecting to"
    with pytest.raises(BrokerUnavailable, match=told), comet.publishing():
        news.publish("a")


def test_a_buffer_that_is_full_while_redis_is_away_has_the_reason(tmp_path: Path) -> None:
    broker = RedisBroker(f"unix://{tmp_path}/nothing", patience=0.3, buffer_bytes=3)
    comet = Comet(KEY, broker=broker)
    news: Channel[Any] = comet.create(scope=SITE, name="news")
    with pytest.raises(BrokerUnavailable) as told, comet.publishing():  # noqa: PT012 - the loop
        while not broker.trouble:
            pass  # the first attempt fails behind
        news.publish("a")
        news.publish("b")
    assert re.search(
        r"^the buffer is full: .* got 1 of 3 bytes, and one more of 3; Redis is away: .*Error 2",
        str(told.value),
    )


PASSWORD = "invalid username-password pair"


@pytest.fixture
def refused(make_redis: Callable[..., RedisServer]) -> tuple[RedisServer, Script]:
    """A Redis with a password, and a script with the wrong one and a patience that never ends."""
    redis = make_redis("--user", "me", "on", ">right", "~*", "&*", "+@all")
    comet = Comet(KEY, broker=RedisBroker(f"unix://me:wrong@{redis.path}", patience=299))
    script = Script(redis)
    script.comet, script.news = comet, comet.create(scope=SITE, name="news")
    return redis, script


def test_a_wrong_password_is_told_at_once_when_the_script_leaves(
    refused: tuple[RedisServer, Script],
) -> None:
    _, script = refused
    with (
        pytest.raises(
            BrokerUnavailable, match=f"^the broker .* 1 message was .*{PASSWORD}"
        ) as told,
        script.comet.publishing(),
    ):
        script.news.publish("a")
    assert not told.value.maybe_stored
    assert str(told.value).count("the broker is not available") == 1


def test_a_wrong_password_is_told_at_once_to_the_waiter_and_the_publisher(
    refused: tuple[RedisServer, Script],
) -> None:
    redis, script = refused

    async def publish() -> None:
        async with script.comet.publishing():
            for _ in range(2):
                with pytest.raises(Unsuitable, match=PASSWORD):
                    await script.news.publish("lost").stored()
            with redis.client() as client:
                client.execute_command("ACL", "SETUSER", "me", ">wrong")
            async with asyncio.timeout(20):
                while not await is_stored(script):
                    pass

    async def is_stored(script: Script) -> bool:
        try:
            await script.news.publish("mended").stored()
        except Unsuitable:
            await anyio.lowlevel.checkpoint()
            return False
        return True

    asyncio.run(publish())
    with redis.client() as client:
        assert client.lrange(KEYS.site("news").log, 0, -1)[-1] == b'"mended"'


def test_a_script_enters_again_when_the_password_was_mended(
    refused: tuple[RedisServer, Script],
) -> None:
    redis, script = refused
    with pytest.raises(BrokerUnavailable, match=PASSWORD), script.comet.publishing():
        script.news.publish("lost")
    with redis.client() as client:
        client.execute_command("ACL", "SETUSER", "me", ">wrong")
    with script.comet.publishing():
        script.news.publish("mended")
    with redis.client() as client:
        assert client.lrange(KEYS.site("news").log, 0, -1) == [b'"mended"']


def test_a_forked_process_has_a_connection_of_its_own(redis: RedisServer, client: Client) -> None:
    script = Script(redis)
    with script.comet.publishing():
        script.news.publish("parent")
        with script.comet.publishing():
            pass
        before = connections(client)
        redis.send(signal.SIGSTOP)
        script.news.publish("on its way")  # of the parent alone
        child = fork(publish, script, "child")
        redis.send(signal.SIGCONT)
        assert wait(child) == 0
        assert connections(client) == before  # the child has not ended that of the parent
        script.news.publish("parent again")
    stored = client.lrange(KEYS.site("news").log, 0, -1)
    assert sorted(stored) == [b'"child"', b'"on its way"', b'"parent again"', b'"parent"']


def test_a_process_that_a_server_forks_publishes_like_a_script(
    redis: RedisServer, client: Client
) -> None:
    server = Script(redis)
    with serve(application(server.comet)):
        wait_in_loop(server.comet, server.news.publish("of the server").stored)
        assert wait(fork(publish, server, "of the child")) == 0
        assert wait(fork(publish_outside, server)) == 0
    stored = client.lrange(KEYS.site("news").log, 0, -1)
    assert stored == [b'"of the server"', b'"of the child"']


def publish_outside(script: Script) -> None:
    """Publish in a process that does not serve, and see that the log says so."""
    told: list[str] = []
    logger = logging.getLogger("asgi_comet.brokers.unserved")
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    script.news.publish("lost")
    assert len(told) == 1
    assert "no server runs" in told[0]


def publish(script: Script, text: str) -> None:
    with script.comet.publishing():
        script.news.publish(text)


def connections(client: Client) -> list[str]:
    return sorted(str(one["id"]) for one in client.client_list())


def run(redis: RedisServer, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COMET_BROKER": redis.url}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_child_that_never_enters_stores_what_it_published(
    redis: RedisServer, client: Client
) -> None:
    """It is in the `with` of its parent, which it never leaves."""
    text = (
        "import multiprocessing\n"
        "from tests.kit.scripted import comet, news\n"
        "def work():\n"
        "    for number in range(100): news.publish(number)\n"
        "with comet.publishing():\n"
        "    child = multiprocessing.get_context('fork').Process(target=work)\n"
        "    child.start()\n"
        "    child.join()\n"
        "    raise SystemExit(child.exitcode)\n"
    )
    ran = run(redis, "-c", text)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert client.llen(KEYS.site("news").log) == 100


def test_the_example_of_a_task_queue(redis: RedisServer, client: Client) -> None:
    jobs = ["tidy", "sweep", "polish"]
    ran = run(redis, "-m", "examples.tasks", *jobs)
    assert (ran.returncode, ran.stderr) == (0, "")
    done = client.lrange(KEYS.site("done").log, 0, -1)
    assert sorted(done) == sorted(b'"%s"' % job.encode() for job in jobs)
    for job in jobs:
        log = KEYS.site(f"progress:{job}").log
        assert client.lrange(log, 0, -1) == [b"0", b"50", b"100"]
    assert not client.exists(KEYS.workers)


class Worker:
    """A server in a process of its own."""

    def __init__(self, redis: RedisServer, port: int) -> None:
        self.address = Address("127.0.0.1", port)
        command = ["uvicorn", "tests.kit.scripted:app", "--port", str(port), "--no-access-log"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**os.environ, "COMET_BROKER": redis.url},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self.log.extend, args=(self._process.stderr,))

    def wait(self) -> None:
        """Return once it serves."""
        assert self._process.stderr is not None
        log = ""
        for line in self._process.stderr:
            log += line
            if "running on" in line:
                break
        else:
            pytest.fail(log)
        self._reader.start()

    def stop(self) -> None:
        self._process.terminate()
        if self._reader.ident is not None:
            self._reader.join(20)
        self._process.wait(20)
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextmanager
def workers(redis: RedisServer, count: int) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        made: list[Worker] = []
        for _ in range(count):
            worker = Worker(redis, stack.enter_context(reserved_port()))
            stack.callback(worker.stop)
            made.append(worker)
        for worker in made:
            worker.wait()
        yield made


@pytest.mark.slow
def test_a_hundred_scripts_beside_three_workers_disturb_no_client(
    redis: RedisServer, client: Client
) -> None:
    scripts = 100
    with workers(redis, 3) as served, ExitStack() as stack:
        clients = [SseClient(None, worker.address) for worker in served]
        for one in clients:
            stack.callback(one.cut)
            one.begin({"news": "now", "ticker": "now"})
            assert {one.next()["channel"], one.next()["channel"]} == {"news", "ticker"}
            assert one.data(1) != []
        record = KEYS.site("ticker").meta
        before = client.hmget(record, "o", "x", "e")
        members = set(client.zrange(KEYS.workers, 0, -1))
        assert len(members) == 3
        ran = run(redis, "-m", "tests.kit.scripted", str(scripts), "8")
        assert (ran.returncode, ran.stderr) == (0, "")
        assert client.hmget(record, "o", "x", "e") == before  # no source moved
        assert set(client.zrange(KEYS.workers, 0, -1)) == members
        assert len(client.pubsub_channels("*i:*")) == 3
        sent = sorted([script, count] for script in range(scripts) for count in range(EACH))
        for one in clients:
            check(one, sent)
        assert client.llen(KEYS.site("room:7").log) == EACH
    for worker in served:
        assert [line for line in worker.log if "ERROR" in line or "Traceback" in line] == []


def check(client: SseClient, sent: list[Any]) -> None:
    """Read until all has come: each message once, and no error."""
    news: list[Any] = []
    ticks: list[int] = []
    while len(news) < len(sent):
        event = client.next()
        assert "error" not in event, event
        (news if event["channel"] == "news" else ticks).append(event["data"])
    assert sorted(news) == sent
    for script in range(len(sent) // EACH):
        assert [count for number, count in news if number == script] == list(range(EACH))
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
