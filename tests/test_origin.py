from __future__ import annotations

import logging
from typing import Any

import pytest

from asgi_comet import Comet
from asgi_comet.headers import read_headers
from asgi_comet.origin import OriginRule, parse_origin


def scope(scheme: str = "http", **headers: str) -> dict[str, Any]:
    raw = [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
    return {"type": "http", "scheme": scheme, "headers": raw}


def allows(scope: dict[str, Any]) -> bool:
    return ALLOWED.allows(scope, read_headers(scope))


ALLOWED = OriginRule(["https://app.example.com", "http://dev.example.com:5173"])

PASS = [
    ("http", "example.com", "http://example.com"),
    ("http", "example.com:80", "http://example.com"),
    ("http", "example.com", "http://example.com:80"),
    ("http", "example.com:8000", "http://example.com:8000"),
    ("http", "EXAMPLE.com", "http://example.COM"),
    ("http", "example.com", "https://example.com"),  # TLS ends at a proxy
    ("http", "example.com:8443", "https://example.com:8443"),
    ("https", "example.com", "https://example.com"),
    ("https", "example.com:443", "https://example.com"),
    ("ws", "example.com", "http://example.com"),
    ("ws", "example.com", "https://example.com"),
    ("wss", "example.com", "https://example.com"),
    ("http", "[::1]:8000", "http://[::1]:8000"),
    ("http", "127.0.0.1:8000", "http://127.0.0.1:8000"),
    ("http", "api.example.com", "https://app.example.com"),
    ("http", "api.example.com", "http://dev.example.com:5173"),
]

REFUSE = [
    ("http", "example.com", "null"),
    ("http", "example.com", ""),
    ("http", "example.com", "http://evil.com"),
    ("http", "example.com", "http://evil-example.com"),
    ("http", "example.com", "http://example.com.evil.com"),
    ("http", "example.com", "http://sub.example.com"),
    ("http", "example.com", "http://example.com:8080"),
    ("http", "example.com:8000", "http://example.com"),
    ("http", "example.com:8000", "https://example.com"),
    ("https", "example.com", "http://example.com"),
    ("wss", "example.com", "http://example.com"),
    ("http", "example.com", "http://user@example.com"),
    ("http", "example.com", "http://example.com@evil.com"),
    ("http", "example.com", "http://example.com/"),
    ("http", "example.com", "http://example.com/path"),
    ("http", "example.com", "http://example.com?x"),
    ("http", "example.com", "http://example.com#x"),
    ("http", "example.com", "http://example.com:"),
    ("http", "example.com", "http://example.com:99999"),
    ("http", "example.com", "http://[::1"),
    ("http", "example.com", "ftp://example.com"),
    ("http", "example.com", "example.com"),
    ("http", "example.com", "//example.com"),
    ("http", "example.com", "http://"),
    ("http", "example.com", " http://example.com"),
    ("http", "example.com", "http://example.com, http://example.com"),
    ("http", "api.example.com", "http://app.example.com"),
    ("http", "api.example.com", "https://dev.example.com:5173"),
    ("http", "api.example.com", "https://app.example.com:8443"),
    ("http", "api.example.com", "https://xapp.example.com"),
]


@pytest.mark.parametrize(("scheme", "host", "origin"), PASS)
def test_origins_that_pass(scheme: str, host: str, origin: str) -> None:
    assert allows(scope(scheme, host=host, origin=origin))


@pytest.mark.parametrize(("scheme", "host", "origin"), REFUSE)
def test_origins_that_are_refused(
    scheme: str, host: str, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "asgi_comet.origin"):
        assert not allows(scope(scheme, host=host, origin=origin))
    assert "refused: expected an Origin among" in caplog.text


@pytest.mark.parametrize(
    ("site", "passes"),
    [("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False)],
)
def test_without_origin_the_fetch_site_decides(site: str, passes: bool) -> None:
    assert allows(scope(host="a.b", sec_fetch_site=site)) is passes


def test_a_request_with_neither_passes() -> None:
    assert allows(scope(host="a.b"))


def test_what_is_said_twice_or_about_no_host_is_refused() -> None:
    twice = scope(host="a.b", origin="http://a.b")
    twice["headers"].append((b"origin", b"http://a.b"))
    assert not allows(twice)
    hosts = scope(host="a.b", origin="http://a.b")
    hosts["headers"].append((b"host", b"a.b"))
    assert not allows(hosts)
    assert not allows(scope(origin="http://a.b"))
    assert not allows(scope(host="a b", origin="http://a.b"))
    assert not allows(scope(host="a.b", origin="http://a.b") | {"scheme": "https"})


@pytest.mark.parametrize("origin", ["example.com", "*", "null", "https://a.b/", "https://*.a.b"])
def test_an_allowed_origin_that_is_none_says_what_is_expected(origin: str) -> None:
    with pytest.raises(ValueError, match=r"expected an allowed origin like"):
        Comet("k" * 32, allowed_origins=[origin])


def test_a_text_is_no_list_of_origins() -> None:
    with pytest.raises(TypeError, match="expected allowed_origins to be a list"):
        Comet("k" * 32, allowed_origins="https://a.b")


def test_parse_origin_adds_the_default_port() -> None:
    assert parse_origin("https://A.b") == ("https", "a.b", 443)
    assert parse_origin("http://a.b") == ("http", "a.b", 80)
