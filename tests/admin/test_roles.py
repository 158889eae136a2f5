"""The table of docs/operating.md#roles: each cell, allowed and refused, over real sockets."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_comet import Comet, CometMiddleware, Credential
from asgi_comet.admin.tokens import ROLES, Role
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import app_of
from tests.kit.operating import TOKEN_OF, TOKENS, bearer, signed_in
from tests.kit.programs import ROOT
from tests.kit.serving import Address, Answer, Tab, serve
from tests.kit.stage import KEY, TOKEN, application

MakeServer = Callable[..., tuple[Comet, Address]]

PAGE = (ROOT / "docs" / "operating.md").read_text()
BODIES = {
    "/comet/admin/timeout": ("application/json", '{"seconds": 20}'),
    "/comet/admin/command": ("text/plain", "activate"),
}
WITHOUT_ROLE = {"/admin", "/admin/session", "/admin/sign-out"}


def cells() -> Iterator[tuple[str, Role, str]]:
    """The request, the role and the cell, for each cell of the table."""
    table = PAGE[PAGE.index("\n| request | `look`") + 1 :].partition("\n\n")[0]
    head, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    for request, *found in rows:
        for role, cell in zip(head[1:], found, strict=True):
            yield request.strip("`"), ROLES[ROLES.index(role.strip("`"))], cell


CELLS = list(cells())


def send(server: Address, request: str, headers: dict[str, str]) -> Answer:
    method, _, path = request.partition(" ")
    kind, body = BODIES.get(path, ("", ""))
    return server.request(method, path, body, {"Content-Type": kind, **headers})


def by_header(connection: HTTPConnection) -> Any:
    return connection.headers.get("x-role")


@pytest.fixture(scope="module")
def tokens() -> Iterator[Address]:
    with serve(application(Comet(KEY, admin=TOKENS))) as server:
        yield server


@pytest.fixture(scope="module")
def function() -> Iterator[Address]:
    with serve(application(Comet(KEY, admin=by_header))) as server:
        yield server


def check(answer: Answer, cell: str, role: str) -> None:
    if cell == "yes":
        assert answer.status == 200, answer
    else:
        assert (cell, answer.status) == ("403", 403)
        assert answer.body.decode() == f"expected the role operate, got {role}"


def test_the_table_has_each_endpoint_that_needs_a_role() -> None:
    app = app_of(Comet(KEY, admin=TOKEN))
    assert app.dashboard is not None
    others = {r.path for r in app.dashboard.routes()}  # in docs/dashboard.md
    routes = [
        r for r in app.routes if (r.path + "/").startswith("/admin/") and r.path not in others
    ]
    expected = {f"{r.methods[0]} /comet{r.path}" for r in routes if r.role is not None}
    assert {request for request, _, _ in CELLS} == expected
    assert {r.path for r in routes if r.role is None} == WITHOUT_ROLE
    assert len(CELLS) == len(expected) * len(ROLES)


@pytest.mark.parametrize(("request_", "role", "cell"), CELLS)
def test_a_token_may_do_what_the_table_says(
    tokens: Address, request_: str, role: Role, cell: str
) -> None:
    check(send(tokens, request_, bearer(TOKEN_OF[role])), cell, role)


@pytest.mark.parametrize(("request_", "role", "cell"), CELLS)
def test_an_operator_who_has_signed_in_may_do_what_the_table_says(
    tokens: Address, request_: str, role: Role, cell: str
) -> None:
    check(send(tokens, request_, signed_in(tokens, TOKEN_OF[role])), cell, role)


@pytest.mark.parametrize(("request_", "role", "cell"), CELLS)
def test_what_a_function_answers_may_do_what_the_table_says(
    function: Address, request_: str, role: Role, cell: str
) -> None:
    check(send(function, request_, {"X-Role": role}), cell, role)


@pytest.mark.parametrize("request_", sorted({request for request, _, _ in CELLS}))
def test_each_endpoint_of_the_table_refuses_other_credentials(
    tokens: Address, function: Address, request_: str
) -> None:
    missing = send(tokens, request_, {})
    assert (missing.status, missing.headers["www-authenticate"]) == (401, "Bearer")
    for wrong in ("x" * 32, "l" * 31, "l" * 33, ""):
        assert send(tokens, request_, bearer(wrong)).status == 403
    assert send(function, request_, {}).status == 403
    assert send(function, request_, bearer(TOKEN_OF["contents"])).status == 403


@pytest.mark.parametrize(
    ("answer", "status", "activate"),
    [(None, 403, 403), (False, 403, 403), (True, 200, 200), ("look", 200, 403),
     ("operate", 200, 200), ("contents", 200, 200)],
)  # fmt: skip
def test_what_a_function_may_answer(
    make_server: MakeServer, answer: Any, status: int, activate: int,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    _, server = make_server(admin=lambda connection: answer)
    assert server.request("GET", "/comet/admin/status").status == status
    assert server.request("POST", "/comet/admin/activate").status == activate
    assert "the function given as admin" not in caplog.text


@pytest.mark.parametrize(
    ("answer", "told"),
    [("admin", "a text of 5 characters"), ("Look", "a text of 4 characters"),
     ("", "a text of 0 characters"), (TOKEN, "a text of 32 characters"), (b"look", "bytes"),
     (1, "int"), (0, "int"), ([], "list"), (["look"], "list"), (object(), "object")],
)  # fmt: skip
def test_any_other_answer_refuses_and_logs_an_error_without_the_value(
    make_server: MakeServer, answer: Any, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, server = make_server(admin=lambda connection: answer)
    refused = server.request("GET", "/comet/admin/status")
    assert (refused.status, refused.body) == (403, b"not allowed")
    (record,) = [r for r in caplog.records if r.name == "asgi_comet.admin.roles"]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "the function given as admin refuses: "
        f"expected 'look', 'operate', 'contents', True, False or None, got {told}"
    )


@pytest.mark.parametrize(
    ("credential", "error", "said"),
    [
        ("t" * 31, ValueError, "an admin token of at least 32 characters of ASCII, got 31"),
        ("é" * 32, ValueError, "of ASCII"),
        (7, TypeError, "None, a token, a mapping of tokens to roles, or a function, got int"),
        ({}, ValueError, "at least one admin token, got an empty mapping"),
        ({"t" * 31: "look"}, ValueError, "at least 32 characters of ASCII, got 31"),
        ({b"t" * 32: "look"}, TypeError, "each admin token to be str, got bytes"),
        ({"t" * 32: "all"}, ValueError, "'look', 'operate' or 'contents', got a text of 3 char"),
        ({"t" * 32: None}, ValueError, "'look', 'operate' or 'contents', got NoneType"),
        ({"t" * 32: True}, ValueError, "'look', 'operate' or 'contents', got bool"),
        ({"look": "t" * 32}, ValueError, "at least 32 characters of ASCII, got 4"),
    ],
)
def test_a_credential_that_is_none_says_what_is_expected(
    credential: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=f"expected.* {re.escape(said)}") as raised:
        Comet(KEY, admin=credential)
    assert "t" * 31 not in str(raised.value)


# The log


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:12]


def said_by(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [r.getMessage() for r in caplog.records if r.name == "asgi_comet.admin.acting"]
    return [text for text in said if not text.startswith("sign-in")]


def test_each_action_is_logged_with_the_role_and_the_digest_of_the_token(
    tokens: Address, caplog: pytest.LogCaptureFixture
) -> None:
    operate, contents = TOKEN_OF["operate"], TOKEN_OF["contents"]
    with caplog.at_level(logging.INFO, "asgi_comet.admin"):
        send(tokens, "POST /comet/admin/activate", bearer(operate))
        send(tokens, "POST /comet/admin/command", signed_in(tokens, contents))
        send(tokens, "POST /comet/admin/activate", bearer(TOKEN_OF["look"]))
        send(tokens, "GET /comet/admin/status", bearer(operate))
        wrong = {"Content-Type": "text/plain", **bearer(operate)}
        assert tokens.request("POST", "/comet/admin/command", "reboot", wrong).status == 400
    assert said_by(caplog) == [
        f"activate by token {digest(operate)} from 127.0.0.1 (operate)",
        f"command by token {digest(contents)} from 127.0.0.1 (contents)",
    ]
    assert f"sign-in by token {digest(contents)} from 127.0.0.1 (contents)" in caplog.text
    assert not any(token in caplog.text for token in TOKENS)


def test_an_action_of_a_user_is_logged_with_the_user(caplog: pytest.LogCaptureFixture) -> None:
    comet = Comet(KEY, admin=by_header)

    async def login(request: Request) -> PlainTextResponse:
        comet.login("ada\nby root")
        return PlainTextResponse("")

    app = CometMiddleware(Starlette(routes=[Route("/login", login)]), comet=comet)
    with serve(app) as server, caplog.at_level(logging.INFO, "asgi_comet.admin"):
        tab = Tab(server)
        own = {"X-Role": "operate", "Origin": server.url}
        send(server, "POST /comet/admin/activate", {"Cookie": tab.cookie, **own})
        tab.keep(server.request("GET", "/login", headers={"Cookie": tab.cookie}))
        send(server, "POST /comet/admin/activate", {"Cookie": tab.cookie, **own})
    assert said_by(caplog) == [
        "activate by 127.0.0.1 (operate)",
        r"activate by user 'ada\nby root' from 127.0.0.1 (operate)",
    ]


def test_wrong_credentials_are_logged_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    with serve(application(Comet(KEY, admin=TOKENS, clock=clock))) as server:
        for _ in range(5):
            send(server, "GET /comet/admin/status", bearer("x" * 32))
        clock.advance(1)
        send(server, "GET /comet/admin/status", bearer("x" * 32))
    assert [r.getMessage() for r in caplog.records if r.name == "asgi_comet.admin.roles"] == [
        "refused a wrong credential",
        "refused a wrong credential (4 more like this since the last line)",
    ]


def test_the_type_of_a_credential_is_public() -> None:
    credentials: list[Credential] = [TOKEN, {TOKEN: "look"}, lambda connection: "look"]
    assert all(Comet(KEY, admin=credential) for credential in credentials)
