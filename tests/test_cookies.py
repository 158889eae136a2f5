from __future__ import annotations

from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Scope

from asgi_comet import Settings
from asgi_comet.identity.cookies import COOKIE_AGE, Cookie
from asgi_comet.identity.tokens import SESSION_AGE
from asgi_comet.settings import SameSite

PLAIN = ["http", "ws", None]
SECURE = ["https", "wss"]


def request(*cookies: str, scheme: str | None = "http") -> Scope:
    headers = [(b"host", b"x"), *((b"cookie", value.encode("latin-1")) for value in cookies)]
    scope: Scope = {"type": "http", "headers": headers}
    return scope if scheme is None else {**scope, "scheme": scheme}


def read(*cookies: str, scheme: str | None = "http", name: str = "comet") -> list[str]:
    return list(Cookie(name, "lax").read(request(*cookies, scheme=scheme)))


def attributes(cookie: Cookie, scheme: str | None) -> tuple[str, str, set[str]]:
    key, header = cookie.write(request(scheme=scheme), "VALUE.of-it")
    assert key == b"set-cookie"
    pair, *rest = header.decode().split("; ")
    name, _, value = pair.partition("=")
    assert len(rest) == len(set(rest))
    return name, value, set(rest)


@pytest.mark.parametrize("scheme", PLAIN)
def test_on_http_it_is_for_scripts_of_nobody_and_lasts_30_days(scheme: str | None) -> None:
    expected = {"Path=/", "Max-Age=2592000", "HttpOnly", "SameSite=Lax"}
    assert attributes(Cookie("comet", "lax"), scheme) == ("comet", "VALUE.of-it", expected)


@pytest.mark.parametrize("scheme", SECURE)
def test_on_https_it_is_secure_and_of_this_host_only(scheme: str) -> None:
    expected = {"Path=/", "Max-Age=2592000", "HttpOnly", "SameSite=Lax", "Secure"}
    assert attributes(Cookie("comet", "lax"), scheme) == ("__Host-comet", "VALUE.of-it", expected)


@pytest.mark.parametrize(
    ("setting", "attribute"), [("lax", "Lax"), ("strict", "Strict"), ("none", "None")]
)
@pytest.mark.parametrize("scheme", [*PLAIN, *SECURE])
def test_same_site_is_as_set(setting: SameSite, attribute: str, scheme: str | None) -> None:
    assert f"SameSite={attribute}" in attributes(Cookie("c", setting), scheme)[2]


def test_its_name_and_same_site_are_those_of_the_settings_and_its_age_that_of_a_session() -> None:
    settings = Settings()
    assert (settings.cookie_name, settings.cookie_samesite) == ("comet", "lax")
    assert COOKIE_AGE == SESSION_AGE


def test_the_standard_library_reads_what_is_written() -> None:
    _, header = Cookie("comet", "strict").write(request(scheme="https"), "a.b-c_d")
    morsel = SimpleCookie(header.decode())["__Host-comet"]
    assert (morsel.value, morsel["path"], morsel["max-age"]) == ("a.b-c_d", "/", "2592000")
    assert (morsel["samesite"], morsel["secure"], morsel["httponly"]) == ("Strict", True, True)
    assert morsel["domain"] == ""


@pytest.mark.parametrize(
    ("cookies", "values"),
    [
        (["comet=v"], ["v"]),
        (["a=1; comet=v; b=2"], ["v"]),
        (["a=1;comet=v;b=2"], ["v"]),
        (["a=1;\t comet=v \t;b=2"], ["v"]),
        (["comet=v;"], ["v"]),
        (["comet=v=w=="], ["v=w=="]),
        (["comet="], [""]),
        (["comet"], [""]),
        (["a=comet=v"], []),
        (["a=comet; b=comet"], []),
        (["xcomet=v"], []),
        (["comet2=v"], []),
        (["COMET=v"], []),
        (["xcomet=1; comet2=2; comet=v; comet-=3"], ["v"]),
        (["; ;=;==; comet=v"], ["v"]),
        ([""], []),
        ([], []),
        (["comet=é"], ["é"]),
    ],
)
def test_it_is_found_among_others_by_its_whole_name(cookies: list[str], values: list[str]) -> None:
    assert read(*cookies) == values


def test_several_headers_and_duplicates_are_read_in_the_order_they_came() -> None:
    assert read("comet=1; a=2", "b=3", "comet=4; comet=5") == ["1", "4", "5"]


@pytest.mark.parametrize("scheme", SECURE)
def test_on_https_the_plain_name_is_not_read(scheme: str) -> None:
    assert read("comet=plain; __Host-comet=ours", scheme=scheme) == ["ours"]
    assert read("comet=plain", scheme=scheme) == []
    assert read("__host-comet=other", scheme=scheme) == []


@pytest.mark.parametrize("scheme", PLAIN)
def test_on_http_the_name_of_https_is_not_read(scheme: str | None) -> None:
    assert read("__Host-comet=secure; comet=ours", scheme=scheme) == ["ours"]
    assert read("__Host-comet=secure", scheme=scheme) == []


def test_other_headers_are_no_cookies() -> None:
    scope: Scope = {"type": "http", "scheme": "http", "headers": [(b"x-cookie", b"comet=v")]}
    assert list(Cookie("comet", "lax").read(scope)) == []


OTHERS = st.text(st.characters(max_codepoint=255, exclude_characters=";"), max_size=20)


@given(st.lists(OTHERS.filter(lambda text: text.strip(" \t").partition("=")[0] != "comet")))
def test_whatever_stands_around_it_it_is_found_once(others: list[str]) -> None:
    for place in range(len(others) + 1):
        cookies = [*others[:place], "comet=v.w", *others[place:]]
        assert read(";".join(cookies)) == ["v.w"]
        assert read(*cookies) == ["v.w"]


def test_four_values_are_looked_at_and_no_fifth() -> None:
    values = [str(n) for n in range(5)]
    assert read("; ".join(f"comet={value}" for value in values)) == values[:4]
    assert read(*(f"comet={value}" for value in values)) == values[:4]


def test_a_value_of_256_characters_is_looked_at_and_one_of_257_passed_over() -> None:
    assert read(f"comet={'x' * 257}; comet={'x' * 256}") == ["x" * 256]


def test_cookies_are_searched_for_64_kib_and_no_further() -> None:
    def after(size: int) -> str:
        return f"{'x' * (size - 9)}; comet=v"

    assert read(after(65536)) == ["v"]
    assert read(after(65537)) == [""]  # cut off, so it is not ours
    assert read(f"comet=1; {'x' * 65536}", "comet=2") == ["1"]
