from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from traceback import format_exception
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    field_serializer,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from asgi_comet import InvalidMessage
from asgi_comet.channels.encoding import make_encode

T = TypeVar("T")

NOT_UTF8 = b"\xff\xfe\x00"


def encoded(value: Any, type_: Any = None) -> Any:
    """A value after its way through a channel, whose JSON is strict."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(make_encode(type_)("c", value).decode(), parse_constant=refuse)


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Point(BaseModel):
    x: int
    y: float = 0.5


class Aliased(BaseModel):
    made_at: datetime = Field(alias="madeAt")
    size: int = Field(serialization_alias="bytes", default=1)


@dataclass
class Pair:
    left: int
    right: Any = None


@pydantic_dataclass
class Checked:
    left: int


class Movie(TypedDict):
    title: str
    year: int


class Page(BaseModel, Generic[T]):
    items: list[T]


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


WHEN = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
ID = UUID(int=7)

VALUES: list[tuple[Any, Any, Any]] = [
    (None, type(None), None),
    (True, bool, True),
    (7, int, 7),
    (2**70, int, 2**70),
    (1.5, float, 1.5),
    ("é\n\x00😀", str, "é\n\x00😀"),
    ([1, "a", None], list[Any], [1, "a", None]),
    ((1, 2), tuple[int, int], [1, 2]),
    ({3}, set[int], [3]),
    (frozenset({3}), frozenset[int], [3]),
    ({"a": {"b": [1]}}, dict[str, Any], {"a": {"b": [1]}}),
    ({1: "a"}, dict[int, str], {"1": "a"}),
    (Point(x=1), Point, {"x": 1, "y": 0.5}),
    ([Point(x=1)], list[Point], [{"x": 1, "y": 0.5}]),
    (Pair(1, Point(x=2)), Pair, {"left": 1, "right": {"x": 2, "y": 0.5}}),
    (Checked(1), Checked, {"left": 1}),
    ({"a": Pair(1)}, dict[str, Pair], {"a": {"left": 1, "right": None}}),
    (WHEN, datetime, "2026-01-02T03:04:05.000678Z"),
    (date(2026, 1, 2), date, "2026-01-02"),
    (time(3, 4), time, "03:04:00"),
    (timedelta(seconds=90), timedelta, "PT1M30S"),
    (ID, UUID, "00000000-0000-0000-0000-000000000007"),
    (Decimal("1.10"), Decimal, "1.10"),
    (Color.RED, Color, "red"),
    (Level.HIGH, Level, 3),
    (Tree(name="a", children=[Tree(name="b")]), Tree,
     {"name": "a", "children": [{"name": "b", "children": []}]}),
    (Page[Point](items=[Point(x=1)]), Page[Point], {"items": [{"x": 1, "y": 0.5}]}),
]  # fmt: skip


@pytest.mark.parametrize(("value", "type_", "expected"), VALUES, ids=lambda v: repr(v)[:30])
def test_values_need_no_configuration(value: Any, type_: Any, expected: Any) -> None:
    assert encoded(value, type_) == expected
    assert encoded(value) == expected
    assert encoded(value, Any) == expected
    assert encoded([value]) == [expected]
    assert encoded(Pair(0, value)) == {"left": 0, "right": expected}


def test_the_json_is_compact_and_in_utf8() -> None:
    assert make_encode(None)("c", {"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()
    assert make_encode(Point)("c", Point(x=1)) == b'{"x":1,"y":0.5}'


def test_aliases_are_the_names_on_the_wire() -> None:
    value = Aliased(madeAt=WHEN)
    expected = {"madeAt": "2026-01-02T03:04:05.000678Z", "bytes": 1}
    assert encoded(value, Aliased) == encoded(value) == expected
    assert encoded([value], list[Aliased]) == encoded([value]) == [expected]


# What does not fit


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (int, "7", 7),
        (Point, {"x": "1"}, {"x": 1, "y": 0.5}),
        (datetime, "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        (Movie, {"title": "M", "year": 1931}, {"title": "M", "year": 1931}),
        (int | str, "7", "7"),
        (int | str, 7, 7),
        (Point | None, None, None),
        (Literal["a", "b"], "a", "a"),
        (Page[int], {"items": ["1"]}, {"items": [1]}),
        (Annotated[list[int], Field(max_length=2)], [1, 2], [1, 2]),
        (Annotated[int, Field(gt=0)], 1, 1),
    ],
)
def test_values_are_validated_by_the_type(type_: Any, value: Any, expected: Any) -> None:
    assert encoded(value, type_) == expected


@pytest.mark.parametrize(
    ("type_", "value", "path"),
    [
        (int, "x", ""),
        (Point, {"x": "x"}, "x"),
        (Point, {}, "x"),
        (list[Point], [{"x": 1}, {"x": "x"}], "1.x"),
        (dict[str, list[int]], {"a": [1, "x"]}, "a.1"),
        (Movie, {"title": "M"}, "year"),
        (Pair, {"left": "x"}, "left"),
        (Page[int], {"items": ["x"]}, "items.0"),
        (Tree, {"name": "a", "children": [{"name": 1}]}, "children.0.name"),
        (Aliased, {"madeAt": "x"}, "madeAt"),
        (Literal["a", "b"], "c", ""),
        (Color, "blue", ""),
        (Annotated[list[int], Field(max_length=2)], [1, 2, 3], ""),
        (Annotated[int, Field(gt=0)], 0, ""),
        (Decimal, Decimal("NaN"), ""),
    ],
)
def test_a_value_that_does_not_fit_names_channel_and_field(
    type_: Any, value: Any, path: str
) -> None:
    with pytest.raises(InvalidMessage, match="channel 'prices'; ") as caught:
        make_encode(type_)("prices", value)
    ((found, expected),) = caught.value.problems
    assert (caught.value.name, found) == ("prices", path)
    assert f"{path or 'the value'}: {expected}" in str(caught.value)
    assert caught.value.__cause__ is None


def test_all_fields_that_do_not_fit_are_told_at_once() -> None:
    with pytest.raises(InvalidMessage) as caught:
        make_encode(Point)("c", {"x": "x", "y": "y"})
    assert [path for path, _ in caught.value.problems] == ["x", "y"]


def test_a_model_that_was_spoiled_after_it_was_made_does_not_fit() -> None:
    point = Point(x=1)
    point.x = "z" * 20  # type: ignore[assignment]  # that is what is tested
    with pytest.raises(InvalidMessage, match=r"(?s)channel 'c'.*Expected `int`") as caught:
        make_encode(Point)("c", point)
    assert "zzz" not in "".join(format_exception(caught.value))  # as the log would have it


def test_the_tag_of_a_value_that_does_not_fit_is_not_shown() -> None:
    class Bid(BaseModel):
        kind: Literal["bid"]

    class Ask(BaseModel):
        kind: Literal["ask"]

    order = Annotated[Bid | Ask, Field(discriminator="kind")]
    with pytest.raises(InvalidMessage, match=r"one of the tags 'bid', 'ask'$") as caught:
        make_encode(order)("c", {"kind": "z" * 20})
    assert "zzz" not in "".join(format_exception(caught.value))


UNKNOWN: list[Any] = [object(), lambda: 1, range(3), ValueError("x"), int, "\ud800", ["a\udfff"]]


@pytest.mark.parametrize("value", UNKNOWN, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("type_", [None, Any, object, list[Any], list[object]], ids=str)
def test_what_has_no_json_form_is_an_invalid_message(type_: Any, value: Any) -> None:
    with pytest.raises(InvalidMessage, match="expected a value that fits channel 'c'; the value: "):
        make_encode(type_)("c", [value])


def test_a_lone_surrogate_is_an_invalid_message_of_a_channel_of_text_too() -> None:
    with pytest.raises(InvalidMessage, match=r"channel 'c'; the value: .*surrogates not allowed"):
        make_encode(str)("c", "a\ud800")


def test_a_value_that_holds_itself_is_an_invalid_message() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for type_ in (None, list[Any]):
        with pytest.raises(InvalidMessage, match=r"Circular reference|recursion"):
            make_encode(type_)("c", circle)


@pytest.mark.parametrize("leaf", ["text", "NaN", "Infinity"])
@pytest.mark.parametrize("depth", [100, 190, 230, 300])
@pytest.mark.parametrize("type_", [None, list[Any]], ids=str)
def test_a_value_of_any_depth_is_encoded_or_an_invalid_message(
    type_: Any, depth: int, leaf: str
) -> None:
    value: Any = leaf
    for _ in range(depth):
        value = [value]
    try:
        data = make_encode(type_)("c", value)
    except InvalidMessage:
        assert depth > 190
    else:
        assert data == b"[" * depth + json.dumps(leaf).encode() + b"]" * depth


def test_a_number_of_any_length_is_encoded_or_an_invalid_message() -> None:
    for beside in ("text", "NaN"):
        try:
            data = make_encode(None)("c", [10**5000, beside])
        except InvalidMessage:
            continue
        assert data == b"[1" + b"0" * 5000 + b',"' + beside.encode() + b'"]'


class Unknown:
    """A class that pydantic knows nothing about."""


@pytest.mark.parametrize(
    "type_", [Unknown, list[Unknown], 7, "Missing", list["Missing"]], ids=str  # type: ignore[name-defined]  # noqa: F821 - that is what is tested
)  # fmt: skip
def test_a_type_that_pydantic_does_not_know_is_a_type_error(type_: Any) -> None:
    with pytest.raises(TypeError, match="expected a type that pydantic can encode, got "):
        make_encode(type_)


@pytest.mark.parametrize("metadata", [{"unit": "s"}, ["s"], "s"], ids=str)
def test_a_type_may_be_annotated_with_anything(metadata: Any) -> None:
    assert encoded(1, Annotated[int, metadata]) == 1


class First(BaseModel):
    x: int
    made_by: str = "first"


class Second(BaseModel):
    x: int
    made_by: str = "second"


def test_of_a_union_the_first_that_fits_best_counts_whatever_other_channels_have() -> None:
    assert encoded({"x": 1}, First | Second) == {"x": 1, "made_by": "first"}
    assert encoded({"x": 1}, Second | First) == {"x": 1, "made_by": "second"}


# Bytes


class Blob(BaseModel):
    data: bytes


class Loose(BaseModel):
    data: Any


@dataclass
class BlobData:
    data: bytes


class BlobDict(TypedDict):
    data: bytes


class BlobTree(BaseModel):
    data: bytes = NOT_UTF8
    children: list[BlobTree] = []


class Aware(BaseModel):
    data: bytes = Field(alias="Data")


BYTES: list[tuple[str, Any, Any, Callable[[str], Any]]] = [
    ("bare", bytes, lambda b: b, lambda t: t),
    ("in a list", list[bytes], lambda b: [b], lambda t: [t]),
    ("as a key", dict[bytes, int], lambda b: {b: 1}, lambda t: {t: 1}),
    ("in a union", bytes | None, lambda b: b, lambda t: t),
    ("in a model", Blob, lambda b: Blob(data=b), lambda t: {"data": t}),
    ("in a list of models", list[Blob], lambda b: [Blob(data=b)], lambda t: [{"data": t}]),
    ("in a dict of models", dict[str, Blob], lambda b: {"a": Blob(data=b)},
     lambda t: {"a": {"data": t}}),
    ("in a dataclass", BlobData, BlobData, lambda t: {"data": t}),
    ("in a list of dataclasses", list[BlobData], lambda b: [BlobData(b)], lambda t: [{"data": t}]),
    ("in Any of a model", Loose, lambda b: Loose(data=b), lambda t: {"data": t}),
    ("deep in Any of a model", Loose, lambda b: Loose(data=[{"a": b}]),
     lambda t: {"data": [{"a": t}]}),
    ("in a model in Any of a model", Loose, lambda b: Loose(data=Blob(data=b)),
     lambda t: {"data": {"data": t}}),
    ("in Any of a dataclass", Pair, lambda b: Pair(1, b), lambda t: {"left": 1, "right": t}),
    ("in a model in Any of a dataclass", Pair, lambda b: Pair(1, Blob(data=b)),
     lambda t: {"left": 1, "right": {"data": t}}),
    ("in Any of a list", list[Any], lambda b: [b, Blob(data=b), BlobData(b)],
     lambda t: [t, {"data": t}, {"data": t}]),
    ("in an object", object, lambda b: {"a": b}, lambda t: {"a": t}),
    ("in a generic model", Page[bytes], lambda b: Page[bytes](items=[b]), lambda t: {"items": [t]}),
    ("in a model that holds itself", BlobTree, lambda b: BlobTree(children=[BlobTree(data=b)]),
     lambda t: {"data": "__4A", "children": [{"data": t, "children": []}]}),
    ("under an alias", Aware, lambda b: Aware(Data=b), lambda t: {"Data": t}),
]  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"ascii", NOT_UTF8, b"NaN"], ids=repr)
@pytest.mark.parametrize(
    ("type_", "make", "shape"), [b[1:] for b in BYTES], ids=[b[0] for b in BYTES]
)
@pytest.mark.parametrize("typed", [True, False], ids=["typed", "any"])
def test_bytes_are_base64_wherever_they_are(
    typed: bool, type_: Any, make: Any, shape: Any, data: bytes
) -> None:
    text = base64.urlsafe_b64encode(data).decode()
    assert encoded(make(data), type_ if typed else None) == shape(text)


def test_bytes_in_a_typed_dict_are_base64() -> None:
    assert encoded({"data": NOT_UTF8}, BlobDict) == {"data": "__4A"}


class Formatted(BaseModel):
    data: bytes = b"x"
    price: Annotated[int, PlainSerializer(lambda v: f"{v} EUR", when_used="json")] = 3
    size: int = 7

    @field_serializer("size", when_used="json")
    def write_size(self, size: int) -> str:
        return f"{size} m"


class Encoded(BaseModel):
    data: Base64Bytes
    more: bytes = b""


class Configured(BaseModel):
    model_config = ConfigDict(ser_json_timedelta="float", ser_json_bytes="hex")
    took: timedelta = timedelta(seconds=90)
    data: bytes = NOT_UTF8


class Constants(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    value: float = math.nan
    text: str = "NaN and -Infinity"
    precise: float = 0.1


@dataclass
class Floating:
    value: float


class FloatingModel(BaseModel):
    value: float


NOT_FINITE: list[tuple[Any, Callable[[float], Any], Any]] = [
    (float, lambda f: f, None),
    (list[float], lambda f: [1.5, f], [1.5, None]),
    (dict[str, float], lambda f: {"a": f}, {"a": None}),
    (tuple[float, ...], lambda f: (f, f), [None, None]),
    (Floating, Floating, {"value": None}),
    (FloatingModel, lambda f: FloatingModel(value=f), {"value": None}),
    (list[FloatingModel], lambda f: [FloatingModel(value=f)], [{"value": None}]),
    (Loose, lambda f: Loose(data=[f]), {"data": [None]}),
    (Pair, lambda f: Pair(1, {"a": f}), {"left": 1, "right": {"a": None}}),
    (Any, lambda f: {"a": [f, Floating(f)]}, {"a": [None, {"value": None}]}),
    (Constants, lambda f: Constants(value=f),
     {"value": None, "text": "NaN and -Infinity", "precise": 0.1}),
    (list[Constants], lambda f: [Constants(value=f)],
     [{"value": None, "text": "NaN and -Infinity", "precise": 0.1}]),
]  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize(
    ("type_", "make", "expected"), NOT_FINITE, ids=[str(type_) for type_, _, _ in NOT_FINITE]
)
def test_what_is_not_finite_is_null_everywhere(
    type_: Any, make: Any, expected: Any, value: float
) -> None:
    assert encoded(make(value), type_) == expected
    assert encoded(make(value)) == expected


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", 'a "NaN" b', "[NaN,-Infinity]"])
def test_a_text_that_reads_like_it_stays(text: str) -> None:
    for type_ in (str, None):
        assert encoded(text, type_) == text
    assert encoded({text: [text, 0.1, math.nan, 2**70]}) == {text: [text, 0.1, None, 2**70]}
    assert encoded({text: text}, dict[str, str]) == {text: text}


# All that JSON has

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.text() | st.sampled_from(
        ["NaN", "Infinity", "-Infinity"]
    ) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_json_values_come_back_as_they_were(value: Any) -> None:
    assert encoded(value) == value
    assert encoded([value], list[Any]) == [value]
    assert encoded(Pair(1, value), Pair) == {"left": 1, "right": value}
    assert encoded(Loose(data=value), Loose) == {"data": value}


@given(st.lists(st.floats()), st.text())
def test_floats_come_back_exactly_or_as_null(values: list[float], text: str) -> None:
    expected = [value if math.isfinite(value) else None for value in values]
    assert encoded([*values, text]) == [*expected, text]
    assert encoded(values, list[float]) == expected


@given(st.binary())
def test_bytes_come_back_exactly(data: bytes) -> None:
    for type_ in (Blob, None):
        assert base64.urlsafe_b64decode(encoded(Blob(data=data), type_)["data"]) == data
