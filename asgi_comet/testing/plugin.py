"""The fixture `comet_app` for pytest, which finds this module by its entry point.

Imports nothing but pytest until the fixture is used. Must not know event loops: the application
runs inside the task of the test, whichever plugin makes that.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from asgi_comet.testing.running import CometApp

__all__ = ["comet_app", "pytest_configure"]

MARK = "comet(workers=1, base_url='https://testserver'): how the fixture comet_app runs"


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", MARK)


@pytest.fixture
def comet_app(request: pytest.FixtureRequest) -> Iterator[CometApp]:
    """The application of the fixture `app` or `make_app`, which runs as long as the test.

    The lifespan begins and ends inside the test's own task, by a wrapper around the test function.
    `@pytest.mark.comet(workers=2)` gives options of `asgi_comet.testing.run`; a fixture `comet`
    names the `Comet` where it cannot be found.
    """
    from asgi_comet.testing.hiring import Hiring  # noqa: PLC0415 - see above
    from asgi_comet.testing.running import CometApp  # noqa: PLC0415

    mark = request.node.get_closest_marker("comet")
    options: dict[str, Any] = {"workers": 1, **(mark.kwargs if mark is not None else {})}
    base = {"base_url": options.pop("base_url")} if "base_url" in options else {}
    make_app = _find(request, "make_app")
    app = _find(request, "app") if make_app is None else None
    if app is None and make_app is None:
        raise pytest.UsageError(
            "expected a fixture `app` that returns the application, or `make_app` that returns a "
            "function that makes it"
        )
    made = CometApp(
        Hiring(app, make_app=make_app, comet=_find(request, "comet"), **options), **base
    )
    test = request.node.obj
    if not inspect.iscoroutinefunction(test):
        raise pytest.UsageError(
            f"expected an async test for comet_app, got {request.node.name}: with "
            "fastapi.testclient use asgi_comet.testing.follow"
        )

    @wraps(test)
    async def run(*args: Any, **options: Any) -> None:
        async with made.running():
            await test(*args, **options)

    request.node.obj = run
    yield made
    request.node.obj = test


def _find(request: pytest.FixtureRequest, name: str) -> Any:
    """Return the value of a fixture; `None` if there is none of the name."""
    try:
        return request.getfixturevalue(name)
    except pytest.FixtureLookupError as error:
        if error.argname != name:
            raise
        return None
