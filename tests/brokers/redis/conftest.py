from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from asgi_comet.brokers.redis import presence, probing, sweeping
from tests.kit.redis import Client, RedisServer
from tests.kit.serving import reserved_port
from tests.kit.stage import ASYNC_BACKENDS

ASYNCIO, UVLOOP, _ = ASYNC_BACKENDS
ON_BOTH = {
    "test_broker",
    "test_connection",
    "test_contract",
    "test_dialing",
    "test_flusher",
    "test_recovery",
}
"""Modules of what depends on the event loop: connections, and what follows from their ends."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each coroutine on the event loops of its module; the contracts of people on uvloop."""
    if "anyio_backend" not in metafunc.fixturenames or _chooses(metafunc):
        return
    module = metafunc.module.__name__.rpartition(".")[2]
    one = UVLOOP if module.endswith("_contract") else ASYNCIO
    loops = [ASYNCIO, UVLOOP] if module in ON_BOTH else [one]
    metafunc.parametrize("anyio_backend", loops, indirect=True)


def _chooses(metafunc: pytest.Metafunc) -> bool:
    """Return whether a test names its event loop."""
    marks = metafunc.definition.iter_markers("parametrize")
    return any(mark.args[0] == "anyio_backend" for mark in marks)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop of a test, see `pytest_generate_tests`."""
    return request.param


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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers look at everything often."""
    monkeypatch.setattr(probing, "EVERY", 0.05)
    monkeypatch.setattr(sweeping, "EVERY", 0.05)
    monkeypatch.setattr(presence, "TOUCH", 0.05)
