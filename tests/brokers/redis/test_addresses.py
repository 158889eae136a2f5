"""The URL of a Redis: what it says, and that its password is shown nowhere."""

from __future__ import annotations

import pytest

from asgi_comet.brokers.redis.address import Address, hide_password, parse_address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"hosts": (("localhost", 6379),)}),
        ("redis://host", {"hosts": (("host", 6379),)}),
        ("redis://host:1234/5", {"hosts": (("host", 1234),), "database": 5}),
        ("redis://host?db=5", {"hosts": (("host", 6379),), "database": 5}),
        ("redis://[::1]:1/0", {"hosts": (("::1", 1),)}),
        ("redis://:secret@host", {"hosts": (("host", 6379),), "password": "secret"}),
        (
            "redis://me:s%40cret@host",
            {"hosts": (("host", 6379),), "username": "me", "password": "s@cret"},
        ),
        (
            "redis://host?username=me&password=secret",
            {"hosts": (("host", 6379),), "username": "me", "password": "secret"},
        ),
        (
            "rediss://host?ssl_cert_reqs=none",
            {"hosts": (("host", 6379),), "tls": True, "options": (("ssl_cert_reqs", "none"),)},
        ),
        ("unix:///run/redis.sock", {"path": "/run/redis.sock"}),
        ("redis+unix:///run/a%20b?db=2", {"path": "/run/a b", "database": 2}),
        (
            "redis+unix://:secret@/run/redis.sock",
            {"path": "/run/redis.sock", "password": "secret"},
        ),
        (
            "redis+sentinel://me:secret@a,b:1,c/name/3",
            {
                "hosts": (("a", 26379), ("b", 1), ("c", 26379)),
                "service": "name",
                "database": 3,
                "username": "me",
                "password": "secret",
            },
        ),
        ("rediss+sentinel://a/name", {"hosts": (("a", 26379),), "service": "name", "tls": True}),
    ],
)
def test_a_url_is_read(url: str, expected: dict[str, object]) -> None:
    address = parse_address(url)
    assert address == Address(hide_password(url), **expected)  # type: ignore[arg-type]
    assert "s@cret" not in repr(address)
    assert "secret" not in f"{address!r} {address}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host/0", "redis://host/0"),
        ("redis://me@host/0", "redis://me@host/0"),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("redis://me:se:cr@et@host/0", "redis://me:***@host/0"),
        ("redis://host?password=secret&db=1", "redis://host?password=***&db=1"),
        ("redis+sentinel://:x@a,b/n?sentinel_password=y", "redis+sentinel://:***@a,b/n?sentinel_password=***"),
        ("redis://host?SSL_PASSWORD=secret", "redis://host?SSL_PASSWORD=***"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert hide_password(url) == shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://:secret@host", "one of redis://, rediss://, unix://"),
        (":secret@host", "one of redis://"),
        ("redis://:secret@host/x", "a database like /0"),
        ("redis://:secret@host:port", "a port like :6379"),
        ("redis://:secret@[a", "hosts like name:6379"),
        ("redis://:secret@a]", "hosts like name:6379"),
        ("redis://:se/secret@a", "a database like /0"),
        ("redis://:se?secret@a", "hosts like name:6379"),
        ("redis+unix://:secret@", "a path after three slashes"),
        ("redis+unix://:secret@tmp/x/redis.sock", "as in redis+unix:///run/redis.sock"),
        ("redis://:secret@host:99999", "a port from 1 to 65535"),
        ("redis+sentinel://:secret@a:0/name", "a port from 1 to 65535"),
        ("redis+unix:///a?db=x&password=secret", "a database like /0"),
        ("redis+sentinel://:secret@a,b", "sentinels and a name"),
        ("redis+sentinel://:secret@/name", "sentinels and a name"),
        ("redis+sentinel://:secret@a/name/x", "a database like /0"),
    ],
)
def test_a_url_that_cannot_be_is_refused_without_its_password(url: str, expected: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        parse_address(url)
    assert expected in str(refused.value)
    assert "secret" not in str(refused.value)


def test_the_passwords_are_left_out_of_any_text() -> None:
    address = parse_address(
        "redis+sentinel://:one@a/name?sentinel_password=two&sentinel_username=me"
    )
    assert address.hide("one and two for me") == "*** and *** for me"
    assert parse_address("redis://host").hide("text") == "text"
