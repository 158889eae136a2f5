"""The broker that a URL names.

Owns that a URL, which may hold a password, is shown nowhere, and that the library of a broker is
imported only where the broker is used.
"""

from __future__ import annotations

from importlib import import_module

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.memory import MemoryBroker

__all__ = ["choose_broker"]

SCHEMES = ("redis", "rediss", "unix", "redis+unix", "redis+sentinel", "rediss+sentinel")


def choose_broker(broker: Broker | str | None) -> Broker:
    """Return the broker that an application has chosen.

    Args:
        broker: A broker, its URL, or `None` or `""` for the memory of one worker.

    Raises:
        ImportError: The library of the broker is not installed.
        TypeError: `broker` is of another type.
        ValueError: The URL names no broker.
    """
    if broker is None or broker == "":
        return MemoryBroker()
    if isinstance(broker, Broker):
        return broker
    if not isinstance(broker, str):
        raise TypeError(
            f"expected broker to be a URL, a Broker or None, got {type(broker).__name__}"
        )
    scheme, separator, _ = broker.partition("://")
    if not separator or scheme.lower() not in SCHEMES:
        raise ValueError(
            "expected the URL of a broker to begin with "
            + ", ".join(f"{known}://" for known in SCHEMES)
            + f", got {_show(scheme) if separator else 'a text without ://'}; pass a broker on "
            "another store as an object"
        )
    return _make_redis(broker)


def _make_redis(url: str) -> Broker:
    made: Broker = import_module("asgi_comet.brokers.redis").RedisBroker(url)
    return made


def _show(scheme: str) -> str:
    """Return a scheme as it may be shown: what is no scheme may be a password."""
    plain = scheme.replace("+", "").isalnum() and len(scheme) <= 20
    return f"{scheme}://" if plain else "another scheme"
