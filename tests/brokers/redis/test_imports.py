"""The broker on Redis is imported when it is used, and says which libraries it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from asgi_comet import Comet
from asgi_comet.brokers import redis
from asgi_comet.brokers.redis import broker
from tests.kit.stage import KEY

PACKAGE = redis.__name__
Missing = Callable[..., None]


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Missing:
    """Have a module not be found, and those that import it imported again."""

    def remove(name: str, *again: str) -> None:
        monkeypatch.delitem(vars(redis), "RedisBroker", raising=False)
        for module in (broker.__name__, *(f"{PACKAGE}.{one}" for one in again)):
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)

    return remove


@pytest.mark.parametrize(
    ("module", "importer"), [("redis.asyncio.connection", "dialing"), ("hiredis", "connection")]
)
def test_a_library_that_is_missing_is_named(missing: Missing, module: str, importer: str) -> None:
    missing(module, "serving", importer)
    with pytest.raises(ImportError, match=r"libraries redis and hiredis: .*asgi_comet\[redis\]"):
        Comet(KEY, broker="redis://localhost")


def test_another_module_that_is_missing_is_another_error(missing: Missing) -> None:
    missing(f"{PACKAGE}.keys")
    with pytest.raises(ModuleNotFoundError, match=f"{PACKAGE}.keys"):
        Comet(KEY, broker="redis://localhost")
