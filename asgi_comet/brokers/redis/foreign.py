"""Keys below our prefix that another program uses, so that Redis refuses the scripts.

Owns that a worker goes on with the rest, and the line in the log. Must not know the scripts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from asgi_comet._runtime.seldom import Seldom
from asgi_comet.brokers.redis.connection import ReplyError
from asgi_comet.log_events import event

__all__ = ["passing_over"]

PAUSE = 60.0  # seconds between two lines

_seldom = Seldom(logging.getLogger(__name__), pause=PAUSE)


@contextmanager
def passing_over(partition: int) -> Iterator[None]:
    """Leave the context, instead of ending the connection, at a key that is not ours.

    Args:
        partition: The partition of the keys.
    """
    try:
        yield
    except ReplyError as error:
        if error.code != "WRONGTYPE":
            raise
        text = "another program uses a key of partition %d, which is therefore not cleaned up: %s"
        _seldom.warning(text, partition, error, extra=event("key.foreign", reason=str(error)))
