from __future__ import annotations

import pytest

from asgi_comet import InvalidName
from asgi_comet.core.names import check_asked, check_name, fresh_name, is_name
from asgi_comet.errors import BadRequest


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
        (7, "it is of type int"),
        (b"a", "it is of type bytes"),
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


def test_a_name_that_begins_with_an_at_sign_is_kept_for_presence() -> None:
    with pytest.raises(InvalidName, match="begins with '@' is kept for presence"):
        check_name("@room")
    assert check_name("room@home") == "room@home"
    assert not is_name("@room")
    assert is_name("room")


@pytest.mark.parametrize("character", ["x", "é", "€", "😀"])
def test_a_name_that_is_asked_for_at_255_bytes_and_at_256(character: str) -> None:
    size = len(character.encode())
    longest = character * (255 // size) + "x" * (255 % size)
    for prefix in ("", "~"):
        assert check_asked(prefix + longest) == prefix + longest
        with pytest.raises(BadRequest, match=r"at most 255 bytes, got .*, which has 256"):
            check_asked(prefix + longest + "x")
