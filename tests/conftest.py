from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest

from asgi_comet import Comet, Settings
from tests.kit.measuring import measure_only_tests
from tests.kit.serving import Address, serve
from tests.kit.stage import ASYNC_BACKENDS, KEY, TOKEN, Made, application

# How long an example takes says more about the machine than about us.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")


def pytest_configure() -> None:
    measure_only_tests()


def pytest_collection_finish() -> None:
    """What has been imported and collected stays: nobody is to search it for garbage.

    Otherwise a test that collects garbage takes 0.2 s each time, for the sake of 7,000 others.
    """
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # hypothesis may look for referrers now


@pytest.fixture(params=ASYNC_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def settings() -> Settings:
    return Settings(jitter=0)


@pytest.fixture
def comet(settings: Settings) -> Comet:
    return Comet(KEY, admin=TOKEN, settings=settings)


@pytest.fixture
def server(comet: Comet) -> Iterator[Address]:
    with serve(application(comet)) as address:
        yield address


@pytest.fixture
def make_server() -> Iterator[Callable[..., Made]]:
    """Serve a `Comet` with other arguments; stopped at the end of the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def make(**arguments: Any) -> Made:
            arguments.setdefault("settings", Settings(jitter=0))
            comet = Comet(KEY, **arguments)
            return comet, stack.enter_context(serve(application(comet)))

        yield make
