from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_comet.core.messages import (
    NEXT_INCARNATION,
    Last,
    Notice,
    Now,
    Start,
    parse_position,
    parse_start,
)
from asgi_comet.errors import BadRequest
from asgi_comet.position import Position

EPOCHS = st.text("ABCxyz019_-", min_size=1, max_size=32)


@given(EPOCHS, st.integers(0, 10**16 - 1))
def test_a_position_reads_back_as_it_was_written(epoch: str, offset: int) -> None:
    assert Position.parse(str(Position(epoch, offset))) == Position(epoch, offset)


@pytest.mark.parametrize(
    "text",
    ["", "a", "a.", ".1", "a.01", "a.-1", "a.1 ", " a.1", "a.1\n", "a.b", "é.1", "a.1.2", "a.٣",
     "a" * 33 + ".1", "a." + "1" * 17],
)  # fmt: skip
def test_anything_else_is_refused_with_what_came(text: str) -> None:
    with pytest.raises(BadRequest, match=r"expected a position like .* got"):
        parse_position(text)


@pytest.mark.parametrize("text", ["a.0", "a" * 32 + ".1", "a." + "1" * 16])
def test_the_longest_positions_are_read(text: str) -> None:
    assert str(Position.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "start"),
    [("now", Now()), ("last:0", Last(0)), ("last:10", Last(10)), ("last:" + "9" * 16,
     Last(10**16 - 1)), ("last.1", Position("last", 1)), ("now.0", Position("now", 0)),
     ("new.0", NEXT_INCARNATION)],
)  # fmt: skip
def test_a_start_is_now_the_last_messages_or_a_position(text: str, start: Start) -> None:
    assert parse_start(text) == start


@given(EPOCHS, st.integers(0, 10**16 - 1))
def test_a_position_is_a_start(epoch: str, offset: int) -> None:
    position = Position(epoch, offset)
    assert parse_start(str(position)) == position


@pytest.mark.parametrize(
    "text",
    ["", "Now", "now ", " now", "now\n", "last", "last:", "last:-1", "last:+1", "last:01",
     "last:1 ", "last:1\n", "last:1.0", "last:٣", "last:" + "1" * 17, "-", "a.", "é.1",
     "a" * 33 + ".1"],
)  # fmt: skip
def test_any_other_start_is_refused_with_what_came(text: str) -> None:
    with pytest.raises(
        BadRequest, match=r"expected 'now', 'first', 'last:10' or a position .* got"
    ) as caught:
        parse_start(text)
    assert repr(text) in str(caught.value)


def test_what_came_is_told_in_short() -> None:
    for read in (parse_start, parse_position):
        with pytest.raises(BadRequest, match="got 'xxxxxxxxxx") as caught:
            read("x" * 10_000)
        assert len(str(caught.value)) < 200


def test_a_notice_says_no_more_than_it_is_told() -> None:
    assert Notice("a") == ("a", None, None, None)
    here = Position("e", 1)
    assert Notice("a", "full", here) == Notice("a", error="full", position=here, reason=None)
    assert Notice("a", "closed", reason="ended").position is None
    assert Notice("a", position=here).error is None
