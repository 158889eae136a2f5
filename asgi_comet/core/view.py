"""View: a list that the application gets, and may also ask for by `await`.

Owns the one place that will ask the other workers. Must not know the types of the values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from typing import TypeVar, overload

__all__ = ["View"]

T = TypeVar("T")


class View(Sequence[T]):  # noqa: PLW1641 - like a list, it has no hash
    """A sequence of values, as of the time of the call that returned the view. Never changes.

    `await view` returns the values as a list, and `async for` iterates over them. With a broker
    that joins several workers these two will ask all workers.

    A view equals a list of the same values. Thread-safe; `await` and `async for` work in any loop.

    Args:
        here: The values in this worker.
    """

    __slots__ = ("_here",)

    def __init__(self, here: list[T]) -> None:
        self._here = here

    @property
    def here(self) -> list[T]:
        """The values in this worker."""
        return list(self._here)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self._here[index]

    def __iter__(self) -> Iterator[T]:
        return iter(self._here)

    def __len__(self) -> int:
        return len(self._here)

    def __eq__(self, other: object) -> bool:
        return self._here == other._here if isinstance(other, View) else self._here == other

    def __repr__(self) -> str:
        return f"View({self._here!r})"

    def __await__(self) -> Generator[object, None, list[T]]:
        return self._everywhere().__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        for value in await self._everywhere():
            yield value

    async def _everywhere(self) -> list[T]:
        """Return the values in all workers; the other workers will be asked here."""
        return self.here
