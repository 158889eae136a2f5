"""Notifications to client processes of all workers, and their receipts.

The store has how far each client has read. A wait asks the store now and then, so it costs nothing
while the application waits for no receipt. Must not know how notifications are delivered.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.brokers.audience import Audience, Listening, Progress
from asgi_comet.brokers.logs import Stored
from asgi_comet.channels.publisher import Publisher
from asgi_comet.errors import BrokerUnavailable, ChannelClosed, CometError
from asgi_comet.identity.process import Client, ClientProcess
from asgi_comet.log_events import event
from asgi_comet.notify.receipts import Notification, Receipt, Wait
from asgi_comet.position import Position

__all__ = ["SharedNotification"]

_logger = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES = (0.25, 0.25, 0.5, 1.0)  # seconds before the first questions
PAUSE = 2.0  # seconds between two later ones


class SharedNotification(Notification):
    """A notification to client processes that any worker may serve; see `Notification`."""

    __slots__ = (
        *("_acknowledged", "_audience", "_client"),
        *("_error", "_name", "_publisher", "_told"),
    )

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        audience: Callable[[], Audience],
        client: Callable[[Listening], Client],
        publisher: Publisher | None = None,
    ) -> None:
        super().__init__(runtime)
        self._publisher = publisher
        self._name = name
        self._audience = audience
        self._client = client
        self._error: CometError | None = None
        self._acknowledged: set[str] = set()  # client processes, which may have closed since
        self._told: dict[Listening, Callable[[], Awaitable[Position]] | None] = {}

    def _fail(self, error: CometError) -> None:
        """Record that the notification was not handed out to all."""
        self._error = error

    def _record(self, outbox: Any, stored: Stored | None) -> None:
        one = outbox if isinstance(outbox, Listening) else outbox.listening
        assert not isinstance(stored, int)  # noqa: S101 - for the type checker
        if stored is None:
            self._told.setdefault(one, None)
        else:
            self._told[one] = stored

    def __await__(self) -> Generator[object, object, int]:
        return self._carry(self._count).__await__()

    async def received(self, timeout: float = 30.0) -> Receipt:  # noqa: ASYNC109 - on our clock
        """Wait for acknowledgements of all client processes, and return the receipt."""
        return await self._carry(partial(super().received, timeout))

    async def _carry(self, wait: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait in the loop of the lifespan, or in that of a process that does not serve."""
        return await (wait() if self._publisher is None else self._publisher.carry(wait))

    async def _handed_out(self) -> dict[Listening, Position | None]:
        """Return the positions once the store has the message for each client process."""
        await self._dispatched(Wait())
        found = await self._positions()
        if self._error is not None:
            raise self._error
        return found

    async def _count(self) -> int:
        self._check()
        found = await self._handed_out()
        return sum(position is not None for position in found.values())

    async def _positions(self) -> dict[Listening, Position | None]:
        """Return where the store has put the message; `None` where it has not."""
        found: dict[Listening, Position | None] = {}
        for one, stored in list(self._told.items()):
            try:
                found[one] = None if stored is None else await stored()
            except ChannelClosed:
                found[one] = None
        return found

    async def _watch(self, wait: Wait) -> None:
        found = await self._positions()
        left = {one: at for one, at in found.items() if at is not None}
        pauses = _pauses()
        while True:
            try:
                await self._look(left)
            except BrokerUnavailable as error:
                _logger.info(
                    "the receipt of a notification of %r waits: %s",
                    self._name,
                    error,
                    extra=event("broker.unavailable", notifier=self._name, reason=str(error)),
                )
            if not left or wait.done.is_set():
                break
            await self._pause(wait, next(pauses))
        wait.expire()

    async def _look(self, left: dict[Listening, Position]) -> None:
        """Remove those that have acknowledged, or never will."""
        progress = await self._ask(list(left))
        for (one, at), read in zip(list(left.items()), progress, strict=True):
            has_read = _has_read(read, at)
            if has_read:
                self._acknowledged.add(one.process)
            if has_read is not False:
                del left[one]

    async def _pause(self, wait: Wait, seconds: float) -> None:
        """Return after a while, or when the wait ends."""
        clock = self._runtime.clock

        async def sleep() -> None:
            await clock.sleep_until(clock.now() + seconds)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleep)
            await wait.done.wait()
            tasks.cancel_scope.cancel()

    async def _receipt(self) -> Receipt:
        if self._error is not None:
            raise self._error
        acknowledged, silent, missing = (list[ClientProcess]() for _ in range(3))
        found = await self._positions()
        progress = await self._ask(list(found))
        for (one, at), read in zip(found.items(), progress, strict=True):
            process = self._client(one)
            if at is not None and (one.process in self._acknowledged or _has_read(read, at)):
                acknowledged.append(process)
            else:
                (silent if at and _is_silent(read, at) else missing).append(process)
        return Receipt(tuple(acknowledged), tuple(silent), tuple(missing))

    async def _ask(self, processes: Sequence[Listening]) -> Sequence[Progress | None]:
        if not processes:
            return ()
        ids = [one.process for one in processes]
        return await self._audience().progress(f"~{self._name}", ids)


def _has_read(read: Progress | None, at: Position) -> bool | None:
    """Return whether a client has acknowledged a message; `None` if it never will."""
    if read is None or read.epoch != at.epoch or read.lacks(at.offset):
        return None
    return read.acknowledged >= at.offset


def _is_silent(read: Progress | None, at: Position) -> bool:
    """Return whether a message was sent to a client that has never acknowledged any."""
    if read is None or read.acknowledged:
        return False
    return read.epoch != at.epoch or not (read.sent < at.offset or read.lacks(at.offset))


def _pauses() -> Iterator[float]:
    yield from PAUSES
    while True:
        yield PAUSE
