"""View: a list that the application gets, and may also ask for by `await`.

Owns the difference between the values of this worker and those of all. Must not know the types of
the values, nor how other workers are asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from typing import Generic, TypeVar, overload

__all__ = ["Everywhere", "View"]

T = TypeVar("T")


class Everywhere(ABC, Generic[T]):
    """Asks all workers for the values of a view."""

    @abstractmethod
    async def ask(self) -> list[T]:
        """Return the values in all workers."""

    @abstractmethod
    def block(self) -> list[T]:
        """Return the values in all workers, from a worker thread, which waits for them.

        Raises:
            MustAwait: This is the thread of an event loop.
        """


class View(Sequence[T]):  # noqa: PLW1641 - like a list, it has no hash
    """A sequence of values, as of the time of the call that returned the view.

    `await view` returns the values as a list, and `async for` iterates over them. With a broker
    that joins several workers these two ask all workers, in the event loop of the server; so do
    iterating, `len()` and indexing, once, in worker threads, and in the event loop they raise
    `MustAwait`.

    A view equals a list of the same values. Thread-safe.

    Args:
        here: The values in this worker.
        everywhere: Asks all workers; `None` if there is only this one.
    """

    __slots__ = ("_everywhere", "_found", "_here")

    def __init__(self, here: list[T], everywhere: Everywhere[T] | None = None) -> None:
        self._here = here
        self._everywhere = everywhere
        self._found: list[T] | None = None if everywhere is not None else here

    @property
    def here(self) -> list[T]:
        """The values in this worker."""
        return list(self._here)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self._values()[index]

    def __iter__(self) -> Iterator[T]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __eq__(self, other: object) -> bool:
        return self._values() == (other._values() if isinstance(other, View) else other)

    def __repr__(self) -> str:
        return f"View({self._here if self._found is None else self._found!r})"

    def __await__(self) -> Generator[object, None, list[T]]:
        return self._ask().__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        for value in await self._ask():
            yield value

    async def _ask(self) -> list[T]:
        """Return the values in all workers."""
        return self.here if self._everywhere is None else await self._everywhere.ask()

    def _values(self) -> list[T]:
        if self._found is None:
            assert self._everywhere is not None  # noqa: S101 - for the type checker
            self._found = self._everywhere.block()
        return self._found
