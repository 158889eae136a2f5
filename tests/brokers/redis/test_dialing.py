"""How a connection begins: sockets, TLS, users, sentinels, and what the server must be."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from asgi_comet import BrokerUnavailable
from asgi_comet.brokers.redis.address import Address, parse_address
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.checks import Server, Unsuitable, examine
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.dialing import dial
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.reconnecting import Pace
from asgi_comet.brokers.redis.scripts import Scripts
from tests.kit.certificate import make_certificate
from tests.kit.redis import Client, RedisServer
from tests.kit.streams import reset

pytestmark = pytest.mark.anyio

MakeRedis = Callable[..., RedisServer]
SCRIPTS = Scripts(Keys())


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[Connection, Address]]:
    address = parse_address(url)
    connection = Connection(await dial(address, 20.0), lambda *_: None)
    task = asyncio.create_task(connection.run())
    try:
        yield connection, address
    finally:
        connection.close("the test is over")
        with suppress(BrokerUnavailable):
            await task


async def look(url: str, scripts: Scripts = SCRIPTS, warn: Any = lambda *_: None) -> Server:
    async with connected(url) as (connection, address):
        return await examine(connection, address, scripts, warn)


async def database(url: str) -> str:
    """Return what Redis says of the connection: user and database."""
    async with connected(url) as (connection, _):
        info = await connection.send(Call(("CLIENT", "INFO"), bytes.decode))
        fields = dict(field.split("=", 1) for field in info.split())
        return f"{fields['user']} {fields['db']} resp{fields['resp']}"


async def test_by_socket_by_port_and_with_a_user(make_redis: MakeRedis) -> None:
    user = ["--user", "me", "on", ">mine", "~*", "&*", "+@all"]
    redis = make_redis("--requirepass", "secret", *user, with_port=True)
    assert await database(f"unix://:secret@{redis.path}?db=3") == "default 3 resp3"
    assert await database(f"redis+unix://me:mine@{redis.path}") == "me 0 resp3"
    assert await database(f"redis://me:mine@127.0.0.1:{redis.port}/2") == "me 2 resp3"


async def test_a_password_that_is_wrong_is_shown_nowhere(
    make_redis: MakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    redis = make_redis("--requirepass", "right", with_port=True)
    for url in (f"redis://:secret@127.0.0.1:{redis.port}", f"unix://me:secret@{redis.path}"):
        with pytest.raises(BrokerUnavailable, match="invalid username-password") as refused:
            await dial(parse_address(url), 20.0)
        assert "***" in str(refused.value)
        assert refused.value.__cause__ is None
        assert "secret" not in f"{refused.value!r} {refused.value} {caplog.text}"


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1", "unix:///nowhere", "redis+sentinel://127.0.0.1:1/name"]
)
async def test_where_nothing_listens_the_broker_is_not_available(url: str) -> None:
    with pytest.raises(BrokerUnavailable):
        await dial(parse_address(url), 20.0)


async def test_a_server_that_says_nothing_is_not_waited_for(make_redis: MakeRedis) -> None:
    redis = make_redis()
    redis.send(signal.SIGSTOP)
    with pytest.raises(BrokerUnavailable, match=r"no answer from .* within 0.1 s"):
        await dial(parse_address(redis.url), 0.1)


async def test_a_server_that_hangs_up_while_it_is_greeted_is_not_available() -> None:
    """On uvloop, each seventh sentinel that does so made redis-py raise a `RuntimeError`."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor() as threads:
        listening.settimeout(20)
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        for url in (f"redis://{address}/1", f"redis+sentinel://{address}/name"):
            for _ in range(100):
                greeted = threads.submit(greet, listening)
                with pytest.raises(BrokerUnavailable):
                    await dial(parse_address(url), 20.0)
                greeted.result()


def greet(listening: socket.socket) -> None:
    """Answer the first command of a connection, and reset the connection."""
    accepted, _ = listening.accept()
    accepted.recv(1000)
    accepted.sendall(b"%1\r\n$5\r\nproto\r\n:3\r\n")
    reset(accepted)


