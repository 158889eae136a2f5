"""Postponed requests: the client is to repeat a request, as the broker or worker cannot tell now.

Owns which errors postpone a request, and the line in the log. Must not know what the client asks.
"""

from __future__ import annotations

import logging

from asgi_comet._runtime.seldom import Seldom
from asgi_comet.channels.guards import UnknownGuard
from asgi_comet.errors import BrokerUnavailable
from asgi_comet.log_events import event

__all__ = ["NotYet", "TryAgain", "not_yet", "try_again"]

_logger = logging.getLogger(__name__)
_seldom = Seldom(_logger, pause=60.0)


class TryAgain(Exception):
    """A request cannot be served at this moment: the client is to repeat it soon."""


class NotYet:
    """Has a client repeat its request soon if the broker, or this worker, cannot tell.

    No generator, which would cost several microseconds, a few times in each poll.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BrokerUnavailable | UnknownGuard):
            raise try_again(error) from None


_NOT_YET = NotYet()


def not_yet() -> NotYet:
    """Have a client repeat its request soon if the broker, or this worker, cannot tell."""
    return _NOT_YET


def try_again(error: Exception) -> TryAgain:
    """Log why a request is postponed; return the error to raise."""
    _seldom.warning(
        "a client was told to come back: %s",
        error,
        extra=event("request.postponed", reason=str(error)),
    )
    return TryAgain("try again in a moment")
