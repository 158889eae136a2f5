"""docs/operating.md#sign-in, over real sockets."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from asgi_comet import Comet
from asgi_comet.identity.tokens import OPERATOR_AGE, SKEW, Identity
from tests.kit.operating import (
    FORM,
    TOKEN_OF,
    TOKENS,
    bearer,
    cookie_of,
    sign_in,
    signed_in,
)
from tests.kit.serving import Address, Answer, serve
from tests.kit.stage import KEY, TOKEN, application

MakeServer = Callable[..., tuple[Comet, Address]]

ALLOWED = "https://app.example.com"
LOOK, OPERATE = TOKEN_OF["look"], TOKEN_OF["operate"]


@pytest.fixture(scope="module")
def signing() -> Iterator[Address]:
    with serve(application(Comet(KEY, admin=TOKENS, allowed_origins=[ALLOWED]))) as server:
        yield server


def get(server: Address, path: str, **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request("GET", f"/comet/admin{path}", headers=sent)


def is_sign_in(answer: Answer) -> bool:
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    return b"<h1>Sign in</h1>" in answer.body


# The page


def test_the_path_without_a_slash_leads_to_the_page(signing: Address) -> None:
    found = get(signing, "")
    assert (found.status, found.headers["location"]) == (307, "admin/")


def test_without_a_credential_the_page_is_the_sign_in_page(signing: Address) -> None:
    found = get(signing, "/")
    assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")
    assert is_sign_in(found)
    assert b'role="alert"' not in found.body


def test_the_sign_in_page_has_its_style_and_nothing_else(signing: Address) -> None:
    found = get(signing, "/")
    (style,) = re.findall(rb"<style>(.*?)</style>", found.body, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert found.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
    assert found.headers["cross-origin-resource-policy"] == "same-origin"
    # With `no-referrer` a browser would send the form with `Origin: null`.
    assert found.headers["referrer-policy"] == "same-origin"
    assert not re.search(rb"<script|<img|<link|style=|https?:", found.body)
    assert b'<label for="token">' in found.body
    assert b'type="password"' in found.body


def test_a_link_from_anywhere_leads_to_the_page(signing: Address) -> None:
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert get(signing, "", **link).status == 307
    assert is_sign_in(get(signing, "/", **link))
    cookie = signed_in(signing, LOOK)["Cookie"]
    assert not is_sign_in(get(signing, "/", Cookie=cookie, Sec_Fetch_Site="none"))


def test_a_wrong_credential_is_named_on_the_page(signing: Address) -> None:
    found = get(signing, "/", **bearer("x" * 32))
    assert (found.status, is_sign_in(found)) == (403, True)
    assert b'<p role="alert">wrong credential</p>' in found.body


def test_where_a_function_decides_there_is_no_form(make_server: MakeServer) -> None:
    _, server = make_server(admin=lambda connection: connection.headers.get("x-role"))
    found = get(server, "/")
    assert (found.status, is_sign_in(found)) == (403, True)
    assert b"<form" not in found.body
    assert b"Sign in to the application as an operator" in found.body
    assert not is_sign_in(get(server, "/", X_Role="look"))
    for path in ("/comet/admin/session", "/comet/admin/sign-out"):
        assert server.request("POST", path, headers={"Origin": server.url}).status == 404


def test_admin_is_not_found_unless_configured(make_server: MakeServer) -> None:
    _, server = make_server()
    for path in ("", "/", "/session", "/sign-out"):
        assert get(server, path).status == 404
        assert server.request("POST", f"/comet/admin{path}").status == 404


# Signing in and out


def test_the_right_token_sets_a_cookie_and_leads_to_the_page(signing: Address) -> None:
    found = sign_in(signing, LOOK)
    assert (found.status, found.headers["location"], found.body) == (303, "./", b"")
    pair, *attributes = found.headers["set-cookie"].split("; ")
    assert pair.startswith("comet-admin=")
    expected = ["Path=/comet/admin", "Max-Age=28800", "HttpOnly", "SameSite=Strict"]
    assert attributes == expected
    assert LOOK not in pair
    page = get(signing, "/", Cookie=pair)
    assert (page.status, is_sign_in(page)) == (200, False)


def test_on_https_the_cookie_is_secure(signing: Address) -> None:
    proxied = {"X_Forwarded_Proto": "https", "Origin": signing.url.replace("http", "https")}
    found = sign_in(signing, LOOK, **proxied)
    assert found.headers["set-cookie"].startswith("__Secure-comet-admin=")
    assert found.headers["set-cookie"].endswith("; SameSite=Strict; Secure")
    assert get(signing, "/status", Cookie=cookie_of(found), **proxied).status == 200
    # The cookie is none of plain http.
    assert get(signing, "/status", Cookie=cookie_of(found), Origin=signing.url).status == 401


def test_the_cookie_is_for_the_path_where_comet_is_mounted() -> None:
    comet = Comet(KEY, admin=TOKEN)
    outer = Starlette()
    outer.mount("/a b", application(comet))
    outer.router.lifespan_context = comet.lifespan
    with serve(outer) as server:
        sent = {"Content-Type": FORM, "Origin": server.url}
        found = server.request("POST", "/a%20b/comet/admin/session", f"token={TOKEN}", sent)
        assert "; Path=/a%20b/comet/admin; " in found.headers["set-cookie"]
        page = {"Cookie": cookie_of(found)}
        assert server.request("GET", "/a%20b/comet/admin/", headers=page).status == 200
        found = server.request("GET", "/a%20b/comet/admin")
        assert (found.status, found.headers["location"]) == (307, "admin/")


@pytest.mark.parametrize(
    "body", ["", "token=", f"token={'x' * 32}", f"other={LOOK}", "token=%FF", "token=\xff"]
)
def test_a_wrong_token_is_refused_with_the_page_that_says_so(signing: Address, body: str) -> None:
    sent = {"Content-Type": FORM, "Origin": signing.url}
    found = signing.request("POST", "/comet/admin/session", body.encode("latin-1"), sent)
    assert (found.status, is_sign_in(found)) == (403, True)
    assert b'<p role="alert">wrong credential</p>' in found.body
    assert "set-cookie" not in found.headers


def test_a_form_of_many_fields_is_not_read(signing: Address) -> None:
    sent = {"Content-Type": FORM, "Origin": signing.url}
    for fields, status in ((7, 303), (8, 400)):
        body = "x=y&" * fields + f"token={LOOK}"
        assert signing.request("POST", "/comet/admin/session", body, sent).status == status


def test_sign_out_deletes_the_cookie(signing: Address) -> None:
    sent = signed_in(signing, LOOK)
    found = signing.request("POST", "/comet/admin/sign-out", headers=sent)
    assert (found.status, found.headers["location"]) == (303, "./")
    expected = "comet-admin=; Path=/comet/admin; Max-Age=0; HttpOnly; SameSite=Strict"
    assert found.headers["set-cookie"] == expected


# A request with the cookie says its origin


FOREIGN: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "null"},
    {"Origin": ALLOWED},
    {"Origin": ALLOWED, "Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://evil.example"},
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_page_of_another_origin_neither_reads_nor_acts_with_the_cookie(
    signing: Address, origin: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    sent = {"Cookie": signed_in(signing, OPERATE)["Cookie"], **origin}
    for method, path in (
        ("GET", "status"), ("POST", "deactivate"), ("POST", "session"), ("POST", "sign-out"),
    ):  # fmt: skip
        found = signing.request(method, f"/comet/admin/{path}", headers=sent)
        assert found.status == 403
        assert "set-cookie" not in found.headers
        assert b"active" not in found.body
    assert '"active": true' in get(signing, "/status", **bearer(LOOK)).body.decode()
    assert "/comet/admin/status" in caplog.text


@pytest.mark.parametrize("own", [{"Origin": "OWN"}, {"Sec-Fetch-Site": "same-origin"}])
def test_a_page_of_the_server_reads_and_acts_with_the_cookie(
    signing: Address, own: dict[str, str]
) -> None:
    sent = {k: v.replace("OWN", signing.url) for k, v in own.items()}
    sent["Cookie"] = signed_in(signing, OPERATE)["Cookie"]
    assert signing.request("GET", "/comet/admin/status", headers=sent).status == 200
    assert signing.request("POST", "/comet/admin/activate", headers=sent).status == 200


def test_a_page_of_an_allowed_origin_may_use_a_token(signing: Address) -> None:
    found = get(signing, "/status", Origin=ALLOWED, **bearer(LOOK))
    assert (found.status, found.headers["access-control-allow-origin"]) == (200, ALLOWED)


def test_a_token_counts_before_the_cookie(signing: Address) -> None:
    sent = {**signed_in(signing, OPERATE), **bearer(LOOK)}
    assert signing.request("POST", "/comet/admin/activate", headers=sent).status == 403
    sent["Authorization"] = bearer("x" * 32)["Authorization"]
    assert signing.request("GET", "/comet/admin/status", headers=sent).status == 403
    del sent["Origin"]
    sent["Authorization"] = bearer(LOOK)["Authorization"]
    assert signing.request("GET", "/comet/admin/status", headers=sent).status == 200


def test_a_password_of_a_proxy_does_not_hide_the_cookie(signing: Address) -> None:
    sent = {**signed_in(signing, LOOK), "Authorization": "Basic YTpi"}
    assert signing.request("GET", "/comet/admin/status", headers=sent).status == 200


@pytest.mark.parametrize("more", [{}, {"Authorization": "Basic YTpi"}])
@pytest.mark.parametrize("origin", FOREIGN)
def test_where_a_function_decides_each_cookie_needs_the_origin(
    make_server: MakeServer, origin: dict[str, str], more: dict[str, str]
) -> None:
    asked: list[HTTPConnection] = []

    def ask(connection: HTTPConnection) -> bool:
        asked.append(connection)
        return connection.cookies.get("login") == "ada"

    _, server = make_server(admin=ask, allowed_origins=[ALLOWED])
    sent = {"Cookie": "login=ada", **more}
    assert get(server, "/status", **sent, **origin).status == 403
    assert not asked
    assert get(server, "/status", **sent, Origin=server.url).status == 200
    assert get(server, "/", **sent).status == 200
    assert get(server, "/").status == 403  # without a cookie the function decides
    assert len(asked) == 3


@pytest.mark.parametrize("origin", [ALLOWED, "null"])
def test_where_a_function_decides_no_other_origin_counts(
    make_server: MakeServer, origin: str
) -> None:
    def ask(connection: HTTPConnection) -> bool:
        return connection.headers.get("authorization") == "Basic YTpi"

    _, server = make_server(admin=ask, allowed_origins=[ALLOWED])
    sent = {"Authorization": "Basic YTpi"}  # a browser adds the password by itself
    for method, path in (("GET", "status"), ("POST", "deactivate")):
        headers = {**sent, "Origin": origin}
        found = server.request(method, f"/comet/admin/{path}", headers=headers)
        assert (found.status, b"active" in found.body) == (403, False)
    assert '"active": true' in get(server, "/status", **sent).body.decode()
    assert get(server, "/status", **sent, Origin=server.url).status == 200


# What ends a session


def status_of(value: str, admin: Any = None, key: Any = KEY) -> tuple[int, bytes]:
    with serve(application(Comet(key, admin=TOKENS if admin is None else admin))) as server:
        sent = {"Cookie": f"comet-admin={value}", "Origin": server.url}
        found = server.request("GET", "/comet/admin/status", headers=sent)
        page = server.request("GET", "/comet/admin/", headers=sent)
        assert page.status == found.status
        if page.status != 200:
            assert b'<p role="alert">the session has ended, sign in again</p>' in page.body
        return found.status, found.body


ENDED = (401, b"the session has ended, sign in again")


def value_of(server: Address, token: str) -> str:
    return cookie_of(sign_in(server, token)).partition("=")[2]


def test_a_session_survives_a_restart(signing: Address) -> None:
    assert status_of(value_of(signing, LOOK))[0] == 200


def test_a_session_ends_with_its_token(signing: Address) -> None:
    value = value_of(signing, LOOK)
    rest = {token: role for token, role in TOKENS.items() if token != LOOK}
    assert status_of(value, rest) == ENDED
    assert status_of(value, "n" * 32) == ENDED
    assert status_of(value_of(signing, OPERATE), OPERATE)[0] == 200


def test_a_session_ends_when_its_token_gets_another_role(signing: Address) -> None:
    for role in ("operate", "contents"):
        assert status_of(value_of(signing, LOOK), {**TOKENS, LOOK: role}) == ENDED


def test_a_session_ends_with_the_key_that_signed_it(signing: Address) -> None:
    value = value_of(signing, LOOK)
    assert status_of(value, key=[KEY, "n" * 32])[0] == 200
    assert status_of(value, key="n" * 32) == ENDED


def test_a_value_that_was_changed_or_is_of_another_purpose_is_no_session(signing: Address) -> None:
    value = value_of(signing, LOOK)
    other = Identity([KEY.encode()]).sign_session(value.rpartition(".")[0].rpartition(".")[0])
    for wrong in ("", "x", value[:-2] + "xx", value.replace("look", "contents"), other):
        assert status_of(wrong) == ENDED


def test_a_session_lasts_for_eight_hours(signing: Address) -> None:
    text = "look." + hashlib.sha256(LOOK.encode()).hexdigest()[:32]
    for ago, status in ((0.0, 200), (OPERATOR_AGE - 60, 200), (OPERATOR_AGE + SKEW + 60, 401)):
        then = time.time() - ago
        value = Identity([KEY.encode()], now=partial(float, then)).sign_operator(text)
        assert status_of(value)[0] == status


def test_a_foreign_cookie_of_the_name_does_not_hide_the_session(signing: Address) -> None:
    cookie = f"comet-admin=planted; {signed_in(signing, LOOK)['Cookie']}"
    assert get(signing, "/status", Cookie=cookie, Origin=signing.url).status == 200
