"""Notifiers: the client processes that listen to keys, and notifications to them.

Owns the tables of keys and client processes, indexed both ways, so that a closed process leaves no
entries, and a key without listeners takes no memory. Must not know how a notification is delivered,
or how clients acknowledge.

Divergences from `Os_notif`:

1. Entries are removed when a process closes, not when it is garbage-collected.
2. Clients read one channel per notifier, with key and value in each message.
3. `not_for` leaves out a process or a user; `notfor` has `Me` for the former.
4. A value goes through `prepare` for each listener, and may itself be a function of the user.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.channels.annotations import name_type
from asgi_comet.channels.channels import AllChannels, Channel
from asgi_comet.channels.encoding import make_encode
from asgi_comet.channels.kind import Kind
from asgi_comet.core.view import View
from asgi_comet.errors import InvalidKey, MessageTooLarge, ProcessClosed
from asgi_comet.identity.process import Client, ClientProcess, client_of
from asgi_comet.notify.preparing import Preparation, Step
from asgi_comet.notify.queue import Queue
from asgi_comet.notify.receipts import Job, Notification, Subscription
from asgi_comet.settings import Settings

__all__ = ["Notifier", "Prepare"]

K = TypeVar("K")

Prepare = Callable[[Any, Any], Awaitable[Any] | Any]
"""Return the value for one user, given the user (`None` for a visitor) and the notified value."""


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


class Notifier(Generic[K]):
    """Notifies the client processes that listen to a key. Made by `Comet.notifier`.

    Each process reads one channel, `~name`, with `{"key": …, "value": …}` for every key that the
    process listens to. Thread-safe. `len()` is the number of keys with listeners.

    Source: `Os_notif`.
    """

    def __init__(  # noqa: PLR0913 - three are the application's, four are rooms
        self,
        name: str,
        key: Any,
        prepare: Prepare | None,
        *,
        channels: AllChannels,
        settings: Settings,
        runtime: Runtime,
        current: Callable[[str], Client],
    ) -> None:
        self.name: str = name
        self._channels = channels
        self._settings = settings
        self._runtime = runtime
        self._current = current  # the current process; the argument is advice for the error
        self._type = key
        self._validate, self._encode_key = _make_key(key)
        self._encode_value = make_encode(None)
        self._steps = () if prepare is None else (Step.prepare(prepare),)
        self._lock = threading.Lock()
        self._keys: dict[Hashable, Subscribers] = {}
        self._subscriptions: dict[Client, Subscription] = {}
        self._queue = Queue(runtime, channels, name, self._forget)

    def __len__(self) -> int:
        return len(self._keys)

    def __bool__(self) -> bool:
        return True  # even without listeners

    def __repr__(self) -> str:
        return f"<Notifier {self.name!r} keys={len(self)} processes={len(self._subscriptions)}>"

    @property
    def id(self) -> str:
        """The channel that clients subscribe to: `~name`."""
        return f"~{self.name}"

    def listen(self, key: K, process: ClientProcess | None = None) -> Channel[Any]:
        """Subscribe a client process to a key. Idempotent; thread-safe.

        Args:
            key: The key.
            process: The client process; by default the current one.

        Returns:
            The channel `~name` of the process, made when first needed. Give it to the page:
            `comet.script(process, messages=messages.listen(thread))`, so that no notification is
            lost while the page loads. A new channel, if the old one was full.

        Raises:
            InvalidKey: The key is not of the notifier's type, or not hashable.
            NoClientProcess: There is no current one.
            TypeError: `process` is no client process.
            ProcessClosed: The client process has closed.
            NonUniqueChannelName: The process has a channel of that name, older than the notifier.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.

        Source: `Os_notif.listen`.
        """
        checked = self._check(key)

        def add(subscription: Subscription) -> None:
            if checked not in subscription.keys:
                subscription.keys.add(checked)
                self._keys.setdefault(checked, Subscribers()).add(subscription)

        return self._follow(self._process(process, "listen(key, process)"), add).channel

    def channel(self, process: ClientProcess | None = None) -> Channel[Any]:
        """Return the channel of a client process, made when first needed, also before `listen`.

        Args:
            process: The client process; by default the current one.

        Raises:
            NoClientProcess: There is no current one.
            TypeError: `process` is no client process.
            ProcessClosed: The client process has closed.
            NonUniqueChannelName: The process has a channel of that name, older than the notifier.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
        """
        return self._follow(self._process(process, "channel(process)")).channel

    def unlisten(self, key: K, process: ClientProcess | None = None) -> None:
        """Unsubscribe a client process from a key. Idempotent; thread-safe.

        Earlier notifications still arrive. The channel stays open for other keys.

        Args:
            key: The key.
            process: The client process; by default the current one.

        Raises:
            InvalidKey: The key is not of the notifier's type, or not hashable.
            NoClientProcess: There is no current one.
            TypeError: `process` is no client process.

        Source: `Os_notif.unlisten`.
        """
        checked = self._check(key)
        process = self._process(process, "unlisten(key, process)")
        with self._lock:
            subscription = self._subscriptions.get(process)
            if subscription is not None and checked in subscription.keys:
                subscription.keys.discard(checked)
                self._leave(checked, subscription)

    def listeners(self, key: K) -> View[ClientProcess]:
        """Return the client processes that listen on a key. Thread-safe.

        Returns:
            A view, as of now: a sequence, which can also be awaited or read with `async for`.

        Raises:
            InvalidKey: The key is not of the notifier's type, or not hashable.
        """
        checked = self._check(key)
        with self._lock:
            targets = self._targets(checked)
        return View([subscription.process for subscription in targets])

    def notify(
        self,
        key: K,
        value: Any | Callable[[Any], Awaitable[Any] | Any],
        *,
        not_for: Any = None,
    ) -> Notification:
        """Notify the client processes that now listen to a key. Thread-safe; never waits.

        Notifications of one caller arrive in the order of the calls. A sync function runs in a
        worker thread, an async one in the lifespan's event loop for at most 10 s; neither has a
        current request. If a function raises, the error is logged, and only that process does not
        get the notification. A process whose channel is full of unsent messages, or for which 1,000
        notifications wait to be prepared, is told `full` and removed until it listens again.

        Args:
            key: The key.
            value: Any JSON value, encoded once for all; or a function of the user, `None` for a
                visitor, sync or async, called for each listening process. The result `None` skips
                the process.
            not_for: A client process to leave out (the tab that caused the notification), or a
                user, whose processes are all left out.

        Returns:
            The notification: `await` it for the number of client processes that it went to, `await`
            its `received()` for the receipt, or drop it.

        Raises:
            InvalidKey: The key is not of the notifier's type, or not hashable.
            InvalidMessage: The value, or the key, has no JSON form.
            MessageTooLarge: The message has more than `Settings.message_limit` bytes as JSON.
            NotifierFull: 10,000 notifications, or 64 MiB, wait to be delivered.

        Source: `Os_notif.notify`.
        """
        checked = self._check(key)
        head = b'{"key":' + self._encode_key(self.id, checked) + b',"value":'
        steps = (Step.value(value), *self._steps) if callable(value) else self._steps
        data = None if steps else self._encode(head, value)
        preparation = Preparation(data, value, steps, encode=lambda made: self._encode(head, made))
        with self._lock:  # so that no subscription comes or goes in between
            targets = self._targets(checked)
            notification = Notification(self._runtime, done=not targets)
            if targets:
                self._queue.add(Job(targets, not_for, preparation, weakref.ref(notification)))
        return notification

    def _forget_process(self, process: Client) -> None:
        """Remove a client process, which has closed. Thread-safe; idempotent."""
        subscription = self._subscriptions.get(process)
        if subscription is not None:
            self._forget(subscription)

    def _follow(
        self, process: Client, act: Callable[[Subscription], None] | None = None
    ) -> Subscription:
        """Return the subscription of a process, made when first needed, after applying `act`."""
        process.check_open()
        with self._lock:
            subscription = self._subscriptions.get(process)
            if subscription is None or subscription.feed.closed is not None:
                if subscription is not None:
                    self._remove(subscription)
                subscription = self._open(process)
            if act is not None:
                act(subscription)
        if process.closed:  # in another thread, which may have come before the subscription
            self._forget_process(process)
            raise ProcessClosed(process.id)
        return subscription

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            if not subscription.gone:  # two threads may call this
                self._remove(subscription)

    def _remove(self, subscription: Subscription) -> None:
        for key in subscription.keys:
            self._leave(key, subscription)
        subscription.keys.clear()
        del self._subscriptions[subscription.process]
        subscription.drop()
        self._runtime.loop.run(subscription.call_off)

    def _leave(self, key: Hashable, subscription: Subscription) -> None:
        subscribers = self._keys[key]
        subscribers.remove(subscription)
        if not subscribers.members:
            del self._keys[key]

    def _open(self, process: Client) -> Subscription:
        channel: Channel[Any] = self._channels.open(
            Kind.PROCESS,
            process.place,
            None,
            name=self.name,
            size=self._settings.history_size,
            type_=None,
        )
        subscription = self._subscriptions[process] = Subscription(process, channel, channel._feed)
        return subscription

    def _process(self, process: ClientProcess | None, call: str) -> Client:
        return self._current(f"write .{call}") if process is None else client_of(process)

    def _targets(self, key: Hashable) -> tuple[Subscription, ...]:
        subscribers = self._keys.get(key)
        return () if subscribers is None else subscribers.snapshot()

    def _encode(self, head: bytes, value: Any) -> bytes:
        data = head + self._encode_value(self.id, value) + b"}"
        limit = self._settings.message_limit
        if len(data) > limit:
            raise MessageTooLarge(self.id, limit, len(data))
        return data

    def _check(self, key: Any) -> Hashable:
        try:
            checked = self._validate(key)
        except ValidationError as error:
            told = "; ".join(problem["msg"] for problem in error.errors(include_url=False))
            raise InvalidKey(self.name, f"{name_type(self._type)} ({told})", key) from None
        try:
            hash(checked)
        except TypeError:
            raise InvalidKey(self.name, "hashable", key) from None
        else:
            return checked  # type: ignore[no-any-return]  # it is hashable


def _make_key(type_: Any) -> tuple[Callable[[Any], Any], Callable[[str, Any], bytes]]:
    """Return two functions: one validates a key, the other encodes it."""
    encode = make_encode(type_)  # first: refuses types that pydantic does not know
    if type_ is None:
        return (lambda key: key), encode
    return TypeAdapter(type_).validate_python, encode