async def test_by_tls(make_redis: MakeRedis, tmp_path: Path, unused_port: int) -> None:
    make_certificate(tmp_path)
    files = ["--tls-cert-file", str(tmp_path / "cert"), "--tls-key-file", str(tmp_path / "key")]
    files += ["--tls-ca-cert-file", str(tmp_path / "cert"), "--tls-auth-clients", "no"]
    make_redis("--tls-port", str(unused_port), *files)
    url = f"rediss://127.0.0.1:{unused_port}"
    assert await database(f"{url}/1?ssl_ca_certs={tmp_path}/cert") == "default 1 resp3"
    with pytest.raises(BrokerUnavailable, match=r"(?i)certificate"):
        await dial(parse_address(url), 20.0)


async def test_sentinels_are_asked_for_the_primary(make_redis: MakeRedis, unused_port: int) -> None:
    redis = make_redis(with_port=True)
    sentinel = make_redis(sentinel_of=redis.port)
    url = f"redis+sentinel://127.0.0.1:{unused_port},127.0.0.1:{sentinel.port}/name/4"
    assert await database(url) == "default 4 resp3"
    told = rf"/other/4: No master found for 'other'; no answer from 127\.0\.0\.1:{unused_port}$"
    with pytest.raises(BrokerUnavailable, match=told):
        await dial(parse_address(url.replace("name", "other")), 20.0)
    alone = f"redis+sentinel://127.0.0.1:{sentinel.port}/other"
    with pytest.raises(BrokerUnavailable, match=r"No master found for 'other'$"):
        await dial(parse_address(alone), 20.0)


@pytest.mark.parametrize(
    ("option", "told"), [("db=77", "DB index is out of range"), ("color=red", "argument 'color'")]
)
async def test_a_url_that_the_server_or_the_library_does_not_know_is_told_once(
    redis: RedisServer, option: str, told: str
) -> None:
    with pytest.raises(Unsuitable, match=told):
        await dial(parse_address(f"{redis.url}?{option}"), 20.0)


# What the server must be


async def test_a_server_is_looked_at(redis: RedisServer) -> None:
    warnings: list[object] = []
    server = await look(redis.url, warn=lambda *text: warnings.append(text))
    assert (server.product, server.primary, server.replicas, server.cluster) == (
        "Redis", True, 0, False
    )  # fmt: skip
    assert server.version >= (7, 0)
    assert server.run
    assert server.client > 0
    assert warnings == []


async def test_an_eviction_that_drops_channels_is_warned_of(make_redis: MakeRedis) -> None:
    redis = make_redis("--maxmemory-policy", "allkeys-lru")
    warnings: list[str] = []
    await look(redis.url, warn=lambda text, *values: warnings.append(text % values))
    (line,) = warnings
    assert "expected maxmemory-policy noeviction, got allkeys-lru" in line


async def test_a_user_with_the_rights_that_are_documented_is_enough(make_redis: MakeRedis) -> None:
    rights = "~comet:* &comet:* +@read +@write +@scripting +@pubsub +@connection -@dangerous"
    redis = make_redis(*f"--user me on >mine {rights} +info +time +client|kill".split())
    server = await look(f"unix://me:mine@{redis.path}")
    assert server.run


async def test_what_a_user_may_not_do_is_told(make_redis: MakeRedis) -> None:
    redis = make_redis(
        *["--user", "me", "on", ">mine", "~comet:*", "&comet:*", "+@all", "-publish"]
    )
    told = r"allows too little: Redis says: NOPERM .*publish.*the user needs ~comet:\*"
    with pytest.raises(Unsuitable, match=told):
        await look(f"unix://me:mine@{redis.path}")


async def test_without_info_failovers_cannot_be_seen(make_redis: MakeRedis) -> None:
    redis = make_redis(*["--user", "me", "on", ">mine", "~*", "&*", "+@all", "-info"])
    warnings: list[str] = []
    url = f"unix://me:mine@{redis.path}"
    server = await look(url, warn=lambda text, *values: warnings.append(text % values))
    assert (server.version, server.client > 0) == ((), True)
    assert "failovers cannot be seen" in warnings[0]
    async with connected(url) as (connection, _):
        sentinel = parse_address("redis+sentinel://a/name")
        with pytest.raises(Unsuitable, match="which is needed with sentinels"):
            await examine(connection, sentinel, SCRIPTS, lambda *_: None)


