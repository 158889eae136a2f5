"""Notifiers: the client processes that listen to keys, and notifications to them.

Owns the tables of keys and client processes, which are indexed both ways, so that a process that
closes leaves nothing behind, and a key without listeners takes no memory. Must not know how a
notification is handed out, or how clients acknowledge.

Divergences from `Os_notif`:

1. The tables are emptied when a process closes, not when it is collected.
2. Clients read one channel per notifier, where they get key and value.
3. `not_for` leaves out a process or a user, where `notfor` had `Me` for the former.
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
from asgi_comet.channels.channels import Channel, Channels
from asgi_comet.channels.encoding import make_encode
from asgi_comet.channels.kind import Kind
from asgi_comet.errors import InvalidKey, MessageTooLarge, ProcessClosed
from asgi_comet.identity.process import ClientProcess
from asgi_comet.notify.preparing import Preparation, Step
from asgi_comet.notify.queue import Queue
from asgi_comet.notify.receipts import Job, Notification, Subscription
from asgi_comet.settings import Settings

__all__ = ["Notifier", "Prepare"]

K = TypeVar("K")

Prepare = Callable[[Any, Any], Awaitable[Any] | Any]
"""Makes the value for one user, given the user (`None` for a visitor) and the notified value."""


class Subscribers:
    """The subscriptions of one key, and the same as a tuple until they change."""

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
        """Return the subscriptions of now; notifications share the tuple until they change."""
        if self._snapshot is None:
            self._snapshot = tuple(self.members)
        return self._snapshot


class Notifier(Generic[K]):
    """Tells the client processes that listen on a key. Made by `Comet.notifier`.

    Each process reads one channel, `~name`, where it gets `{"key": …, "value": …}` for every key
    that it listens on. Thread-safe. Its length is the number of keys that anybody listens on.

    Source: `Os_notif`.
    """

    def __init__(  # noqa: PLR0913 - three are the application's, four are rooms
        self,
        name: str,
        key: Any,
        prepare: Prepare | None,
        *,
        channels: Channels,
        settings: Settings,
        runtime: Runtime,
        current: Callable[[str], ClientProcess],
    ) -> None:
        self.name: str = name
        self._channels = channels
        self._settings = settings
        self._runtime = runtime
        self._current = current  # the request's; its argument is the call that an error suggests
        self._type = key
        self._validate, self._encode_key = _make_key(key)
        self._encode_value = make_encode(None)
        self._steps = () if prepare is None else (Step.prepare(prepare),)
        self._lock = threading.Lock()
        self._keys: dict[Hashable, Subscribers] = {}
        self._subscriptions: dict[ClientProcess, Subscription] = {}
        self._queue = Queue(runtime, channels, name, self._forget)

    def __len__(self) -> int:
        return len(self._keys)

    def __bool__(self) -> bool:
        return True  # also while nobody listens

    def __repr__(self) -> str:
        return f"<Notifier {self.name!r} keys={len(self)} processes={len(self._subscriptions)}>"

    @property
    def id(self) -> str:
        """The channel that clients subscribe to: `~name`."""
        return f"~{self.name}"

    def listen(self, key: K, process: ClientProcess | None = None) -> Channel[Any]:
        """Let a client process hear of a key from now on. Idempotent; thread-safe.

        Args:
            key: On what.
            process: Who; by default the current one.

        Returns:
            The process' channel `~name`, made when first needed, to be given to the page:
            `comet.script(process, messages=messages.listen(thread))`. Then nothing is lost while
            the page loads. If it was full, it is a new one.

        Raises:
            InvalidKey: The key is not of the notifier's type, or not hashable.
            NoClientProcess: There is no current one.
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
        """Return the channel of a client process, made when first needed, before it listens.

        Args:
            process: Whose; by default that of the current one.

        Raises:
            NoClientProcess: There is no current one.
            ProcessClosed: The client process has closed.
            NonUniqueChannelName: The process has a channel of that name, older than the notifier.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
        """
        return self._follow(self._process(process, "channel(process)")).channel

    def unlisten(self, key: K, process: ClientProcess | None = None) -> None:
        """Let a client process hear of a key no more. Idempotent; thread-safe.

        What was notified before still arrives. The channel stays for what it may listen on later.

        Args:
            key: On what.
            process: Who; by default the current one.

        Raises:
            InvalidKey: The key is not of the notifier's type, or not hashable.
            NoClientProcess: There is no current one.

        Source: `Os_notif.unlisten`.
        """
        checked = self._check(key)
        process = self._process(process, "unlisten(key, process)")
        with self._lock:
            subscription = self._subscriptions.get(process)
            if subscription is not None and checked in subscription.keys:
                subscription.keys.discard(checked)
                self._leave(checked, subscription)

    def listeners(self, key: K) -> list[ClientProcess]:
        """Return the client processes that listen on a key.

        Raises:
            InvalidKey: The key is not of the notifier's type, or not hashable.
        """
        checked = self._check(key)
        with self._lock:
            return [subscription.process for subscription in self._targets(checked)]

    def notify(
        self,
        key: K,
        value: Any | Callable[[Any], Awaitable[Any] | Any],
        *,
        not_for: Any = None,
    ) -> Notification:
        """Tell those who listen on a key now. Thread-safe; never waits; from anywhere.

        What one caller notifies arrives in that order. A sync function runs in a worker thread, an
        async one in the lifespan's event loop for at most 10 s; neither has a current request. One
        that raises is logged, and only that process does not get the notification. A process whose
        client did not ask for what it holds, or for which 1,000 notifications wait to be prepared,
        is told `full`, and forgotten until it listens again.

        Args:
            key: On what.
            value: Any JSON value, encoded once for all; or a function of the user, `None` for a
                visitor, sync or async, called for each who listens. `None` as its result means not
                for this one.
            not_for: Who is left out: a client process (the tab that caused it), or a user, which
                is all of that user's processes.

        Returns:
            The notification: `await` it for the number of client processes that it went to, ask it
            who has `received` it, or drop it.

        Raises:
            InvalidKey: The key is not of the notifier's type, or not hashable.
            InvalidMessage: The value, or the key, has no JSON form.
            MessageTooLarge: It is over `Settings.message_limit` bytes as JSON.
            NotifierFull: 10,000 notifications, or 64 MiB, wait to be handed out.

        Source: `Os_notif.notify`.
        """
        checked = self._check(key)
        head = b'{"key":' + self._encode_key(self.id, checked) + b',"value":'
        steps = (Step.value(value), *self._steps) if callable(value) else self._steps
        data = None if steps else self._encode(head, value)
        preparation = Preparation(data, value, steps, encode=lambda made: self._encode(head, made))
        notification = Notification(self._runtime)
        with self._lock:  # so that no subscription comes or goes in between
            targets = self._targets(checked)
            if targets:
                self._queue.add(Job(targets, not_for, preparation, weakref.ref(notification)))
                return notification
        notification.finish()
        return notification

    def forget(self, process: ClientProcess) -> None:
        """Remove a client process, which has closed. Thread-safe; idempotent."""
        subscription = self._subscriptions.get(process)
        if subscription is not None:
            self._forget(subscription)

    def _follow(
        self, process: ClientProcess, act: Callable[[Subscription], None] | None = None
    ) -> Subscription:
        """Return the subscription of a process, made when first needed; `act` changes it before."""
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
            self.forget(process)
            raise ProcessClosed(process.id)
        return subscription

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            if not subscription.gone:  # two threads may have seen its end
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

    def _open(self, process: ClientProcess) -> Subscription:
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

    def _process(self, process: ClientProcess | None, call: str) -> ClientProcess:
        return process if process is not None else self._current(f"write .{call}")

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
    encode = make_encode(type_)  # first: it refuses what pydantic does not know
    if type_ is None:
        return (lambda key: key), encode
    return TypeAdapter(type_).validate_python, encode
