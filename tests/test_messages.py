from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_comet.errors import BadRequest
from asgi_comet.messages import Position

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
        Position.parse(text)


@pytest.mark.parametrize("text", ["a.0", "a" * 32 + ".1", "a." + "1" * 16])
def test_the_longest_positions_are_read(text: str) -> None:
    assert str(Position.parse(text)) == text
