"""A broker on Redis or Valkey: scripts there give the messages of channels their offsets.

`RedisBroker` is imported at the first use, because the class needs the extra `asgi_comet[redis]`.
"""

from typing import TYPE_CHECKING

from asgi_comet._runtime.lazy import resolver

if TYPE_CHECKING:
    from asgi_comet.brokers.redis.broker import RedisBroker

__all__ = ["RedisBroker"]

_resolve = resolver(__name__, {"RedisBroker": "asgi_comet.brokers.redis.broker"})


def __getattr__(name: str) -> object:
    try:
        return _resolve(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"redis", "hiredis"}:
            raise
        raise ImportError(
            "a broker on Redis needs the libraries redis and hiredis: "
            "pip install 'asgi_comet[redis]'"
        ) from None
