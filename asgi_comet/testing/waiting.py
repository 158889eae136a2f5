"""Waiting for listeners."""

from __future__ import annotations

import threading
import time
from typing import Any

from asgi_comet.channels.channels import Channel
from asgi_comet.testing._inspect import count_everywhere, feed_of

PAUSE = 0.01  # seconds between two questions to all workers


def wait_for_listeners(channel: Channel[Any], count: int, timeout: float = 10.0) -> None:
    """Block until a channel has exactly that many listeners.

    For the thread of a test, while the server runs in another one. With a broker, the listeners of
    all workers count. Checks every change of the count in this worker; all workers together are
    asked again and again.

    Args:
        channel: The channel.
        count: How many listeners to wait for.
        timeout: Seconds to wait at most.

    Raises:
        TimeoutError: The count was not reached in time.
    """
    if not feed_of(channel).local:
        _wait_for_all(channel, count, timeout)
        return
    reached = threading.Event()

    def observe(listeners: int) -> None:
        if listeners == count:
            reached.set()

    feed = feed_of(channel)
    feed.observers = (
        *feed.observers,
        observe,
    )  # a new tuple: the loop may be iterating over the old one
    try:
        observe(channel.listeners)
        if not reached.wait(timeout):
            raise TimeoutError(
                f"expected {count} listeners on channel {channel.id!r} within {timeout:g} s, "
                f"got {channel.listeners}"
            )
    finally:
        feed.observers = tuple(one for one in feed.observers if one is not observe)


def _wait_for_all(channel: Channel[Any], count: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while (found := count_everywhere(channel)) != count:
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"expected {count} listeners on channel {channel.id!r} in all workers within "
                f"{timeout:g} s, got {found}"
            )
        time.sleep(PAUSE)
