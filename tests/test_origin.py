from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from asgi_comet import Comet
from asgi_comet.http.headers import read_headers
from asgi_comet.http.origin import OriginRule, parse_origin


def scope(scheme: str = "http", **headers: str) -> dict[str, Any]:
    raw = [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
    return {"type": "http", "scheme": scheme, "path": "/comet/poll", "headers": raw}


Cors = Sequence[tuple[bytes, bytes]] | None


def check(scope: dict[str, Any]) -> Cors:
    return ALLOWED.check(scope, read_headers(scope))


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
    ("http", "example.com.", "http://example.com."),
    ("http", "app.example.com", "https://app.example.com"),  # its own, though it is allowed, too
]

PASS_AS_ALLOWED = [
    ("http", "api.example.com", "https://app.example.com"),
    ("http", "api.example.com", "https://app.example.com:443"),
    ("http", "api.example.com", "HTTPS://APP.Example.com"),
    ("http", "api.example.com", "http://dev.example.com:5173"),
    ("https", "api.example.com", "http://dev.example.com:5173"),
    ("ws", "api.example.com", "https://app.example.com"),
    ("wss", "api.example.com", "http://dev.example.com:5173"),
    ("https", "", "https://app.example.com"),
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
    ("http", "api.example.com", "https://app.example.com."),
    ("http", "api.example.com", "https://user@app.example.com"),
    ("http", "example.com", "ws://example.com"),
    ("ws", "example.com", "ws://example.com"),
    ("http", "example.com", "http://example.com."),
    ("http", "example.com.", "http://example.com"),
    ("http", "example.com", "http:/example.com"),
    ("http", "example.com", "http:\\\\example.com"),
    ("http", "example.com", "http://exa%6dple.com"),
    ("http", "example.com", "http://example.com\t"),
    ("http", "example.com", "http://example.com:+80"),
    ("http", "example.com", "http://example.com: 80"),
    ("http", "example.com:65535", "http://example.com:65536"),
]


@pytest.mark.parametrize(("scheme", "host", "origin"), PASS)
def test_a_page_of_our_own_passes_and_needs_no_headers(scheme: str, host: str, origin: str) -> None:
    assert check(scope(scheme, host=host, origin=origin)) == ()


@pytest.mark.parametrize(("scheme", "host", "origin"), PASS_AS_ALLOWED)
def test_an_allowed_origin_passes_and_its_page_may_read_the_answer(
    scheme: str, host: str, origin: str
) -> None:
    found = check(scope(scheme, host=host, origin=origin))
    assert found is not None
    headers = dict(found)
    assert len(headers) == len(found)
    # A browser compares it with what it sent, letter by letter.
    assert headers[b"access-control-allow-origin"] == origin.encode()
    assert headers[b"access-control-allow-credentials"] == b"true"
    assert headers[b"access-control-expose-headers"] == b"retry-after"
    assert headers[b"vary"] == b"Origin"


@pytest.mark.parametrize(("scheme", "host", "origin"), REFUSE)
def test_origins_that_are_refused(
    scheme: str, host: str, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "asgi_comet.http.origin"):
        assert check(scope(scheme, host=host, origin=origin)) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert ": expected Origin " in caplog.text


def test_a_refusal_logs_what_was_expected_and_what_came(caplog: pytest.LogCaptureFixture) -> None:
    assert check(scope(host="a.b:8000", origin="http://evil.com")) is None
    assert caplog.messages == [
        "refused '/comet/poll': expected Origin http://a.b:8000 or https://a.b:8000, "
        "got b'http://evil.com'; if that is a page of this application, have the proxy pass the "
        "header Host on, or say allowed_origins=['http://evil.com']"
    ]
    caplog.clear()
    assert check(scope(host="a.b", sec_fetch_site="cross-site")) is None
    assert caplog.messages == [
        "refused '/comet/poll': expected Sec-Fetch-Site same-origin, got b'cross-site'"
    ]


def test_what_passes_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    for origin in ("http://a.b", "https://app.example.com"):
        assert check(scope(host="a.b", origin=origin)) is not None
    assert check(scope(host="a.b")) == ()
    assert caplog.records == []


SITES = {
    "same-origin": (),
    "none": (),
    "same-site": None,
    "cross-site": None,
    "": None,
    "Same-Origin": None,
    "same-origin, none": None,
    "x": None,
}


