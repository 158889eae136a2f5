"""How a worker starts: which URL makes which broker, and what stops the start in one sentence."""

from __future__ import annotations

import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from asgi_comet import Comet, lifespan
from asgi_comet.brokers.logs import Unsuitable
from asgi_comet.brokers.memory import MemoryBroker
from asgi_comet.brokers.redis import RedisBroker
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.testing._inspect import inside, policy_of
from tests.kit.programs import ROOT
from tests.kit.redis import RedisServer
from tests.kit.servers import Kind, running
from tests.kit.stage import KEY

MakeRedis = Callable[..., RedisServer]
SECRET = "swordfish"
UVICORN = Kind("uvicorn", ("--log-level", "debug"))
APP = "tests.kit.redis_app:app"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@localhost:7000/1",
        "rediss://localhost",
        "unix:///run/redis.sock",
        "redis+unix:///run/redis.sock",
        "redis+sentinel://:secret@a,b:7,c/name/0",
        "REDIS://localhost",
    ],
)
def test_a_url_names_a_redis(url: str) -> None:
    comet = Comet(KEY, broker=url)
    assert isinstance(inside(comet).broker, RedisBroker)
    assert "secret" not in repr(inside(comet).broker)
    assert policy_of(comet) is None  # several workers are what it is for


@pytest.mark.parametrize("url", ["", None])
def test_nothing_is_the_memory(url: str | None) -> None:
    comet = Comet(KEY, broker=url)
    assert isinstance(inside(comet).broker, MemoryBroker)
    assert policy_of(comet) == "refuse"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "amqp://:secret@localhost",
            r"to begin with redis://, rediss://, .*, got amqp://; pass a broker",
        ),
        (":secret@localhost", "got a text without ://"),
        (":secret@://localhost", "got another scheme"),
        ("redis://:secret@localhost:x", "expected a port"),
        ("redis+sentinel://:secret@a", "expected sentinels and a name"),
    ],
)
def test_another_url_is_refused_without_its_password(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        Comet(KEY, broker=url)
    assert "secret" not in str(refused.value)


def test_another_object_is_refused() -> None:
    with pytest.raises(TypeError, match="to be a URL, a Broker or None, got int"):
        Comet(KEY, broker=7)  # type: ignore[arg-type]


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_the_library_is_only_loaded_for_a_broker_on_redis() -> None:
    code = "import sys, asgi_comet.brokers.redis as r; from asgi_comet import Comet; "
    code += f"Comet({KEY!r}); print('redis' in sys.modules, 'hiredis' in sys.modules); "
    assert run_python(code) == "False False\n"


@pytest.mark.parametrize("library", ["redis", "hiredis"])
@pytest.mark.parametrize(
    "line", [f"from asgi_comet import Comet; Comet({KEY!r}, broker='redis://:secret@a')",
             "from asgi_comet.brokers.redis import RedisBroker"]
)  # fmt: skip
def test_without_the_library_it_is_said_what_to_install(library: str, line: str) -> None:
    code = f"import sys\nsys.modules[{library!r}] = None\ntry: {line}\n"
    code = f"import sys\nsys.modules[{library!r}] = None\ntry:\n    {line}\n"
    told = run_python(code + "except ImportError as error:\n    print(type(error), error)")
    assert "pip install 'asgi_comet[redis]'" in told
    assert "secret" not in told


def test_what_the_package_of_the_broker_does_not_have() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = __import__("asgi_comet.brokers.redis", fromlist=["x"]).Nothing


def test_another_library_that_is_missing_is_told_as_it_is() -> None:
    code = "import sys\nsys.modules['asyncio.streams'] = None\n"
    code = "import sys\nsys.modules['asgi_comet.brokers.redis.flusher'] = None\ntry:\n"
    code += "    from asgi_comet.brokers.redis import RedisBroker\n"
    told = run_python(code + "except ModuleNotFoundError as error:\n    print(error.name)")
    assert told == "asgi_comet.brokers.redis.flusher\n"


# A start that fails, in a process of its own


class OldRedis(socketserver.StreamRequestHandler):
    """A server that answers as a Redis of another version would."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            words = [self.read_word() for _ in range(int(line[1:]))]
            self.wfile.write(self.answer(words))

    def read_word(self) -> bytes:
        size = int(self.rfile.readline()[1:])
        return self.rfile.read(size + 2)[:-2].upper()

    def answer(self, words: list[bytes]) -> bytes:
        match words:
            case [b"HELLO", *_]:
                return b"%1\r\n$5\r\nproto\r\n:3\r\n"
            case [b"CLIENT", b"ID"]:
                return b":1\r\n"
            case [b"INFO"]:
                text = b"redis_version:6.2.7\r\nrun_id:x\r\nrole:master\r\nconnected_slaves:0\r\n"
                return b"$%d\r\n%s\r\n" % (len(text), text)
        return b"+OK\r\n"


@contextmanager
def old(_: MakeRedis) -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OldRedis) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever).start()
        yield f"redis://:{SECRET}@127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def refusing(make_redis: MakeRedis, *options: str, user: str = "", **more: Any) -> Iterator[str]:
    yield f"unix://{user}:{SECRET}@{make_redis(*options, **more).path}"


@contextmanager
def other_format(make_redis: MakeRedis) -> Iterator[str]:
    redis = make_redis()
    with redis.client() as client:
        client.set(Keys().format, 99)
        client.config_set("requirepass", SECRET)
        yield f"unix://:{SECRET}@{redis.path}"


@contextmanager
def replicated(make_redis: MakeRedis) -> Iterator[str]:
    redis, replica = make_redis(with_port=True), make_redis()
    with redis.client() as client, replica.client() as other:
        other.replicaof("127.0.0.1", redis.port)
        while not client.info("replication")["connected_slaves"]:
            pass
        client.config_set("requirepass", SECRET)
        yield f"unix://:{SECRET}@{redis.path}"


CLUSTER = ("--cluster-enabled", "yes", "--requirepass", SECRET)
RIGHTS = ("--user", "me", "on", f">{SECRET}", "~comet:*", "&comet:*", "+@all", "-publish")

STOPPED: list[tuple[Any, str]] = [
    (lambda make: refusing(make, "--requirepass", "other"), "invalid username-password"),
    (partial(refusing, user="stranger"), "invalid username-password"),
    (lambda make: refusing(make, *CLUSTER, with_port=True), "is a cluster"),
    (lambda make: refusing(make, *RIGHTS, user="me"), "allows too little: .*the user needs"),
    (other_format, "format 1 below comet:, found 99"),
    (replicated, "to have no replicas, as durable=True says"),
    (old, r"expected Redis 7\.0 or Valkey 7\.2 or newer, .* is Redis 6\.2\.7"),
]


CAUSES = ["password", "user", "cluster", "rights", "format", "durable", "version"]
STOPS = [("app", *one) for one in STOPPED] + [("bare", *STOPPED[0])]
"""With a framework for each cause; without one the start stops in the same way for all."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("app", "cause", "told"), STOPS, ids=[f"{one}-app" for one in CAUSES] + ["password-bare"]
)
def test_a_server_that_can_never_carry_channels_stops_the_start(
    make_redis: MakeRedis, cause: Any, told: str, app: str
) -> None:
    with cause(make_redis) as url:
        more = {"DURABLE": "1"} if cause is replicated else {}
        name = APP.replace(":app", f":{app}")
        with running(UVICORN, name, COMET_BROKER=url, **more) as server:
            log = server.ended(20)
        assert server.process.returncode == 3
    assert re.search(told, log), log
    assert SECRET not in log
    if app == "app":  # one sentence
        assert "Traceback" not in log
        assert len([line for line in log.splitlines() if line.startswith("ERROR")]) == 2, log


