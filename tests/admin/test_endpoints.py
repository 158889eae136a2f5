"""The table of docs/operating.md#the-admin-endpoint, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from asgi_comet import Comet
from asgi_comet.testing import wait_for_listeners
from tests.kit.serving import Address, Answer, hold_registration
from tests.kit.stage import TOKEN
from tests.kit.workers import one_worker

MakeServer = Callable[..., tuple[Comet, Address]]

BEARER = {"Authorization": f"Bearer {TOKEN}"}
ENDPOINTS = ["status", "activate", "deactivate", "timeout", "command"]


def post(server: Address, path: str, body: Any = b"", kind: str = "", **headers: str) -> Answer:
    sent = {**BEARER, **headers} | ({"Content-Type": kind} if kind else {})
    return server.request("POST", f"/comet/admin/{path}", body, sent)


def status(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


@one_worker("the figures of several are in test_status_of_workers.py")
def test_status_tells_what_goes_on(comet: Comet, server: Address) -> None:
    channel = comet.channels.create("news")
    held = hold_registration(server, "registration=news")
    wait_for_listeners(channel, 1)
    answer = server.request("GET", "/comet/admin/status", headers=BEARER)
    assert status(answer) == {
        "active": True,
        "timeout": 20.0,
        "channels": 1,
        "listeners": 1,
        "processes": 0,
        "restarts": 0,
        "several_workers": False,
    }
    channel.write("x")
    held.answer()


def test_activate_and_deactivate(comet: Comet, server: Address) -> None:
    channel = comet.channels.create("news")
    held = hold_registration(server, "registration=news")
    wait_for_listeners(channel, 1)
    assert status(post(server, "deactivate"))["active"] is False
    assert held.answer().status == 503
    assert not comet.activation.active
    assert status(server.request("GET", "/comet/admin/status", headers=BEARER))["active"] is False
    assert status(post(server, "deactivate"))["active"] is False
    assert status(post(server, "activate"))["active"] is True
    assert comet.activation.active


def test_timeout_with_and_without_kill(comet: Comet, server: Address) -> None:
    channel = comet.channels.create("news")
    held = hold_registration(server, "registration=news")
    wait_for_listeners(channel, 1)
    assert status(post(server, "timeout", '{"seconds": 5}', "application/json"))["timeout"] == 5
    assert channel.listeners == 1
    found = post(server, "timeout", '{"seconds": 6.5, "kill": true}', "application/json")
    assert status(found)["timeout"] == 6.5
    assert held.answer().body == b""


@pytest.mark.parametrize(
    "body",
    ["", "x", "[]", "{}", '{"seconds": "5"}', '{"seconds": true}', '{"seconds": null}',
     '{"seconds": 0}', '{"seconds": -1}', '{"seconds": 3601}', '{"seconds": NaN}',
     '{"seconds": Infinity}', '{"seconds": 1e999}', '{"seconds": 5, "kill": 1}',
     '{"seconds": 5, "more": 1}', "\xff", "[" * 10_000],
)  # fmt: skip
def test_a_timeout_out_of_range_or_shape_is_400_and_changes_nothing(
    comet: Comet, server: Address, body: str
) -> None:
    answer = post(server, "timeout", body.encode("latin-1"), "application/json")
    assert answer.status == 400
    assert answer.body.startswith(b"expected ")
    assert comet.activation.timeout == 20


def test_the_command_language_over_http(comet: Comet, server: Address) -> None:
    assert status(post(server, "command", "comet:set_timeout 5 KILL", "text/plain"))["timeout"] == 5
    found = status(post(server, "command", "deactivate\n", "text/plain; charset=utf-8"))
    assert found["active"] is False
    answer = post(server, "command", "reboot", "text/plain")
    assert answer.status == 400
    assert answer.body.startswith(b"expected 'activate', 'deactivate'")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_admin_is_not_found_unless_configured(make_server: MakeServer, endpoint: str) -> None:
    _, server = make_server()
    for method in ("GET", "POST"):
        assert server.request(method, f"/comet/admin/{endpoint}", headers=BEARER).status == 404


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_without_a_credential_401_and_with_a_wrong_one_403(
    comet: Comet, server: Address, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    method = "GET" if endpoint == "status" else "POST"
    path = f"/comet/admin/{endpoint}"
    missing = server.request(method, path)
    assert (missing.status, missing.headers["www-authenticate"]) == (401, "Bearer")
    for wrong in ["Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ", "é"]:
        headers = {"Authorization": wrong}
        assert server.request(method, path, headers=headers).status == 403
    assert comet.activation.active
    assert TOKEN not in caplog.text
    right = server.request(method, path, headers={"Authorization": f"bearer {TOKEN}"})
    assert right.status not in (401, 403)


def test_a_credential_function_decides(make_server: MakeServer) -> None:
    def sync(connection: HTTPConnection) -> bool:
        return connection.headers.get("x-role") == "operator"

    async def later(connection: HTTPConnection) -> bool:
        await asyncio.sleep(0)
        return sync(connection)

    class Asker:
        async def __call__(self, connection: HTTPConnection) -> bool:
            return sync(connection)

    for credential in (sync, later, Asker()):
        _, server = make_server(admin=credential)
        path = "/comet/admin/status"
        assert server.request("GET", path, headers={"X-Role": "operator"}).status == 200
        assert server.request("GET", path).status == 403


def test_wrong_methods_types_and_paths(server: Address) -> None:
    got = server.request("GET", "/comet/admin/activate", headers=BEARER)
    assert (got.status, got.headers["allow"]) == (405, "POST")
    got = post(server, "status")
    assert (got.status, got.headers["allow"]) == (405, "GET")
    assert post(server, "timeout", "{}", "text/plain").status == 415
    assert post(server, "command", "activate", "application/json").status == 415
    assert post(server, "command", "activate").status == 415
    assert post(server, "unknown").status == 404
    assert post(server, "").status == 405
    assert server.request("POST", "/comet/admin", headers=BEARER).status == 405


def test_a_body_over_the_limit_is_413(server: Address) -> None:
    assert post(server, "command", b"x" * 65537, "text/plain").status == 413


def test_a_foreign_origin_is_refused_before_the_credential(server: Address) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = post(server, "deactivate", **headers)
        assert (answer.status, answer.body) == (403, b"this page's origin is not allowed")
    assert status(post(server, "activate", Origin=server.url))["active"] is True


def test_a_client_that_leaves_while_sending_harms_nothing(comet: Comet, server: Address) -> None:
    with server.connect() as connection:
        connection.sendall(
            f"POST /comet/admin/command HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\nact".encode()
        )
    assert status(post(server, "activate"))["active"] is True


def test_a_credential_function_that_raises_lets_nobody_in(make_server: MakeServer) -> None:
    def fail(connection: HTTPConnection) -> bool:
        raise LookupError(connection.url.path)

    comet, server = make_server(admin=fail)
    assert server.request("POST", "/comet/admin/deactivate").status == 500
    assert comet.activation.active
