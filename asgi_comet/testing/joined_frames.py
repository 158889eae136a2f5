"""The frames on their way to one of the workers that a `JoinedBroker` joins.

Owns the numbers by which a worker notices lost frames, and the faults of this way. Must not know
what a worker does with a frame.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from asgi_comet.core.messages import Message
from asgi_comet.testing.store import Event

__all__ = ["Frame", "Frames"]


@dataclass(frozen=True, slots=True)
class Frame:
    """News of a log for a worker: messages, or the end.

    Attributes:
        name: The channel.
        epoch: The epoch of the log.
        run: Messages with dense offsets.
        closed: The reason why the log has ended.
        event: News that is not of a window.
    """

    name: str
    epoch: str
    run: tuple[Message, ...] = ()
    closed: str | None = None
    event: Event | None = None


class Frames:
    """The frames to one worker.

    Args:
        lock: The lock of the store.

    Attributes:
        losing: How many of the next frames are lost.
        times: How often each frame arrives.
    """

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self.losing: int = 0
        self.times: int = 1
        self._lock = lock
        self._arrived: deque[tuple[int, Frame]] = deque()  # by their numbers, from 1 on
        self._held: list[tuple[int, Frame]] | None = None
        self._posted = 0  # frames sent to this worker
        self._seen = 0  # the highest number of a received frame

    def hold(self) -> None:
        """Hold back frames, until `let_go`."""
        self._held = []

    def let_go(self, *, shuffled: bool) -> None:
        """Let the frames arrive that were held back, in random order if `shuffled`."""
        with self._lock:
            held, self._held = self._held or [], None
            if shuffled:
                random.Random(0).shuffle(held)  # noqa: S311 - the same order in every run
            self._arrived.extend(held)

    def post(self, frame: Frame, *, down: bool) -> bool:
        """Send a frame; return whether it was not lost. Thread-safe."""
        with self._lock:
            self._posted += 1
            if self.losing or down:
                self.losing = max(self.losing - 1, 0)
                return False
            arrived = self._arrived if self._held is None else self._held
            arrived.extend([(self._posted, frame)] * self.times)
            return True

    def take(self) -> Iterator[tuple[Frame, bool]]:
        """Return the frames that have arrived, and whether frames before each were lost."""
        while self._arrived:
            number, frame = self._arrived.popleft()
            lost = number > self._seen + 1
            self._seen = max(self._seen, number)
            yield frame, lost

    def miss(self) -> bool:
        """Return whether the last frames were lost, once all others have arrived."""
        if self._arrived or self._held is not None:
            return False
        with self._lock:
            lost, self._seen = self._seen < self._posted, self._posted
            return lost
