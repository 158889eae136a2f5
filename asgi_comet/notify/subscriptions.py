"""The client processes of this worker that listen to the keys of one notifier.

Owns the tables of keys and client processes, indexed both ways, so that a closed process leaves no
entries, and a key without listeners takes no memory. Must not know what keys are, nor how a
notification is delivered.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.channels.channels import AllChannels, Channel
from asgi_comet.channels.kind import Kind
from asgi_comet.channels.registry import Registry
from asgi_comet.core.view import View
from asgi_comet.errors import ChannelClosed, ChannelFull, ProcessClosed
from asgi_comet.identity.process import Client, ClientProcess
from asgi_comet.log_events import event
from asgi_comet.notify.jobs import Job
from asgi_comet.notify.preparing import Preparation
from asgi_comet.notify.queue import Queue
from asgi_comet.notify.receipts import Notification, Subscription

__all__ = ["LocalQueue", "Subscriptions"]

_logger = logging.getLogger(__name__)


class Subscribers:
    """The subscriptions of one key, with a cached tuple of them."""

    __slots__ = ("_snapshot", "members")

    def __init__(self) -> None:
        self.members: dict[Subscription, None] = {}
        self._snapshot: tuple[Subscription, ...] | None = None

    def add(self, subscription: Subscription) -> None:
        """Add a subscription."""
        self.members[subscription] = None
        self._snapshot = None

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription."""
        del self.members[subscription]
        self._snapshot = None

    def snapshot(self) -> tuple[Subscription, ...]:
        """Return the current subscriptions; the tuple is shared until they change."""
        if self._snapshot is None:
            self._snapshot = tuple(self.members)
        return self._snapshot


class LocalQueue(Queue[Subscription]):
    """Delivers the notifications to the subscriptions of this worker.

    Args:
        runtime: Runs the tasks.
        name: The name of the notifier, for the log.
        channels: Publishes the messages.
        forget: Called with a subscription whose channel has ended.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        channels: Registry,
        forget: Callable[[Subscription], None],
    ) -> None:
        super().__init__(runtime, name)
        self._channels = channels
        self._forget = forget

    async def _hand_out(self, job: Job) -> None:
        slice_, data = self._slice, job.preparation.data
        for subscription in job.targets:
            if not job.skips(subscription.process):
                if data is not None and not subscription.pending:
                    self._publish(subscription, job, data)
                else:
                    self._enqueue(subscription, job)
            if slice_.used:
                await slice_.yield_()
        if data is None:
            await slice_.yield_()  # else a burst fills the subscriptions before the pools run

    def _publish(self, subscription: Subscription, job: Job, data: bytes | None) -> None:
        if data is None:  # not for this user
            return
        # Without a `Delivery`, which would not be awaited. Measured: it costs a third more.
        try:
            stored = self._channels.appending.append(subscription.feed, data)
        except (ChannelFull, ChannelClosed) as error:
            job.record(subscription, None)
            self._end(subscription, "is full" if isinstance(error, ChannelFull) else "has ended")
        else:
            job.record(subscription, stored)

    def _end(self, subscription: Subscription, why: str) -> None:
        if subscription.gone:
            return
        _logger.info(
            "a channel of notifier %r %s: its keys are forgotten",
            self._name,
            why,
            extra=event("subscription.ended", notifier=self._name, reason=why),
        )
        self._channels.ending.end(subscription.feed, "full")  # unless it has ended
        self._forget(subscription)


class Subscriptions:
    """The subscriptions of a notifier, and its notifications to them. Thread-safe.

    Args:
        name: The name of the notifier.
        channels: Makes the channels.
        size: How many messages a channel holds.
        runtime: Runs the delivery.

    Attributes:
        processes: The subscription of each client process.
        queue: Delivers the notifications.
    """

    def __init__(self, name: str, channels: AllChannels, size: int, runtime: Runtime) -> None:
        self.processes: dict[Client, Subscription] = {}
        self.queue: LocalQueue = LocalQueue(runtime, name, channels, self.forget)
        self._name = name
        self._channels = channels
        self._size = size
        self._runtime = runtime
        self._lock = threading.Lock()
        self._keys: dict[Hashable, Subscribers] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def listen(self, process: Client, key: Hashable) -> Channel[Any]:
        """Subscribe a client process to a key; return its channel."""

        def add(subscription: Subscription) -> None:
            if key not in subscription.keys:
                subscription.keys.add(key)
                self._keys.setdefault(key, Subscribers()).add(subscription)

        return self._follow(process, add).channel

    def channel(self, process: Client) -> Channel[Any]:
        """Return the channel of a client process, made when first needed."""
        return self._follow(process).channel

    def unlisten(self, process: Client, key: Hashable) -> None:
        """Unsubscribe a client process from a key. Idempotent."""
        with self._lock:
            subscription = self.processes.get(process)
            if subscription is not None and key in subscription.keys:
                subscription.keys.discard(key)
                self._leave(key, subscription)

    def listeners(self, key: Hashable) -> View[ClientProcess]:
        """Return the client processes that listen on a key."""
        with self._lock:
            targets = self._targets(key)
        return View([subscription.process for subscription in targets])

    def send(self, key: Hashable, preparation: Preparation, not_for: Any) -> Notification:
        """Notify the client processes that now listen to a key; see `Notifier.notify`."""
        with self._lock:  # so that no subscription comes or goes in between
            targets = self._targets(key)
            notification = Notification(self._runtime, done=not targets)
            if targets:
                self.queue.add(Job(targets, not_for, preparation, weakref.ref(notification)))
        return notification

    def forget_process(self, process: Client) -> None:
        """Remove a client process, which has closed. Idempotent."""
        subscription = self.processes.get(process)
        if subscription is not None:
            self.forget(subscription)

    def forget(self, subscription: Subscription) -> None:
        """Remove a subscription. Idempotent."""
        with self._lock:
            if not subscription.gone:  # two threads may call this
                self._remove(subscription)

    def _follow(
        self, process: Client, act: Callable[[Subscription], None] | None = None
    ) -> Subscription:
        """Return the subscription of a process, made when first needed, after applying `act`."""
        process.check_open()
        with self._lock:
            subscription = self.processes.get(process)
            if subscription is None or subscription.feed.closed is not None:
                if subscription is not None:
                    self._remove(subscription)
                subscription = self._open(process)
            if act is not None:
                act(subscription)
        if process.closed:  # in another thread, which may have come before the subscription
            self.forget_process(process)
            raise ProcessClosed(process.id)
        return subscription

    def _remove(self, subscription: Subscription) -> None:
        for key in subscription.keys:
            self._leave(key, subscription)
        subscription.keys.clear()
        del self.processes[subscription.process]
        subscription.drop()
        self._runtime.loop.run(subscription.call_off)

    def _leave(self, key: Hashable, subscription: Subscription) -> None:
        subscribers = self._keys[key]
        subscribers.remove(subscription)
        if not subscribers.members:
            del self._keys[key]

    def _open(self, process: Client) -> Subscription:
        channel: Channel[Any] = self._channels.open(
            Kind.PROCESS, process.place, None, name=self._name, size=self._size, type_=None
        )
        subscription = self.processes[process] = Subscription(process, channel, channel._feed)
        return subscription

    def _targets(self, key: Hashable) -> tuple[Subscription, ...]:
        subscribers = self._keys.get(key)
        return () if subscribers is None else subscribers.snapshot()
