"""Notifiers: who listens on what, and telling them.

Owns the tables of keys and client processes, which are indexed both ways, so that a process that
closes leaves nothing behind and a key that nobody listens on takes no memory. Must not know how a
notification is handed out, or how it is acknowledged.

Divergences from `Os_notif`:

1. The tables are emptied when a process closes, not when it is collected.
2. Clients read one channel per notifier, where they get key and value.
3. Who must not get a notification is a process or a user, where `notfor` had `Me` for the former.
4. A value goes through `prepare` for each who listens, and may itself be a function of the user.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from .channels import Channel
from .dispatch import Dispatch
from .encoding import make_encode
from .errors import InvalidKey, MessageTooLarge, ProcessClosed
from .feeds import Kind
from .hub import Hub
from .outboxes import Errand, Outbox, Recipe, Stage
from .processes import ClientProcess
from .receipts import Notification
from .runtime import Runtime

__all__ = ["Notifier", "Prepare"]

K = TypeVar("K")

Prepare = Callable[[Any, Any], Awaitable[Any] | Any]
"""Makes what a user gets of a value, given the user (`None` for a visitor) and the value."""


class Audience:
    """Those who listen on one key, and the same as a tuple as long as they do not change."""

    __slots__ = ("_snapshot", "members")

    def __init__(self) -> None:
        self.members: dict[Outbox, None] = {}
        self._snapshot: tuple[Outbox, ...] | None = None

    def add(self, outbox: Outbox) -> None:
        """Count one in."""
        self.members[outbox] = None
        self._snapshot = None

    def remove(self, outbox: Outbox) -> None:
        """Count one out."""
        del self.members[outbox]
        self._snapshot = None

    def snapshot(self) -> tuple[Outbox, ...]:
        """Return who listens now; notifications in between share it."""
        if self._snapshot is None:
            self._snapshot = tuple(self.members)
        return self._snapshot


class Notifier(Generic[K]):
    """Tells the client processes that listen on a key. Made by `Comet.notifier`.

    Each process reads one channel, `~name`, where it gets `{"key": …, "value": …}` for every key
    that it listens on. Thread-safe. Its length is the number of keys that anybody listens on.

    Source: `Os_notif`.
    """

    def __init__(self, hub: Hub, name: str, key: Any, prepare: Prepare | None) -> None:
        self.name: str = name
        self._hub = hub
        self._runtime = Runtime(
            loop=hub.loop, timers=hub.timers, clock=hub.clock, background=hub.background
        )
        self._type = key
        self._validate, self._encode_key = _make_key(key)
        self._encode_value = make_encode(None)
        self._stages = () if prepare is None else (Stage.prepare(prepare),)
        self._lock = threading.Lock()
        self._keys: dict[Hashable, Audience] = {}
        self._outboxes: dict[ClientProcess, Outbox] = {}
        self._dispatch = Dispatch(hub, name, self._forget)

    def __len__(self) -> int:
        return len(self._keys)

    def __bool__(self) -> bool:
        return True  # also while nobody listens

    def __repr__(self) -> str:
        return f"<Notifier {self.name!r} keys={len(self)} processes={len(self._outboxes)}>"

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

        def add(outbox: Outbox) -> None:
            if checked not in outbox.keys:
                outbox.keys.add(checked)
                self._keys.setdefault(checked, Audience()).add(outbox)

        return self._follow(self._process(process), add).channel

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
        return self._follow(self._process(process)).channel

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
        process = self._process(process)
        with self._lock:
            outbox = self._outboxes.get(process)
            if outbox is not None and checked in outbox.keys:
                outbox.keys.discard(checked)
                self._leave(checked, outbox)

    def listeners(self, key: K) -> list[ClientProcess]:
        """Return the client processes that listen on a key.

        Raises:
            InvalidKey: The key is not of the notifier's type, or not hashable.
        """
        checked = self._check(key)
        with self._lock:
            return [outbox.process for outbox in self._targets(checked)]

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
        stages = (Stage.value(value), *self._stages) if callable(value) else self._stages
        data = None if stages else self._encode(head, value)
        recipe = Recipe(data, value, stages, encode=lambda made: self._encode(head, made))
        notification = Notification(self._runtime)
        with self._lock:  # in the same order as they come and go
            targets = self._targets(checked)
            if targets:
                self._dispatch.add(Errand(targets, not_for, recipe, weakref.ref(notification)))
                return notification
        notification.finish()
        return notification

    def forget(self, process: ClientProcess) -> None:
        """A client process has closed: nothing of it stays. Thread-safe; idempotent."""
        outbox = self._outboxes.get(process)
        if outbox is not None:
            self._forget(outbox)

    def _follow(
        self, process: ClientProcess, act: Callable[[Outbox], None] | None = None
    ) -> Outbox:
        """Return what a client process has, made when first needed, after doing something to it."""
        process.check_open()
        with self._lock:
            outbox = self._outboxes.get(process)
            if outbox is None or outbox.feed.closed is not None:
                if outbox is not None:
                    self._remove(outbox)
                outbox = self._open(process)
            if act is not None:
                act(outbox)
        if process.closed:  # meanwhile, in another thread, which may have found nothing to forget
            self.forget(process)
            raise ProcessClosed(process.id)
        return outbox

    def _forget(self, outbox: Outbox) -> None:
        with self._lock:
            if not outbox.gone:  # two threads may have seen its end
                self._remove(outbox)

    def _remove(self, outbox: Outbox) -> None:
        for key in outbox.keys:
            self._leave(key, outbox)
        outbox.keys.clear()
        del self._outboxes[outbox.process]
        self._dispatch.drop(outbox)

    def _leave(self, key: Hashable, outbox: Outbox) -> None:
        audience = self._keys[key]
        audience.remove(outbox)
        if not audience.members:
            del self._keys[key]

    def _open(self, process: ClientProcess) -> Outbox:
        channel: Channel[Any] = self._hub.channels.open(
            Kind.PROCESS,
            process.place,
            None,
            name=self.name,
            size=self._hub.settings.history_size,
            type_=None,
        )
        outbox = self._outboxes[process] = Outbox(process, channel, channel._feed)
        return outbox

    def _process(self, process: ClientProcess | None) -> ClientProcess:
        return process if process is not None else self._hub.visits.current().process()

    def _targets(self, key: Hashable) -> tuple[Outbox, ...]:
        audience = self._keys.get(key)
        return () if audience is None else audience.snapshot()

    def _encode(self, head: bytes, value: Any) -> bytes:
        data = head + self._encode_value(self.id, value) + b"}"
        limit = self._hub.settings.message_limit
        if len(data) > limit:
            raise MessageTooLarge(self.id, limit, len(data))
        return data

    def _check(self, key: Any) -> Hashable:
        try:
            checked = self._validate(key)
        except ValidationError as error:
            told = "; ".join(problem["msg"] for problem in error.errors(include_url=False))
            raise InvalidKey(self.name, f"{_say(self._type)} ({told})", key) from None
        try:
            hash(checked)
        except TypeError:
            raise InvalidKey(self.name, "hashable", key) from None
        else:
            return checked  # type: ignore[no-any-return]  # it is hashable


def _make_key(type_: Any) -> tuple[Callable[[Any], Any], Callable[[str, Any], bytes]]:
    """Return what validates a key, and what encodes one."""
    encode = make_encode(type_)  # first: it refuses what pydantic does not know
    if type_ is None:
        return (lambda key: key), encode
    return TypeAdapter(type_).validate_python, encode


def _say(type_: Any) -> str:
    return type_.__name__ if isinstance(type_, type) else str(type_)
