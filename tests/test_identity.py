from __future__ import annotations

from typing import Any

import pytest

from asgi_comet import Comet
from asgi_comet.identity import load_keys

GOOD = "k" * 32


def test_one_key_or_a_list_of_keys_of_either_type() -> None:
    assert load_keys(GOOD) == [GOOD.encode()]
    assert load_keys([GOOD, b"n" * 40]) == [GOOD.encode(), b"n" * 40]


@pytest.mark.parametrize(
    ("key", "error", "text"),
    [
        ("", ValueError, "at least 32 bytes, got 0"),
        ("k" * 31, ValueError, "at least 32 bytes, got 31"),
        ([], ValueError, "at least one secret_key, got none"),
        ([GOOD, "short"], ValueError, "at least 32 bytes, got 5"),
        (None, TypeError, "got NoneType"),
        (7, TypeError, "got int"),
        ([7], TypeError, "got int"),
    ],
)
def test_a_missing_or_short_key_says_what_is_expected(
    key: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        Comet(key)
    if isinstance(key, str) and key:
        assert key not in str(caught.value)
    if error is ValueError:
        assert "secrets.token_urlsafe(32)" in str(caught.value)


def test_a_key_is_measured_in_bytes() -> None:
    assert load_keys("é" * 16) == [("é" * 16).encode()]
