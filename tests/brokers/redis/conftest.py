from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.redis import Client, RedisServer
from tests.kit.serving import reserved_port


@pytest.fixture(scope="session")
def shared_server() -> Iterator[RedisServer]:
    """A Redis for all tests that leave it as it was, but for its data."""
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        server = RedisServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def redis(shared_server: RedisServer) -> RedisServer:
    """An empty Redis."""
    with shared_server.client() as client:
        client.flushall()
    return shared_server


@pytest.fixture
def client(redis: RedisServer) -> Iterator[Client]:
    with redis.client() as client:
        yield client


@pytest.fixture
def make_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start a Redis with options; stopped at the end of the test."""
    with ExitStack() as stack:

        def make(*options: str, with_port: bool = False, sentinel_of: int = 0) -> RedisServer:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="redis"))
            if sentinel_of:
                config = Path(folder) / "sentinel.conf"
                config.write_text(f"sentinel monitor name 127.0.0.1 {sentinel_of} 1\n")
                options, with_port = (str(config), "--sentinel"), True
            port = stack.enter_context(reserved_port()) if with_port else 0
            server = RedisServer(Path(folder), *options, port=port)
            server.start()
            stack.callback(server.stop)
            return server

        yield make


@pytest.fixture
def at_end() -> Iterator[ExitStack]:
    """Cut the clients of a test that fails, whose open sockets would fail a later test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def unused_port() -> Iterator[int]:
    with reserved_port() as port:
        yield port
