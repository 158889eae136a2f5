"""The public API changes only together with the list in `public_api.txt`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, overload

from tests.public_api import (
    COMMAND,
    FILE,
    compare,
    describe_api,
    describe_class,
    describe_function,
)

T = TypeVar("T")


def test_the_public_api_is_that_of_the_list() -> None:
    difference = compare(FILE.read_text(encoding="utf-8"), describe_api())
    assert not difference, f"\n{difference}"


def test_a_difference_is_shown_with_the_command_that_accepts_it() -> None:
    shown = compare("def f(a: int)\ndef g()\n", "def f(a: str)\ndef g()\n").splitlines()
    assert {"-def f(a: int)", "+def f(a: str)", " def g()"} <= set(shown)
    assert shown[-1].strip() == COMMAND == "python -m tests.public_api > tests/public_api.txt"
    assert compare("def f()\n", "def f()\n") == ""


class Color(Enum):
    RED = "red"


class Ticking(Protocol):
    rate: float

    def tick(self) -> None: ...


class Private:
    def __init__(self, one: int) -> None:
        self.one = one
        self._two = one

    def inherited(self) -> None:
        self.one = 2


class Sample(Private, Generic[T]):
    LIMIT = 3

    __slots__ = ("late", "slot")

    def __init__(self, one: int, /, value: T, *, other: str | None = "x") -> None:
        super().__init__(one)
        self.value, self._private = value, other
        self.other = other
        self.slot: dict[str, int] = {}
        self.slot["a"] = 1
        self.slot = {}
        local = 3
        del local

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return ""

    async def wait(self) -> None: ...

    async def items(self) -> AsyncIterator[T]:
        yield self.value

    @overload
    def get(self, key: int) -> int: ...
    @overload
    def get(self, key: str) -> str: ...
    def get(self, key: Any) -> Any:
        return key

    @classmethod
    def make(cls) -> Sample[int]:
        return cls(1, 2)  # type: ignore[arg-type,return-value]  # only its signature is used

    @staticmethod
    def plain(*args: int) -> Iterator[int]:
        return iter(args)

    @property
    def fixed(self) -> int:
        return 1

    @property
    def changing(self) -> int:
        return 1

    @changing.setter
    def changing(self, value: int) -> None: ...

    @cached_property
    def kept(self) -> int:
        return 1


@dataclass(frozen=True)
class Point:
    x: int
    names: list[str] = field(default_factory=list)


def test_a_class_is_listed_with_all_that_is_public() -> None:
    assert list(describe_class(Sample)) == [
        "class Sample(Generic[T])",
        "    Sample(one: int, /, value: T, *, other: str | None = 'x')",
        "    LIMIT: int",
        "    def __len__(self) -> int",
        "    changing: int  (property, settable)",
        "    fixed: int  (property)",
        "    @overload",
        "    def get(self, key: int) -> int",
        "    @overload",
        "    def get(self, key: str) -> str",
        "    def inherited(self) -> None",
        "    def items(self) -> AsyncIterator[T]",
        "    kept: cached_property",
        "    late: member_descriptor",
        "    @classmethod",
        "    def make(cls) -> Sample[int]",
        "    one: int",
        "    other: str | None",
        "    @staticmethod",
        "    def plain(*args: int) -> Iterator[int]",
        "    slot: dict[str, int]",
        "    value",
        "    async def wait(self) -> None",
    ]


def test_a_constructor_that_users_do_not_call_is_not_listed() -> None:
    assert list(describe_class(Private, constructor=False)) == [
        "class Private",
        "    # made by the package",
        "    def inherited(self) -> None",
        "    one: int",
    ]


def test_values_and_protocols_are_listed_without_what_python_gives_them() -> None:
    assert list(describe_class(Color)) == ["class Color(Enum)", "    RED = 'red'"]
    assert list(describe_class(Ticking)) == [
        "class Ticking(Protocol)",
        "    rate: float",
        "    def tick(self) -> None",
    ]
    point, constructor, *others = describe_class(Point)
    assert point == "class Point"
    assert constructor.startswith("    Point(x: int, names: list[str] = <factory>)")
    assert others == ["    names: list[str]", "    x: int"]


def test_a_long_signature_has_a_line_for_each_parameter() -> None:
    def function(
        position: int,
        /,
        parameter_with_a_long_name: dict[str, int],
        *,
        keyword: str,
        **more: object,
    ) -> None: ...

    assert list(describe_function("function", function)) == [
        "def function(",
        "    position: int,",
        "    /,",
        "    parameter_with_a_long_name: dict[str, int],",
        "    *,",
        "    keyword: str,",
        "    **more: object,",
        ") -> None",
    ]
