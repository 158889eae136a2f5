from __future__ import annotations

import pytest

from asgi_comet import InvalidName
from asgi_comet.names import check_name, fresh_name


@pytest.mark.parametrize("name", ["a", "room:7", "prix €", "x" * 255, "é" * 127 + "x", "a:~", "🎈"])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "0 bytes"),
        ("x" * 256, "256 bytes"),
        ("é" * 128, "256 bytes"),
        ("a\nb", "control character"),
        ("a\x00", "control character"),
        ("a\x7f", "control character"),
        ("a\x85", "control character"),
        (":a", "reserved"),
        ("~a", "reserved"),
        ("open", "reserved"),
        ("error", "reserved"),
        ("\ud800", "lone surrogate"),
        (7, "a int"),
        (b"a", "a bytes"),
    ],
)
def test_bad_names_say_why(name: str, reason: str) -> None:
    with pytest.raises(InvalidName, match=reason) as caught:
        check_name(name)
    assert caught.value.name == name
    assert isinstance(caught.value, ValueError)


def test_fresh_names_have_at_least_128_random_bits_and_are_good_names() -> None:
    names = {fresh_name() for _ in range(1000)}
    assert len(names) == 1000
    for name in names:
        assert len(name) * 6 >= 128
        assert check_name(name) == name