async def test_a_node_of_a_cluster_is_refused(make_redis: MakeRedis) -> None:
    redis = make_redis("--cluster-enabled", "yes", with_port=True)
    with pytest.raises(Unsuitable, match="is a cluster"):
        await look(redis.url)


async def test_a_replica_is_not_available_for_now(make_redis: MakeRedis) -> None:
    redis = make_redis("--replicaof", "127.0.0.1 1")
    with pytest.raises(BrokerUnavailable, match="is a replica at the moment") as refused:
        await look(redis.url)
    assert not isinstance(refused.value, Unsuitable)


async def test_durable_is_refused_where_something_may_be_lost(redis: RedisServer) -> None:
    durable = Scripts(Keys(), durable=True)
    await look(redis.url, durable)
    async with connected(redis.url) as (connection, _):
        sentinel = parse_address("redis+sentinel://a/name")
        with pytest.raises(Unsuitable, match="to have no replicas"):
            await examine(connection, sentinel, durable, lambda *_: None)


@pytest.mark.parametrize(
    ("product", "version", "refused"),
    [
        ("redis", "6.2.14", True),
        ("redis", "7.0.0", False),
        ("valkey", "7.1.9", True),
        ("valkey", "7.2", False),
    ],
)
async def test_an_old_version_is_refused(
    redis: RedisServer, product: str, version: str, refused: bool
) -> None:
    async with connected(redis.url) as (connection, address):
        send = connection.send

        def pretend(call: Call[Any]) -> asyncio.Future[Any]:
            if call.command != ("INFO",):
                return send(call)
            found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            text = (
                f"redis_version:7.2.4\r\n{product}_version:{version}\r\nrun_id:x\r\nrole:master\r\n"
            )
            found.set_result(call.read(f"# Server\r\n{text}connected_slaves:0\r\n".encode()))
            return found

        connection.send = pretend  # type: ignore[method-assign]
        if refused:
            with pytest.raises(Unsuitable, match=r"expected Redis 7\.0 or Valkey 7\.2 or newer"):
                await examine(connection, address, SCRIPTS, lambda *_: None)
        else:
            assert (await examine(connection, address, SCRIPTS, lambda *_: None)).version


async def test_keys_of_another_format_are_left_alone(redis: RedisServer, client: Client) -> None:
    client.set(SCRIPTS.keys.format, 2)
    with pytest.raises(Unsuitable, match="format 1 below comet:, found 2"):
        await look(redis.url)
    await look(redis.url, Scripts(Keys("other")))


async def test_a_key_of_another_kind_in_place_of_the_format_is_told(
    redis: RedisServer, client: Client
) -> None:
    client.rpush(SCRIPTS.keys.format, 1)
    with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
        await look(redis.url)


async def test_a_server_without_info_is_told(make_redis: MakeRedis) -> None:
    redis = make_redis("--rename-command", "INFO", "SECRET")
    with pytest.raises(BrokerUnavailable, match="unknown command"):
        await look(redis.url)


async def test_a_user_that_may_not_set_keys_is_told(make_redis: MakeRedis) -> None:
    redis = make_redis("--user", "me", "on", ">mine", "~*", "&*", "+@all", "-set")
    with pytest.raises(Unsuitable, match=r"allows too little: .*'set'"):
        await look(f"redis+unix://me:mine@{redis.path}")


# How fast a worker connects again


class Turning:
    """A clock that passes whatever is slept."""

    def __init__(self) -> None:
        self.moment = 100.0

    def now(self) -> float:
        return self.moment

    async def sleep_until(self, moment: float) -> None:
        self.moment = max(self.moment, moment)


@pytest.mark.parametrize("choice", [min, max])
async def test_there_are_at_most_five_attempts_a_second(
    choice: Callable[[float, float], float],
) -> None:
    clock = Turning()
    pace = Pace(clock, choice)
    begins = []
    for _ in range(30):
        await pace.wait()
        begins.append(clock.now())
    pauses = [after - before for before, after in itertools.pairwise(begins)]
    assert begins[0] == 100.0
    assert min(pauses) >= 0.2 - 1e-9
    assert pauses[-1] == pytest.approx(0.2 if choice is min else 2.0)
    pace.succeeded()
    await pace.wait()
    assert clock.now() == pytest.approx(begins[-1] + 0.2)
