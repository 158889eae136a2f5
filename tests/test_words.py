"""The words of a name: each value has one spelling, and no other names a channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BeforeValidator, StringConstraints

from asgi_comet import Comet, InvalidName
from asgi_comet.core.pattern import parse_pattern
from asgi_comet.declare.parameters import Words
from asgi_comet.testing._inspect import inside, live_feeds
from tests.kit.stage import KEY


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Place:
    """What JSON has no form for, and what is equal to itself only."""

    def __init__(self, name: str) -> None:
        self.name = name


KEY_OF_ROOM = "12345678-1234-5678-1234-567812345678"
Lower = Annotated[str, StringConstraints(to_lower=True, strip_whitespace=True)]
Known = Annotated[Any, AfterValidator(Place)]


def words(type_: Any) -> Words:
    async def room(room: Any) -> AsyncIterator[int]:
        yield 1

    room.__annotations__["room"] = type_
    return Words.of_source(parse_pattern("room:{room}"), room)


@pytest.mark.parametrize(
    ("type_", "text", "value", "others"),
    [
        (int, "1", 1, ["01", "+1", " 1 ", "1.0", "1_0", "00000001", "-0", "1e0", "１", "x"]),
        (int, "-7", -7, ["-07", "−7"]),
        (int, "0", 0, ["-0", "+0", "00"]),
        (bool, "true", True, ["True", "TRUE", "1", "yes", "on", "t"]),
        (bool, "false", False, ["False", "0", "no"]),
        (float, "1.0", 1.0, ["1", "1.00", "+1.0", "1e0", " 1.0", "01.0"]),
        (float, "0.0", 0.0, ["-0.0", "0", "-0"]),
        (float, "inf", float("inf"), ["Infinity", "nan", "+inf"]),
        (Decimal, "1", Decimal("1.00"), ["1.0", "1.00", "1E0", "+1", "01"]),
        (Decimal, "0", Decimal(0), ["-0", "0.0", "0E+3"]),
        (Decimal, "100", Decimal("1E+2"), ["1E+2", "1e2", "1" + "0" * 28 + "1"]),
        (UUID, KEY_OF_ROOM, UUID(KEY_OF_ROOM), [
            KEY_OF_ROOM.replace("-", ""), f"{{{KEY_OF_ROOM}}}", KEY_OF_ROOM.replace("1", "١"),
        ]),
        (UUID, KEY_OF_ROOM.replace("1", "a"), UUID(KEY_OF_ROOM.replace("1", "a")), [
            KEY_OF_ROOM.replace("1", "A"),
        ]),
        (date, "2024-01-01", date(2024, 1, 1), ["1704067200", "2024-1-1", "20240101"]),
        (Color, "red", Color.RED, ["RED", "Color.RED", " red"]),
        (Level, "1", Level.LOW, ["01", "1.0", "+1", "LOW"]),
        (Literal["cellar", "kitchen"], "cellar", "cellar", ["Cellar", "cellar "]),
        (Lower, "kitchen", "kitchen", ["Kitchen", " kitchen", "kitchen "]),
        (str, "01", "01", []),
        (int | str, "1", 1, ["01"]),
        (int | str, "x", "x", []),
        (bytes, "ab", b"ab", []),
    ],
)  # fmt: skip
def test_a_value_has_one_spelling(type_: Any, text: str, value: Any, others: list[str]) -> None:
    of = words(type_)
    assert of.read({"room": text}) == {"room": value}
    assert of.fill({"room": value}) == f"room:{text}"
    for other in others:
        assert of.read({"room": other}) is None, other


TYPES = [int, bool, float, Decimal, UUID, date, Color, Level, int | str, str, bytes, Lower, Known]


@given(st.sampled_from(TYPES), st.text(alphabet="0123456789+-_. eEainfrdtuTROW{}", min_size=1))
def test_what_is_read_is_the_very_name_that_is_filled_with_it(type_: Any, text: str) -> None:
    of = words(type_)
    values = of.read({"room": text})
    if values is not None:
        assert of.fill(values) == f"room:{text}"


@pytest.mark.parametrize("type_", [Known, Annotated[str, BeforeValidator(Place)]])
def test_a_value_that_cannot_be_written_has_no_name(type_: Any) -> None:
    of = words(type_)
    assert of.read({"room": "kitchen"}) is None
    with pytest.raises(InvalidName):
        of.fill({"room": "kitchen"})


def test_a_value_that_is_not_equal_to_itself_has_no_name() -> None:
    of = words(float)
    assert of.read({"room": "nan"}) is None
    with pytest.raises(InvalidName, match="it cannot be read"):
        of.fill({"room": float("nan")})


def test_another_spelling_is_no_name_of_a_declared_channel() -> None:
    comet = Comet(KEY)

    @comet.channel("room:{room}")
    async def rooms(room: int) -> AsyncIterator[int]:
        yield room

    declarations = inside(comet).declarations
    assert declarations.match("room:1") is not None
    for name in ("room:01", "room:+1", "room: 1 ", "room:1.0", "room:1_0"):
        assert declarations.match(name) is None
        assert declarations.find(name) is None
    text: Any = "01"
    assert rooms.channel(room=1) is not rooms.channel(room=text)
    assert rooms.channel(room=text).id == "room:1"
    assert len(live_feeds(comet, rooms)) == 1


@pytest.mark.parametrize(
    "text", ["1E+9999999", "1E-9999999", "1E+999999", "1e+256", "1e-256", "9" * 255 + "E+1"]
)
def test_a_number_too_long_for_any_name_is_none(text: str) -> None:
    of = words(Decimal)
    assert of.read({"room": text}) is None
    with pytest.raises(InvalidName):
        of.fill({"room": Decimal(text)})


class Broken(str):
    """A type of an application that fails in its own way."""

    __slots__ = ()


def fail(text: str) -> Broken:
    if text == "kitchen":
        raise ZeroDivisionError("of the application" + "!" * 1000)
    return Broken(text)


def test_a_type_that_fails_names_no_channel_and_is_logged_in_one_short_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    of = words(Annotated[str, AfterValidator(fail)])
    for _ in range(100):
        assert of.read({"room": "kitchen"}) is None
    (line,) = caplog.messages
    assert "ZeroDivisionError('of the application" in line
    assert len(line) < 600
    with pytest.raises(InvalidName, match="ZeroDivisionError: of the application") as caught:
        of.fill({"room": "kitchen"})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert of.read({"room": "cellar"}) == {"room": "cellar"}