@pytest.mark.parametrize("site", SITES)
def test_without_origin_the_fetch_site_decides(site: str) -> None:
    assert check(scope(host="a.b", sec_fetch_site=site)) == SITES[site]


@pytest.mark.parametrize("site", SITES)
def test_where_there_is_an_origin_it_decides(site: str) -> None:
    assert check(scope(host="a.b", origin="http://a.b", sec_fetch_site=site)) == ()
    assert check(scope(host="a.b", origin="http://b.b", sec_fetch_site=site)) is None


def test_a_request_with_neither_passes() -> None:
    assert check(scope(host="a.b")) == ()
    assert check(scope()) == ()


def test_what_is_said_twice_or_about_no_host_is_refused() -> None:
    twice = scope(host="a.b", origin="http://a.b")
    twice["headers"].append((b"origin", b"http://a.b"))
    assert check(twice) is None
    both = scope(host="a.b", origin="http://a.b")
    both["headers"].append((b"origin", b"https://app.example.com"))
    assert check(both) is None
    hosts = scope(host="a.b", origin="http://a.b")
    hosts["headers"].append((b"host", b"a.b"))
    assert check(hosts) is None
    assert check(scope(origin="http://a.b")) is None
    assert check(scope(host="a b", origin="http://a.b")) is None
    assert check(scope(host="", origin="http://")) is None
    assert check(scope("https", host="a.b", origin="http://a.b")) is None


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


@pytest.mark.parametrize(
    "text",
    ["http://example.com:0", "http://[::1].evil.com", "http://a[::1]", "http://[::1]80",
     "http://[v1.abc]", "http://::1", "http://[example.com]", "http://*", "http://a_b:80:80"],
)  # fmt: skip
def test_what_is_no_origin_to_the_letter_is_none(text: str) -> None:
    assert parse_origin(text) is None


def test_a_scheme_that_nobody_knows_is_taken_for_http() -> None:
    scope = {"type": "http", "scheme": "gopher", "path": "/comet/poll"}
    headers = {b"host": b"a.b", b"origin": b"http://a.b"}
    assert OriginRule([]).check(scope, headers) == ()


def test_the_line_of_a_refusal_is_short_and_holds_no_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for headers in (
        {"host": "a" * 60_000, "origin": "b" * 60_000},
        {"host": "a.b", "origin": "http://" + "b" * 255},
        {"host": "a.b", "sec_fetch_site": "c" * 60_000},
    ):
        refused = scope(**headers)
        refused["path"] = "/comet/p/SECRETtoken.of-it/poll" + "x" * 60_000
        assert check(refused) is None
    for line in caplog.messages:
        assert len(line) < 1200
        assert "/comet/p/SECRET…/poll" in line
        assert "token" not in line


def test_a_refusal_of_what_no_setting_allows_names_no_setting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert check(scope(host="a.b", origin="null")) is None
    assert "allowed_origins" not in caplog.text


def is_own(scope: dict[str, Any]) -> bool:
    return ALLOWED.is_own(scope, read_headers(scope))


@pytest.mark.parametrize(("scheme", "host", "origin"), PASS)
def test_a_page_of_our_own_proves_that_it_is_one(scheme: str, host: str, origin: str) -> None:
    assert is_own(scope(scheme, host=host, origin=origin))
    assert is_own(scope(scheme, host=host, origin=origin, sec_fetch_site="cross-site"))


@pytest.mark.parametrize(("scheme", "host", "origin"), [*PASS_AS_ALLOWED, *REFUSE])
def test_a_page_of_an_allowed_origin_is_none_of_our_own(
    scheme: str, host: str, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert not is_own(scope(scheme, host=host, origin=origin))
    assert not is_own(scope(scheme, host=host, origin=origin, sec_fetch_site="same-origin"))
    assert "refused '/comet/poll': expected Origin" in caplog.text


@pytest.mark.parametrize(
    ("site", "own"),
    [("same-origin", True), ("none", False), ("same-site", False), ("cross-site", False)],
)
def test_without_an_origin_only_a_page_of_the_same_one_proves_it(site: str, own: bool) -> None:
    assert is_own(scope(host="example.com", sec_fetch_site=site)) is own
    assert not is_own(scope(host="example.com"))