@pytest.mark.parametrize("scheme", ["amqp", "redis", "redis+sentinel"])
def test_a_url_that_cannot_be_read_stops_the_start(scheme: str) -> None:
    url = f"{scheme}://:{SECRET}@host:port"
    with running(UVICORN, APP, COMET_BROKER=url) as server:
        log = server.ended(20)
    assert server.process.returncode == 1
    assert "ValueError: expected" in log
    assert SECRET not in log


def test_where_redis_is_away_the_worker_starts_without(make_redis: MakeRedis) -> None:
    redis = make_redis("--requirepass", SECRET)
    redis.stop()
    url = f"unix://:{SECRET}@{redis.path}"
    with running(UVICORN, APP, COMET_BROKER=url, BROKER_LIMIT="0.3") as server:
        server.wait_for("the worker starts without it")
        server.wait_for("Application startup complete")
        server.get("/publish/0/1")
        redis.start()
        assert server.get("/stored/x").endswith(".2")
        log = server.stop(20)
    assert SECRET not in log
    assert "***" in log
    assert "Traceback" not in log


def test_where_redis_stays_away_the_worker_stops_all_the_same(tmp_path: Path) -> None:
    url = f"redis://:{SECRET}@127.0.0.1:1"
    with running(UVICORN, APP, COMET_BROKER=url, BROKER_LIMIT="0.3") as server:
        server.wait_for("Application startup complete")
        server.get("/publish/0/3")
        log = server.stop(20)
    assert SECRET not in log
    assert "3 messages were not stored at the stop" in log
    assert "Traceback" not in log


def test_on_trio_the_start_is_refused() -> None:
    async def start() -> None:
        async with Comet(KEY, broker="redis://").lifespan():
            pass  # pragma: no cover - it does not come so far

    with pytest.raises(Unsuitable, match="asyncio or uvloop for a broker on Redis, got trio"):
        anyio.run(start, backend="trio")


async def start(url: str) -> None:
    async with Comet(KEY, broker=url).lifespan():
        pass


def test_a_start_without_redis_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lifespan, "BROKER_LIMIT", 0.05)
    anyio.run(start, f"unix://{tmp_path}/nothing")
    assert "the broker did not answer within 0.05 s: the worker starts without it" in caplog.text
