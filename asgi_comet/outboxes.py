"""A notification on its way, and what one client process has still to get of a notifier.

Owns their state, and how a value becomes a message for one user. Must not know threads, tasks or
who listens on what.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from .brokers.base import Stored
from .calls import call, is_async
from .channels import Channel
from .feeds import Feed
from .interrupts import Interrupt
from .processes import ClientProcess

if TYPE_CHECKING:
    import weakref

    from .receipts import Notification, Wait

__all__ = ["Errand", "Outbox", "Recipe", "Rest", "Stage"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One function that a value goes through for a user.

    Attributes:
        function: Called with the user and the value so far, sync or async.
        in_loop: Whether it is async.
    """

    function: Callable[[Any, Any], Any]
    in_loop: bool

    @classmethod
    def prepare(cls, function: Callable[[Any, Any], Any]) -> Stage:
        """Make the stage of a `prepare`."""
        return cls(function, is_async(function))

    @classmethod
    def value(cls, function: Callable[[Any], Any]) -> Stage:
        """Make the first stage where the value is a function of the user."""
        return cls(lambda user, _: function(user), is_async(function))


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left to do for a user, in the loop.

    Attributes:
        value: The value so far, or what to await for it.
        index: How many stages are done.
    """

    value: Any
    index: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the message for a user is made.

    Attributes:
        data: The message, where it is the same for all.
        value: What the stages begin with, where it is not.
        stages: What makes the value for a user.
        encode: Writes what they give.
    """

    data: bytes | None
    value: Any
    stages: tuple[Stage, ...]
    encode: Callable[[Any], bytes]

    @property
    def in_loop(self) -> bool:
        """Whether it begins in the loop: what is the same for all needs no thread."""
        return self.data is not None or self.stages[0].in_loop

    def begin(self, user: Any) -> bytes | Rest | None:
        """Make the message for a user as far as it goes in a worker thread.

        Returns:
            The message; `None` if it is not for this one; or what has to go on in the loop.
        """
        value = self.value
        for index, stage in enumerate(self.stages):
            if stage.in_loop:
                return Rest(value, index)
            value = stage.function(user, value)
            if isawaitable(value):
                return Rest(value, index + 1)
            if value is None:
                return None
        return self.encode(value)

    async def go_on(self, user: Any, rest: Rest | None) -> bytes | None:
        """Make the message for a user, or what is left of that, in the loop.

        Returns:
            The message; `None` if it is not for this one.
        """
        if self.data is not None:
            return self.data
        value, index = (self.value, 0) if rest is None else (rest.value, rest.index)
        if index and isawaitable(value):
            value = await value
            if value is None:
                return None
        for stage in self.stages[index:]:
            if stage.in_loop:
                value = await stage.function(user, value)
            else:
                value = await call(stage.function, user, value)
            if value is None:
                return None
        return self.encode(value)


class Errand:
    """One notification on its way to many.

    Args:
        targets: Who listened when it was made.
        not_for: A client process or a user to leave out; `None` leaves out nobody.
        recipe: What they get.
        notification: Who is told, if anybody still wants to know.
    """

    __slots__ = ("left", "not_for", "notification", "recipe", "targets")

    def __init__(
        self,
        targets: tuple[Outbox, ...],
        not_for: Any,
        recipe: Recipe,
        notification: weakref.ref[Notification],
    ) -> None:
        self.targets: tuple[Outbox, ...] = targets
        self.not_for: Any = not_for
        self.recipe: Recipe = recipe
        self.notification: weakref.ref[Notification] = notification
        self.left: int = 1  # how many have still to be seen to, and who hands it out

    def skips(self, process: ClientProcess) -> bool:
        """Tell whether a client process is left out."""
        if self.not_for is None:
            return False
        if isinstance(self.not_for, ClientProcess):
            return process is self.not_for
        return bool(process.user == self.not_for)

    def record(self, outbox: Outbox, stored: Stored | None) -> None:
        """Tell who wants to know what was published to whom, see `Notification.record`."""
        notification = self.notification()
        if notification is not None:
            notification.record(outbox, stored)


class Outbox:
    """What one client process has of a notifier.

    Attributes:
        process: Whose it is.
        channel: Its channel, kept for `listen`.
        feed: Where messages go.
        keys: What it listens on.
        pending: What it has still to get, in order, the one being prepared first.
        rest: What is left of that one, if it was begun in a thread.
        gone: Whether it is forgotten: the process has closed, or its channel ended.
        interrupt: Calls off what is being prepared in the loop.
        waits: Who waits for it to acknowledge. Used only in the loop's thread.
    """

    __slots__ = (
        "channel",
        "feed",
        "gone",
        "interrupt",
        "keys",
        "pending",
        "process",
        "rest",
        "waits",
    )

    def __init__(self, process: ClientProcess, channel: Channel[Any], feed: Feed) -> None:
        self.process: ClientProcess = process
        self.channel: Channel[Any] = channel
        self.feed: Feed = feed
        self.keys: set[Hashable] = set()
        self.pending: deque[Errand] = deque()
        self.rest: Rest | None = None
        self.gone: bool = False
        self.interrupt: Interrupt | None = None
        self.waits: set[Wait] = set()
