"""Preparation: the steps from a notified value to the message for one user.

Must not know threads, tasks, or which client processes listen to which keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import isawaitable, iscoroutine
from typing import Any

from asgi_comet._runtime.functions import call, is_async

__all__ = ["Preparation", "Step", "Unfinished"]


@dataclass(frozen=True, slots=True)
class Step:
    """One function that changes the value for a user.

    Attributes:
        function: Called with the user and the value so far, sync or async.
        in_loop: Whether the function is async.
    """

    function: Callable[[Any, Any], Any]
    in_loop: bool

    @classmethod
    def prepare(cls, function: Callable[[Any, Any], Any]) -> Step:
        """Make the step of a `prepare`."""
        return cls(function, is_async(function))

    @classmethod
    def value(cls, function: Callable[[Any], Any]) -> Step:
        """Make the first step if the value is a function of the user."""
        return cls(lambda user, _: function(user), is_async(function))


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A preparation for one user that began in a worker thread and has to continue in the loop.

    Attributes:
        value: The value so far, or an awaitable that returns it.
        index: How many steps are done.
    """

    value: Any
    index: int

    def close(self) -> None:
        """Discard the preparation. A coroutine that is never awaited would be warned about."""
        if iscoroutine(self.value):
            self.value.close()


@dataclass(frozen=True, slots=True)
class Preparation:
    """The way to make the message for a user.

    Attributes:
        data: The message, if all users get the same.
        value: The input of the first step, if users get different messages.
        steps: The functions that make the value for a user.
        encode: Encodes the value that the last step returns.
    """

    data: bytes | None
    value: Any
    steps: tuple[Step, ...]
    encode: Callable[[Any], bytes]

    @property
    def in_loop(self) -> bool:
        """Whether the preparation begins in the loop: a message for all needs no thread."""
        return self.data is not None or self.steps[0].in_loop

    def begin(self, user: Any) -> bytes | Unfinished | None:
        """Make the message for a user, as far as a worker thread can.

        Returns:
            The message; `None` if the user gets none; or the rest, which has to run in the loop.
        """
        value = self.value
        for index, step in enumerate(self.steps):
            if step.in_loop:
                return Unfinished(value, index)
            value = step.function(user, value)
            if isawaitable(value):
                return Unfinished(value, index + 1)
            if value is None:
                return None
        return self.encode(value)

    async def finish(self, user: Any, begun: Unfinished | None) -> bytes | None:
        """Make the message for a user in the loop, or the part that a worker thread left.

        Returns:
            The message; `None` if the user gets none.
        """
        if self.data is not None:
            return self.data
        value, index = (self.value, 0) if begun is None else (begun.value, begun.index)
        if index and isawaitable(value):
            value = await value
            if value is None:
                return None
        for step in self.steps[index:]:
            if step.in_loop:
                value = await step.function(user, value)
            else:
                value = await call(step.function, user, value)
            if value is None:
                return None
        return self.encode(value)
