"""The log names the line to write where a mistake has one usual cause."""

from __future__ import annotations

import logging

import pytest
from fastapi import Depends, FastAPI
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

from asgi_comet import ClientProcess, Comet, CometMiddleware
from tests.kit.serving import Tab, serve
from tests.kit.stage import KEY

FETCH = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize("what", ["identify", "authorize", "a page"])
def test_session_middleware_in_the_wrong_order_is_told_which_line_to_move(
    caplog: pytest.LogCaptureFixture, what: str
) -> None:
    comet = Comet(KEY)

    def read(connection: HTTPConnection) -> str | None:
        return connection.session.get("user")

    def may(connection: HTTPConnection, room: str) -> bool:
        return bool(read(connection))

    comet.family("room:{room}", authorize=may)
    if what != "authorize":
        comet.identify(read)
    app = FastAPI()
    app.add_middleware(SessionMiddleware, secret_key="s" * 32)
    app.add_middleware(CometMiddleware, comet=comet)

    @app.get("/page")
    def page() -> str:
        return comet.open_process().id

    with serve(app) as server:
        tab = Tab(server)
        caplog.clear()
        if what == "a page":
            assert server.request("GET", "/page", headers={"Cookie": tab.cookie}).status == 200
        else:
            answer = tab.post("/comet/poll", {"channels": {"room:1": "now"}})
            assert answer.status == 503
    assert "move the line app.add_middleware(SessionMiddleware, ...) below" in caplog.text


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        (FETCH, True),
        ({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"}, False),
        ({}, False),
    ],
    ids=["fetch", "a form", "no browser"],
)
def test_fetch_in_place_of_comet_fetch_is_told_once(
    caplog: pytest.LogCaptureFixture, headers: dict[str, str], told: bool
) -> None:
    comet, app = Comet(KEY), FastAPI()
    app.add_middleware(CometMiddleware, comet=comet)

    @app.get("/job")
    def job(process: ClientProcess = Depends(comet.process)) -> str:  # noqa: B008 - FastAPI's way
        return process.id

    with serve(app) as server, caplog.at_level(logging.WARNING):
        tab = Tab(server)
        for _ in range(2):
            answer = server.request("GET", "/job", headers={"Cookie": tab.cookie} | headers)
            assert answer.status == 200
    lines = [r.getMessage() for r in caplog.records if "comet.fetch(...)" in r.getMessage()]
    assert len(lines) == told


def test_a_session_without_a_tab_is_told_nothing(caplog: pytest.LogCaptureFixture) -> None:
    comet, app = Comet(KEY), FastAPI()
    app.add_middleware(CometMiddleware, comet=comet)

    @app.get("/job")
    def job(process: ClientProcess = Depends(comet.process)) -> str:  # noqa: B008 - FastAPI's way
        return process.id

    with serve(app) as server:
        tab = Tab(server)
        tab.post(f"{tab.url}/close")
        answer = server.request("GET", "/job", headers={"Cookie": tab.cookie} | FETCH)
        assert answer.status == 200
    assert "comet.fetch" not in caplog.text
