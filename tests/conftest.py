from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from asgi_comet import Comet, Settings
from tests.kit.lanes import arrange
from tests.kit.measuring import measure_only_tests
from tests.kit.redis import RedisServer
from tests.kit.serving import Address
from tests.kit.stage import ASYNC_BACKENDS, TOKEN, Made, application
from tests.kit.workers import Workers

# How long an example takes says more about the machine than about us.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--workers",
        type=int,
        default=1,
        help="serve each Comet of `workers` by so many, joined by a Redis, behind a proxy",
    )


def pytest_configure() -> None:
    measure_only_tests()


@pytest.hookimpl(trylast=True)  # after tests have been left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--workers") > 1:
        _leave_out(config, items)
    arrange(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what several workers do not serve."""
    elsewhere = [item for item in items if not _is_for_several(item)]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in set(elsewhere)]
    for item in items:
        marker = item.get_closest_marker("one_worker")
        if marker is not None:
            item.add_marker(pytest.mark.skip(reason=marker.args[0]))


def _is_for_several(item: pytest.Item) -> bool:
    """Return whether `workers` serve a test; what starts its own is the same in both runs."""
    if item.get_closest_marker("own_workers") is not None:
        return False
    served = "workers" in getattr(item, "fixturenames", ())
    if not served and item.path.parent.name in ("contract", "integration"):
        raise pytest.UsageError(f"{item.nodeid}: neither `workers` nor `own_workers`")
    return served


def pytest_collection_finish() -> None:
    """What has been imported and collected stays: nobody is to search it for garbage.

    Otherwise a test that collects garbage takes 0.2 s each time, for the sake of 7,000 others.
    """
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # hypothesis may look for referrers now


@pytest.fixture(params=[ASYNC_BACKENDS[0], ASYNC_BACKENDS[2]])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def settings() -> Settings:
    return Settings(jitter=0)


@pytest.fixture(scope="session")
def workers(request: pytest.FixtureRequest) -> Workers:
    """One worker; several with the option `--workers`."""
    count: int = request.config.getoption("--workers")
    return Workers(count, None if count == 1 else request.getfixturevalue("shared_server"))


@pytest.fixture
def comet(workers: Workers, settings: Settings) -> Comet:
    return workers.make(admin=TOKEN, settings=settings)


@pytest.fixture
def server(workers: Workers, comet: Comet) -> Iterator[Address]:
    with workers.serve(application, comet) as address:
        yield address


@pytest.fixture
def make_server(workers: Workers) -> Iterator[Callable[..., Made]]:
    """Serve a `Comet` with other arguments; stopped at the end of the test."""
    with ExitStack() as stack:

        def make(**arguments: Any) -> Made:
            arguments.setdefault("settings", Settings(jitter=0))
            comet = workers.make(**arguments)
            return comet, stack.enter_context(workers.serve(application, comet))

        yield make


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
