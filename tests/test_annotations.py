"""What the annotation of a source tells: its type, wherever that is known, or an error."""

from __future__ import annotations

import collections.abc
import typing
from collections.abc import Awaitable, Callable, Iterator
from enum import IntEnum
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import BaseModel

from asgi_comet import CLIENT_PROCESS, SITE, ClientProcess, Comet, InvalidDeclaration
from asgi_comet.channels.annotations import item_type, resolve
from asgi_comet.testing._inspect import inside
from tests.kit.processes import open_in
from tests.kit.stage import KEY

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from decimal import Decimal as Hidden

ITERATOR = collections.abc.AsyncIterator
GENERATOR = collections.abc.AsyncGenerator


class Point(BaseModel):
    x: int


def make_source(annotation: Any) -> Callable[[], Any]:
    def source() -> Any:
        raise NotImplementedError

    source.__annotations__ = {} if annotation is None else {"return": annotation}
    return source


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (ITERATOR[int], int),
        (GENERATOR[int, None], int),
        (collections.abc.AsyncIterable[Point], Point),
        (typing.AsyncIterator[int], int),
        (ITERATOR[Annotated[int, "meta"]], Annotated[int, "meta"]),
        (ITERATOR[Point | None], Point | None),
        (ITERATOR[Any], Any),
        (ITERATOR["Point"], Point),
        (typing.AsyncIterator["Point"], Point),
        ("ITERATOR[Point]", Point),
        (ITERATOR, None),
        (GENERATOR, None),
        (typing.AsyncIterator, None),
        (typing.AsyncGenerator, None),
        (Any, None),
        (int, None),
        (list[int], None),
        (Iterator[int], None),
        (Awaitable[int], None),
        (None, None),
    ],
    ids=str,
)
def test_the_annotation_of_a_source_tells_its_type(annotation: Any, expected: Any) -> None:
    assert item_type(make_source(annotation)) == expected


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("AsyncIterator[Point]", Point),
        (" AsyncIterator[ Point ] ", Point),
        ("AsyncGenerator[Point, None]", Point),
        ("AsyncIterable[Point | None]", Point | None),
        ("typed.AsyncIterator[list[Point]]", list[Point]),
        ("a.b.AsyncGenerator[dict[str, 'Point'], None]", dict[str, Point]),
        ("AsyncIterator['Point']", Point),
        ("AsyncIterator[Annotated[int, 'meta']]", Annotated[int, "meta"]),
        ("AsyncIterator", None),
        ("typed.AsyncGenerator", None),
    ],
)
def test_an_iterator_that_is_imported_for_type_checkers_only_is_known_by_its_name(
    annotation: str, expected: Any
) -> None:
    assert item_type(make_source(annotation)) == expected


@pytest.mark.parametrize(
    "annotation",
    [
        "AsyncIterator[Hidden]",
        "ITERATOR[Hidden]",
        "AsyncIterator[list[Hidden]]",
        "AsyncGenerator[Hidden, None]",
        "typing.AsyncIterator[hidden.Point]",
        "Renamed[Point]",
        "Renamed",
        "AsyncIterator[Point",
        "(lambda: 1)[Point]",
        ITERATOR["Hidden"],
        typing.AsyncIterator["Hidden"],
    ],
    ids=str,
)
def test_a_type_that_is_not_known_at_run_time_is_an_error_that_says_what_to_do(
    annotation: Any,
) -> None:
    with pytest.raises(TypeError, match=r"names that are known where it is defined.* say type="):
        item_type(make_source(annotation))


async def quotes(market: str) -> AsyncIterator[Point]:
    yield Point(x=len(market))


class Market:
    def __call__(self) -> AsyncIterator[Point]:
        return quotes("a")

    async def watch(self, other: Hidden | None = None) -> AsyncGenerator[Point, None]:
        yield Point(x=1)


def passed_on(function: Callable[..., Any]) -> Any:
    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        async for value in function(*args, **kwargs):
            yield value

    return wrapper


@pytest.mark.parametrize(
    "function",
    [quotes, Market().watch, partial(Market().watch), partial(quotes, "a"), Market()],
    ids=["function", "method", "partial method", "partial", "callable object"],
)
def test_whatever_makes_a_source_may_be_asked_for_its_type(function: Callable[..., Any]) -> None:
    assert item_type(function) is Point
    if function is quotes:
        assert item_type(passed_on(function)) is Point


def test_what_says_nothing_has_no_type() -> None:
    assert item_type(lambda: quotes("a")) is None
    assert item_type(dict) is None
    with pytest.raises(NameError):
        resolve("Hidden", dict)


def make_local(*, used: bool) -> Callable[[], Any]:
    class Local(BaseModel):
        a: int

    if used:

        async def local() -> AsyncIterator[Local]:
            yield Local(a=later)  # and what it has of `later` is not there yet

        found: Callable[[], Any] = local
        item_type(local)
        later = 1
    else:

        async def other() -> AsyncIterator[Local]:
            yield None  # type: ignore[misc]  # it does not use the class, so it has it not

        found = other
    return found


def test_a_local_class_is_known_where_the_function_uses_it() -> None:
    assert item_type(make_local(used=True)).__name__ == "Local"
    with pytest.raises(TypeError, match="'Local' is not defined"):
        item_type(make_local(used=False))


def test_parameters_of_a_generic_function_are_known() -> None:
    source = make_source("AsyncIterator[Item]")
    source.__type_params__ = (typing.TypeVar("Item"),)  # type: ignore[attr-defined]  # Python 3.12
    assert item_type(source) is source.__type_params__[0]  # type: ignore[attr-defined]


# What it means for channels


async def of_process(process: ClientProcess) -> AsyncIterator[Point]:
    yield Point(x=1)


async def hidden() -> AsyncIterator[Hidden]:
    yield None  # type: ignore[misc]  # never


def test_a_channel_is_typed_though_its_iterator_is_for_type_checkers_only() -> None:
    comet = Comet(KEY)
    process = open_in(comet, "a session")
    inbox: Any = comet.channel("inbox", scope=CLIENT_PROCESS)(of_process).channel(process)
    created: Any = comet.create(partial(quotes, "a"), scope=SITE)
    for channel in (inbox, created):
        with pytest.raises(ValueError, match="x: Field required"):
            channel.publish({"nonsense": 1})


def test_a_channel_whose_type_is_not_known_is_refused_unless_it_is_said() -> None:
    comet = Comet(KEY)
    with pytest.raises(InvalidDeclaration, match=r"'AsyncIterator\[Hidden\]'.* say type="):
        comet.channel("hidden")(hidden)
    assert inside(comet).declarations.match("hidden") is None
    with pytest.raises(TypeError, match=r"'AsyncIterator\[Hidden\]'.* say type="):
        comet.create(hidden, scope=SITE, name="hidden")
    assert inside(comet).channels.find("hidden") is None
    comet.channel("hidden", type=int)(hidden)
    comet.create(hidden, scope=SITE, type=int)


def test_the_words_of_a_name_may_be_of_a_type_that_the_function_has_from_around_it() -> None:
    comet = Comet(KEY)

    class Floor(IntEnum):
        CELLAR = 0

    async def room(floor: Floor) -> AsyncIterator[Floor]:
        yield Floor(floor)

    for name, function in (("room:{floor}", room), ("partial:{floor}", partial(room))):
        comet.channel(name)(function)
        match = inside(comet).declarations.match(name.replace("{floor}", "0"))
        assert match is not None
        assert match.parameters == {"floor": Floor.CELLAR}
        assert inside(comet).declarations.match(name.replace("{floor}", "1")) is None
