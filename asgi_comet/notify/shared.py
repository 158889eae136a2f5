"""The client processes of all workers that listen to the keys of one notifier.

Owns what this worker tells the store of them. Must not know what keys are, nor how a notification
is delivered.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.tasks import Background
from asgi_comet.brokers.audience import Audience, Listening
from asgi_comet.brokers.base import Broker
from asgi_comet.channels.channels import AllChannels, Channel
from asgi_comet.channels.kind import Kind
from asgi_comet.core.view import View
from asgi_comet.errors import BrokerUnavailable, ChannelClosed, CometError
from asgi_comet.identity.announcing import Announcement, Job
from asgi_comet.identity.asking import Asking, Question
from asgi_comet.identity.copies import Copies
from asgi_comet.identity.process import Client, ClientProcess
from asgi_comet.log_events import event
from asgi_comet.notify.errands import PAUSE, Errand, Sender, SharedQueue
from asgi_comet.notify.preparing import Preparation
from asgi_comet.notify.shared_receipts import SharedNotification
from asgi_comet.settings import Prefetch

__all__ = ["Neighbourhood", "SharedSubscriptions"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The parts by which a notifier knows the client processes of other workers.

    Attributes:
        broker: Has the store.
        copies: The copies of this worker.
        prefetch: See `Settings.prefetch`.
    """

    broker: Broker
    copies: Copies
    prefetch: Prefetch

    def audience(self) -> Audience:
        """Return the client processes by key."""
        people = self.broker.people
        assert people is not None  # noqa: S101 - for the type checker
        return people.audience

    def client(self, one: Listening) -> Client:
        """Return the copy of a client process."""
        return self.copies.copy_of(one.process, one.session, one.user)


