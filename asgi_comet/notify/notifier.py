"""Notifiers: the client processes that listen to keys, and notifications to them.

Owns the checks and the encoding of keys and values. Must not know who listens, how a notification
is delivered, or how clients acknowledge.

Divergences from `Os_notif`:

1. Entries are removed when a process closes, not when it is garbage-collected.
2. Clients read one channel per notifier, with key and value in each message.
3. `not_for` leaves out a process or a user; `notfor` has `Me` for the former.
4. A value goes through `prepare` for each listener, and may itself be a function of the user.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.channels.annotations import name_type
from asgi_comet.channels.channels import AllChannels, Channel
from asgi_comet.channels.encoding import make_encode
from asgi_comet.core.view import View
from asgi_comet.errors import InvalidKey, MessageTooLarge
from asgi_comet.identity.process import Client, ClientProcess, client_of
from asgi_comet.notify.preparing import Preparation, Step
from asgi_comet.notify.receipts import Notification
from asgi_comet.notify.shared import Neighbourhood, SharedSubscriptions
from asgi_comet.notify.subscriptions import Subscriptions
from asgi_comet.settings import Settings

__all__ = ["Notifier", "Parts", "Prepare"]

K = TypeVar("K")

Prepare = Callable[[Any, Any], Awaitable[Any] | Any]
"""Return the value for one user, given the user (`None` for a visitor) and the notified value."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a `Comet` that its notifiers use.

    Attributes:
        channels: Makes the channels.
        settings: How long the history is, and how large a message may be.
        runtime: Runs the delivery.
        current: Returns the current client process; the argument is advice for the error.
        near: The ways to the other workers; `None` if notifiers know this worker only.
    """

    channels: AllChannels
    settings: Settings
    runtime: Runtime
    current: Callable[[str], Client]
    near: Neighbourhood | None


class Notifier(Generic[K]):
    """Notifies the client processes that listen to a key. Made by `Comet.notifier`.

    Each process reads one channel, `~name`, with `{"key": …, "value": …}` for every key that the
    process listens to. Thread-safe. `len()` is the number of keys with listeners.

    Source: `Os_notif`.
    """

    def __init__(self, name: str, key: Any, prepare: Prepare | None, parts: Parts) -> None:
        self.name: str = name
        self._limit = parts.settings.message_limit
        self._current = parts.current
        self._type = key
        self._validate, self._encode_key = _make_key(key)
        self._encode_value = make_encode(None)
        self._steps = () if prepare is None else (Step.prepare(prepare),)
        self._subscriptions = self._subscribe(parts)

    def __len__(self) -> int:
        return len(self._subscriptions)

    def __bool__(self) -> bool:
        return True  # even without listeners

    def __repr__(self) -> str:
        processes = len(self._subscriptions.processes)
        return f"<Notifier {self.name!r} keys={len(self)} processes={processes}>"

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
        return self._subscriptions.listen(self._process(process, "listen(key, process)"), checked)

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
        return self._subscriptions.channel(self._process(process, "channel(process)"))

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
        self._subscriptions.unlisten(self._process(process, "unlisten(key, process)"), checked)

    def listeners(self, key: K) -> View[ClientProcess]:
        """Return the client processes that listen on a key. Thread-safe.

        Returns:
            A view, as of now: a sequence, which can also be awaited or read with `async for`.

        Raises:
            InvalidKey: The key is not of the notifier's type, or not hashable.
        """
        return self._subscriptions.listeners(self._check(key))

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
        return self._subscriptions.send(checked, preparation, not_for)

    def _forget_process(self, process: Client) -> None:
        """Remove a client process, which has closed. Thread-safe; idempotent."""
        self._subscriptions.forget_process(process)

    def _subscribe(self, parts: Parts) -> Subscriptions | SharedSubscriptions:
        channels, size, runtime = parts.channels, parts.settings.history_size, parts.runtime
        if parts.near is None:
            return Subscriptions(self.name, channels, size, runtime)
        near, spell = parts.near, self._spell_key
        return SharedSubscriptions(self.name, channels, size, runtime, near=near, spell=spell)

    def _spell_key(self, key: Hashable) -> str:
        return self._encode_key(self.id, key).decode()

    def _process(self, process: ClientProcess | None, call: str) -> Client:
        return self._current(f"write .{call}") if process is None else client_of(process)

    def _encode(self, head: bytes, value: Any) -> bytes:
        data = head + self._encode_value(self.id, value) + b"}"
        if len(data) > self._limit:
            raise MessageTooLarge(self.id, self._limit, len(data))
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
