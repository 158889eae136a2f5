"""Stop signals, handled before the server waits for its last request.

uvicorn ends the lifespan only after the last request has ended, and held requests do not end by
themselves. So while the lifespan runs, signal handlers are chained: ours first, then the server's.
Nothing is patched. Nothing is done if the loop is not in the main thread, or for a signal with its
default action.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["chained_signals"]

_logger = logging.getLogger(__name__)

STOP = (signal.SIGTERM, signal.SIGINT)

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def chained_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT, before the present handlers.

    Args:
        stop: Called in a signal handler: may only schedule work in the loop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chained: dict[signal.Signals, tuple[Handler, Handler]] = {}
    for number in STOP:
        previous = signal.getsignal(number)
        if callable(previous):
            ours = _chain(stop, previous)
            signal.signal(number, ours)
            chained[number] = ours, previous
    try:
        yield
    finally:
        for number, (ours, previous) in chained.items():
            if signal.getsignal(number) is ours:  # else another handler was chained after ours
                signal.signal(number, previous)


def _chain(stop: Callable[[], None], previous: Handler) -> Handler:
    def handle(number: int, frame: FrameType | None) -> None:
        stop()
        previous(number, frame)

    return handle