class SharedSubscriptions:
    """The client processes that listen to a notifier, and notifications to them. Thread-safe.

    Args:
        name: The name of the notifier.
        channels: Makes the channels.
        size: How many messages a channel holds.
        runtime: Runs the delivery.
        near: The ways to the other workers.
        spell: Returns the text of a key.

    Attributes:
        processes: The keys of the client processes that began to listen in this worker.
        queue: Delivers the notifications.
    """

    def __init__(
        self,
        name: str,
        channels: AllChannels,
        size: int,
        runtime: Runtime,
        *,
        near: Neighbourhood,
        spell: Callable[[Hashable], str],
    ) -> None:
        self.processes: WeakKeyDictionary[Client, set[Hashable]] = WeakKeyDictionary()
        self._name = name
        self._channels = channels
        self._size = size
        self._runtime = replace(runtime, background=_Jobs(runtime, channels))
        self._asking = Asking(self._runtime, near.prefetch, serves=False)
        self._near = near
        self._spell = spell
        self._pid = 0
        self._begin()

    def _begin(self) -> None:
        """Make what must not be that of a process before a fork. Idempotent in a process."""
        if self._pid == os.getpid():
            return
        near = self._near
        sender = Sender(self._name, near.audience, near.client, near.broker.patience)
        self.queue: SharedQueue = SharedQueue(self._runtime, sender)
        self._lock = threading.Lock()
        self._changes: list[Announcement] = []  # of those that listen, on their way to the store
        self._pid = os.getpid()

    def __len__(self) -> int:
        with self._lock:
            return len(set[Hashable]().union(*self.processes.values()))

    def listen(self, process: Client, key: Hashable) -> Channel[Any]:
        """Subscribe a client process to a key; return its channel. The answer waits for both."""
        channel, text = self.channel(process), self._spell(key)
        with self._lock:
            self.processes.setdefault(process, set()).add(key)

        async def listen() -> None:
            try:
                await self._listen(process, channel, text)
            except ChannelClosed:  # in another worker
                self._channels.ending.end(channel._feed, "full", tell=False)
                await self._listen(process, self.channel(process), text)

        self._announce(process, listen)
        return channel

    async def _listen(self, process: Client, channel: Channel[Any], text: str) -> None:
        await channel.ready()
        await self._near.audience().listen(process.id, self._name, text)

    def _announce(self, process: Client, job: Job) -> None:
        """Tell the store of a client process; where it is away, again and again for a while."""
        clock = self._runtime.clock
        until = clock.now() + self._near.broker.patience

        async def insist() -> None:
            while True:
                try:
                    return await job()
                except BrokerUnavailable as error:
                    if clock.now() >= until:
                        self._report_unknown(error)
                        raise
                await clock.sleep_until(clock.now() + PAUSE)

        change = self._near.copies.announce(process, insist)
        with self._lock:
            self._changes = [*(one for one in self._changes if not one.done), change]

    def channel(self, process: Client) -> Channel[Any]:
        """Return the channel of a client process, made when first needed."""
        process.check_open()
        return self._channels.open(
            Kind.PROCESS, process.place, None, name=self._name, size=self._size, type_=None
        )

    def _report_unknown(self, error: BrokerUnavailable) -> None:
        _logger.error(
            "the keys of notifier %r are not known to all: %s",
            self._name,
            error,
            extra=event("change.missed", notifier=self._name, reason=str(error)),
        )

    def unlisten(self, process: Client, key: Hashable) -> None:
        """Unsubscribe a client process from a key. Idempotent. The answer waits for it."""
        with self._lock:
            self.processes.get(process, set()).discard(key)
        text = self._spell(key)

        async def unlisten() -> None:
            await self._near.audience().unlisten(process.id, self._name, text)

        self._announce(process, unlisten)

    def listeners(self, key: Hashable) -> View[ClientProcess]:
        """Return the client processes that listen on a key, in all workers."""
        with self._lock:
            here = [process for process, keys in self.processes.items() if key in keys]
        called = f"{self._name}.listeners(key)"
        return View([*here], Question(self._asking, called, partial(self._ask, key)))

    def send(self, key: Hashable, preparation: Preparation, not_for: Any) -> SharedNotification:
        """Notify the client processes that listen to a key; see `Notifier.notify`."""
        self._begin()
        near, publisher = self._near, self._channels.appending.publisher
        notification = SharedNotification(
            self._runtime, self._name, near.audience, near.client, publisher
        )
        kept: ref[SharedNotification] = ref(notification)

        def fail(error: CometError) -> None:
            found = kept()
            if found is not None:
                found._fail(error)

        errand = Errand((), not_for, preparation, kept, key=self._spell(key), failed=fail)
        if not isinstance(not_for, ClientProcess):
            errand.left_out = near.copies.spell(not_for)
        errand.until = self._runtime.clock.now() + near.broker.patience
        with self._lock:
            errand.after = [one for one in self._changes if not one.done]
        self.queue.add(errand)
        self._channels.appending.note_unserved()
        if publisher is not None:
            publisher.watch(notification._handed_out)
        return notification

    def forget_process(self, process: Client) -> None:
        """Forget a client process, which has closed. Idempotent."""
        with self._lock:
            self.processes.pop(process, None)
        self._runtime.loop.run(partial(self.queue.drop, process.id))

    async def _ask(self, key: Hashable) -> list[ClientProcess]:
        publisher = self._channels.appending.publisher
        found = partial(self._find, key)
        return await (found() if publisher is None else publisher.carry(found))

    async def _find(self, key: Hashable) -> list[ClientProcess]:
        parts = self._near.audience().listeners(self._name, self._spell(key))
        return [self._near.client(one) async for part in parts for one in part]


class _Jobs(Background):
    """The background tasks of a notifier, which run without a lifespan in `Comet.publishing`."""

    def __init__(self, runtime: Runtime, channels: AllChannels) -> None:
        super().__init__(runtime.loop)
        self._background = runtime.background
        self._channels = channels

    def start(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run a job soon."""
        (self._channels.appending.publisher or self._background).start(job)
