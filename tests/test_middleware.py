from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from anyio import sleep_forever
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_comet import (
    SITE,
    Channel,
    Comet,
    CometMiddleware,
    NotRunning,
    Settings,
    TooManyVirtualChannels,
)
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import inside
from tests.kit.serving import COMET, hold_registration, poll, serve
from tests.kit.stage import KEY, TOKEN, application
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio

BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def nothing() -> AsyncIterator[int]:
    return
    yield


class Recorder:
    """An application that keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Scope, Receive, Send]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append((scope, receive, send))


def http(path: str = "/", content_type: bytes | None = None, **more: Any) -> Scope:
    headers = [] if content_type is None else [(b"content-type", content_type)]
    return {"type": "http", "method": "POST", "path": path, "headers": headers, **more}


FOREIGN: list[Scope] = [
    http("/"),
    http("/comets"),
    http("/comet.js"),
    http("/x/comet/open"),
    http("/", b"application/json"),
    http("/", b"text/plain; application/x-ocsigen-comet"),
    http("/", b"application/x-ocsigen-comet, text/plain"),
    http("/", b"application/x-ocsigen-comet2"),
    {"type": "websocket", "path": "/", "headers": [(b"content-type", COMET.encode())]},
    {"type": "of the future"},
]


@pytest.mark.parametrize("scope", FOREIGN)
async def test_foreign_requests_pass_through_untouched(scope: Scope) -> None:
    app = Recorder()
    before = {**scope}

    async def receive() -> Any:
        raise AssertionError("read")

    async def send(message: Any) -> None:
        raise AssertionError("sent")

    await CometMiddleware(app, comet=Comet(KEY))(scope, receive, send)
    ((its_scope, its_receive, its_send),) = app.calls
    assert its_scope is scope
    assert scope == before
    assert its_receive is receive
    if scope["type"] == "http":  # there, `send` may add a cookie, and else passes on what it gets
        sent: list[Any] = []
        message = {"type": "http.response.start", "status": 200, "headers": []}

        async def keep(message: Any) -> None:
            sent.append(message)

        await CometMiddleware(app, comet=Comet(KEY))(scope, receive, keep)
        await app.calls[1][2](message)
        assert sent[0] is message
    else:
        assert its_send is send


async def test_a_content_type_said_twice_is_foreign() -> None:
    app = Recorder()
    scope = http()
    scope["headers"] = [(b"content-type", COMET.encode())] * 2
    await CometMiddleware(app, comet=Comet(KEY))(scope, None, None)  # type: ignore[arg-type]  # unused
    assert len(app.calls) == 1


@pytest.mark.parametrize(
    "scope",
    [
        http("/comet"),
        http("/comet/x"),
        http("/", COMET.encode()),
        http("/api/comet/x", root_path="/api"),
    ],
)
async def test_our_requests_without_a_lifespan_say_what_to_add(scope: Scope) -> None:
    app = Recorder()
    with pytest.raises(NotRunning, match=r"add_middleware\(CometMiddleware, comet=comet\)"):
        await CometMiddleware(app, comet=Comet(KEY))(scope, None, None)  # type: ignore[arg-type]  # unused
    assert app.calls == []


def test_mounted_with_add_middleware_in_fastapi() -> None:
    comet = Comet(KEY, admin=TOKEN)
    app = FastAPI()
    app.add_middleware(CometMiddleware, comet=comet)

    @app.post("/echo")
    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    with serve(app) as server:
        assert server.request("POST", "/echo", "hello").body == b'"hello"'
        assert server.register("registration=a", "/any/path").pairs == [b"a:ENDED_CHANNEL"]
        assert server.request("GET", "/comet/admin/status", headers=BEARER).status == 200
        assert server.request("GET", "/comet/nothing").status == 404


def test_wrapped_around_an_application_with_another_prefix() -> None:
    comet = Comet(KEY, admin=TOKEN, prefix="/live/push")
    with serve(CometMiddleware(Starlette(), comet=comet)) as server:
        assert server.request("GET", "/live/push/admin/status", headers=BEARER).status == 200
        assert server.request("GET", "/comet/admin/status", headers=BEARER).status == 404
        assert server.register("registration=a").status == 200


def test_mounted_as_an_application_with_its_lifespan() -> None:
    comet = Comet(KEY, admin=TOKEN)
    app = FastAPI(lifespan=comet.lifespan)
    app.mount("/push", comet.app)
    channel = comet.channels.create("news")
    with serve(app) as server:
        assert server.request("GET", "/push/admin/status", headers=BEARER).status == 200
        held = hold_registration(server, "registration=news", "/push/")
        wait_for_listeners(channel, 1)
        channel.write("x")
        assert held.answer().body == b"news:x"
        assert server.register("registration=a", "/elsewhere").status == 404


def test_an_application_served_below_a_root_path() -> None:
    comet = Comet(KEY, admin=TOKEN)
    outer = Starlette()
    outer.mount("/api", application(comet))
    outer.router.lifespan_context = comet.lifespan
    with serve(outer) as server:
        assert server.request("GET", "/api/comet/admin/status", headers=BEARER).status == 200
        assert server.request("GET", "/comet/admin/status", headers=BEARER).status == 404
        assert server.request("GET", "/api/x").body == b"GET /api/x "


@pytest.mark.parametrize("stripped", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_root_path_that_a_proxy_takes_off_or_leaves(stripped: bool, inside: bool) -> None:
    comet = Comet(KEY, admin=TOKEN)
    inner = application(comet) if inside else CometMiddleware(Starlette(), comet=comet)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"] if stripped else "/api" + scope["path"]
            scope = {**scope, "root_path": "/api", "path": path}
        await inner(scope, receive, send)

    with serve(app) as server:
        assert server.request("GET", "/comet/admin/status", headers=BEARER).status == 200
        opened = json.loads(server.request("POST", "/comet/open").body)
        assert opened["url"] == f"/api/comet/p/{opened['process']}"


def test_the_lifespan_goes_around_that_of_the_application() -> None:
    seen: list[bool] = []
    comet = Comet(KEY)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        seen.append(inside(comet).loop.running)
        yield
        seen.append(inside(comet).loop.running)

    app = CometMiddleware(Starlette(lifespan=lifespan), comet=comet)
    with serve(app):
        pass
    assert seen == [True, True]
    assert not inside(comet).loop.running


class Pool:
    """What an application opens as it starts and closes as it stops, and sources read."""

    def __init__(self) -> None:
        self.open = False
        self.said: list[str] = []

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        await checkpoint()
        self.open = True
        self.said.append("opens")
        try:
            yield
        finally:
            self.open = False
            self.said.append("closes")

    async def read(self, app: object = None) -> AsyncIterator[int]:
        self.said.append("source begins")
        assert self.open
        try:
            yield 1
            await sleep_forever()
        finally:
            assert self.open
            self.said.append("source closes")


ORDER = ["opens", "source begins", "source closes", "closes"]


def serve_pool(comet: Comet, app: ASGIApp, pool: Pool) -> None:
    @comet.channel("ticker", type=int)
    async def ticker() -> AsyncIterator[int]:
        async with aclosing(pool.read()) as values:  # type: ignore[type-var]  # a generator
            async for value in values:
                yield value

    with serve(app) as server:
        (event,) = poll(server, {"ticker": "last:1"})[:1]
        assert event["channel"] == "ticker"
    assert inside(comet).channels.restarts == 0
    assert not inside(comet).loop.running


def test_sources_run_within_the_lifespan_of_the_application() -> None:
    comet, pool = Comet(KEY), Pool()
    app = FastAPI(lifespan=pool.lifespan)
    app.add_middleware(CometMiddleware, comet=comet)
    serve_pool(comet, app, pool)
    assert pool.said == ORDER


def test_mounted_twice_sources_run_within_the_lifespan_of_the_application() -> None:
    comet, pool = Comet(KEY), Pool()
    app = CometMiddleware(Starlette(lifespan=pool.lifespan), comet=comet)
    serve_pool(comet, CometMiddleware(app, comet=comet), pool)
    assert pool.said == ORDER


@pytest.mark.parametrize("with_middleware", [True, False])
def test_in_the_lifespan_of_the_application_sources_run_from_there(with_middleware: bool) -> None:
    comet, pool = Comet(KEY), Pool()

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        async with pool.lifespan(), comet.lifespan():
            await wait_all_tasks_blocked()
            assert pool.said == ["opens", "source begins"]
            yield

    app: ASGIApp = Starlette(lifespan=lifespan, routes=[Mount("/comet", comet.app)])
    serve_pool(comet, CometMiddleware(app, comet=comet) if with_middleware else app, pool)
    assert pool.said == ORDER


def test_without_a_lifespan_of_the_application_sources_run_within_ours() -> None:
    comet, pool = Comet(KEY), Pool()
    pool.open = True

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"

    serve_pool(comet, CometMiddleware(bare, comet=comet), pool)
    assert pool.said == ORDER[1:3]


async def test_no_source_is_read_if_the_application_does_not_start() -> None:
    comet, sent = Comet(KEY), list[str]()
    read: list[str] = []

    @comet.channel("ticker")
    async def ticker() -> AsyncIterator[int]:
        read.append("begins")
        yield 1

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        ticker.channel().publish(7)
        await wait_all_tasks_blocked()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await CometMiddleware(failing, comet=comet)({"type": "lifespan"}, receive, send)
    assert (sent, read) == (["lifespan.startup.failed"], [])


@pytest.mark.parametrize("own", [True, False], ids=["lifespan of its own", "none"])
async def test_too_many_channels_are_told_to_the_server_as_a_failure_to_start(own: bool) -> None:
    comet, pool, sent = Comet(KEY, settings=Settings(max_virtual_channels=1)), Pool(), list[Any]()
    for name in ("a", "b"):
        comet.channel(name, type=int)(nothing)

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        return

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    app = CometMiddleware(Starlette(lifespan=pool.lifespan) if own else bare, comet=comet)
    with pytest.raises(TooManyVirtualChannels):
        await app({"type": "lifespan", "state": {}}, receive, send)
    (failed,) = sent
    assert failed["type"] == "lifespan.startup.failed"
    assert "at most 1 live channels" in failed["message"]
    assert inside(comet).loop.running is pool.open is False


def test_both_the_middleware_and_the_lifespan_count_as_one() -> None:
    comet = Comet(KEY)
    app = Starlette(lifespan=comet.lifespan)
    with serve(CometMiddleware(app, comet=comet)) as server:
        assert server.register("registration=a").status == 200
    assert not inside(comet).loop.running


@pytest.mark.parametrize("reads_first", [False, True])
def test_an_application_without_a_lifespan_gets_ours(
    reads_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        if reads_first:
            await receive()
        assert scope["type"] == "http"

    comet = Comet(KEY)
    with caplog.at_level(logging.INFO), serve(CometMiddleware(bare, comet=comet)) as server:
        assert server.register("registration=a").status == 200
    assert "the application has no lifespan" in caplog.text


def test_an_application_that_ignores_the_lifespan_gets_ours() -> None:
    async def ignoring(scope: Scope, receive: Receive, send: Send) -> None:
        return

    comet = Comet(KEY)
    with serve(CometMiddleware(ignoring, comet=comet)) as server:
        assert server.register("registration=a").status == 200


def test_an_application_whose_startup_fails_is_told_as_it_is() -> None:
    @asynccontextmanager
    async def broken(app: Starlette) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    comet = Comet(KEY)
    app = CometMiddleware(Starlette(lifespan=broken), comet=comet)
    with pytest.raises(LookupError, match="no database"), TestClient(app):
        pass
    assert not inside(comet).loop.running


def test_with_the_test_client_of_starlette() -> None:
    comet = Comet(KEY, admin=TOKEN)
    app = application(comet)
    with TestClient(app) as client:
        assert client.get("/comet/admin/status", headers=BEARER).json()["active"] is True
        answer = client.post("/", content=b"registration=a", headers={"Content-Type": COMET})
        assert answer.text == "a:ENDED_CHANNEL"
    with TestClient(app) as client:  # and again, in another event loop
        assert client.get("/comet/admin/status", headers=BEARER).json()["active"] is True
    with pytest.raises(NotRunning):
        TestClient(app).get("/comet/admin/status", headers=BEARER)


def test_no_message_is_carried_from_one_test_to_the_next() -> None:
    comet = Comet(KEY)
    news: Channel[str] = comet.create(scope=SITE, name="news")
    app = application(comet)
    positions: list[str] = []
    for number in range(2):
        with TestClient(app) as client:
            ask = {"channels": {"news": "last:9"}, "idle": True}
            (where,) = client.post("/comet/poll", json=ask).json()["events"]
            positions.append(where["position"])
            news.publish(str(number))
            *_, event = client.post("/comet/poll", json=ask).json()["events"]
            assert event["data"] == str(number)
    assert [position.partition(".")[2] for position in positions] == ["0", "0"]
    assert positions[0] != positions[1]


def test_a_tab_that_says_goodbye_to_a_declared_channel_logs_nothing_at_shutdown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    comet = Comet(KEY)

    @comet.channel("room:{room}")
    async def rooms(room: int) -> AsyncIterator[str]:
        await sleep_forever()
        yield ""

    async def enter(request: Request) -> JSONResponse:
        tab = comet.open_process()
        tab.on_close(lambda _: rooms.channel(room=1).publish("left"))
        return JSONResponse(rooms.channel(room=1).reference())

    app = Starlette(
        routes=[Route("/", enter)], middleware=[Middleware(CometMiddleware, comet=comet)]
    )
    with caplog.at_level(logging.WARNING, "asgi_comet"), serve(app) as server:
        for _ in range(3):
            assert server.request("GET", "/").status == 200
    assert [record.getMessage() for record in caplog.records] == []


def test_a_callback_that_fails_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    comet = Comet(KEY)

    async def enter(request: Request) -> JSONResponse:
        comet.open_process().on_close(lambda _: 1 / 0)
        return JSONResponse({})

    app = Starlette(
        routes=[Route("/", enter)], middleware=[Middleware(CometMiddleware, comet=comet)]
    )
    with serve(app) as server:
        server.request("GET", "/")
    (failed,) = [
        record for record in caplog.records if record.name == "asgi_comet.identity.goodbyes"
    ]
    assert failed.getMessage().startswith("an on_close callback failed: tests.test_middleware.")
    assert failed.getMessage().endswith(".enter.<lambda>")


async def pass_on(request: Request, call_next: Any) -> Any:
    return await call_next(request)


def test_inside_and_outside_of_other_middlewares(caplog: pytest.LogCaptureFixture) -> None:
    others = [Middleware(BaseHTTPMiddleware, dispatch=pass_on), Middleware(GZipMiddleware)]
    for order in ("inside", "outside"):
        comet = Comet(KEY)
        ours = Middleware(CometMiddleware, comet=comet)
        channel = comet.channels.create("news")
        stack = [*others, ours] if order == "inside" else [ours, *others]
        with serve(Starlette(middleware=stack)) as server:
            held = hold_registration(server, "registration=news")
            wait_for_listeners(channel, 1)
            channel.write("x")
            assert held.answer().body == b"news:x"
            with server.connect() as connection:
                connection.sendall(
                    f"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {COMET}\r\n"
                    "Content-Length: 17\r\n\r\nregistration=news".encode()
                )
                wait_for_listeners(channel, 1)
            wait_for_listeners(channel, 0)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_websocket_below_the_prefix_is_ours_and_no_other_path_of_it() -> None:
    from starlette.websockets import WebSocketDisconnect

    comet = Comet(KEY)
    comet.create(scope=SITE, name="a")
    with TestClient(application(comet)) as client:
        with client.websocket_connect("/comet/socket", subprotocols=["comet.v1"]) as socket:
            socket.send_json({"subscribe": {"a": "now"}})
            assert socket.receive_json()["events"][0]["channel"] == "a"
            assert socket.accepted_subprotocol == "comet.v1"
        for path in ("/comet/else", "/else"):
            with pytest.raises(WebSocketDisconnect), client.websocket_connect(path):
                pass


@pytest.mark.parametrize("prefix", ["", "comet", "/comet/", "/", "//x"])
def test_a_prefix_that_is_none_says_what_is_expected(prefix: str) -> None:
    with pytest.raises(ValueError, match="expected a prefix like '/comet'"):
        Comet(KEY, prefix=prefix)
