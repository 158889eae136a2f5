"""Several Comets around one application: each request reaches the one that it is for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from anyio import sleep_forever
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_comet import SITE, Comet, CometMiddleware, Settings
from asgi_comet.identity.process import Claim
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import inside
from tests.kit.serving import Address, hold_registration, serve
from tests.kit.stage import KEY, echo
from tests.kit.workers import own_workers

pytestmark = own_workers("several Comets around one application")

JSON = "application/x-ocsigen-comet+json"


def make(name: str, **settings: Any) -> Comet:
    """A Comet below `/NAME` with a channel NAME, one that both have, and a family `NAME:{room}`."""
    comet = Comet(KEY, prefix=f"/{name}", settings=Settings(cookie_name=name, jitter=0, **settings))
    comet.create(scope=SITE, name=name).publish(f"of {name}")
    comet.create(scope=SITE, name="both").publish(f"of {name}")

    @comet.newest(f"{name}:{{room}}")
    async def rooms(room: str) -> AsyncIterator[str]:
        await sleep_forever()
        yield room

    return comet


def ask(address: Address, path: str, *channels: str, **headers: str) -> dict[str, Any]:
    """What a poll with the content type that is served anywhere is answered, by channel."""
    body = json.dumps({"channels": dict.fromkeys(channels, "last:1"), "idle": True})
    answer = address.request("POST", path, body, {"Content-Type": JSON, **headers})
    assert answer.status == 200, answer
    events = json.loads(answer.body)["events"]
    return {e["channel"]: e.get("data", e.get("reason")) for e in events if len(e) != 2}


def open_in(address: Address, prefix: str) -> tuple[str, dict[str, str]]:
    answer = address.request("POST", f"{prefix}/open")
    cookie = answer.headers["set-cookie"].partition(";")[0]
    return json.loads(answer.body)["process"], {"Cookie": cookie}


async def pass_on(request: Request, call_next: Any) -> Any:
    return await call_next(request)


Nest = Callable[[Comet, Comet], ASGIApp]


def wrapped(outer: Comet, inner: Comet) -> ASGIApp:
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    return CometMiddleware(CometMiddleware(app, comet=inner), comet=outer)


def added(outer: Comet, inner: Comet) -> ASGIApp:
    app = FastAPI()
    app.add_route("/{path:path}", echo, ["GET", "POST"])
    app.add_middleware(CometMiddleware, comet=inner)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(CometMiddleware, comet=outer)
    return app


@pytest.fixture(params=[wrapped, added])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Comet, Comet, Address]]:
    outer, inner = make("outer"), make("inner")
    with serve(request.param(outer, inner)) as address:
        yield outer, inner, address


Pair = tuple[Comet, Comet, Address]


def test_each_answers_what_is_below_its_own_prefix(pair: Pair) -> None:
    *_, address = pair
    for name, other in (("outer", "inner"), ("inner", "outer")):
        found = ask(address, f"/{name}/poll", name, other, "both")
        assert found == {name: f"of {name}", other: "unknown", "both": f"of {name}"}
        token, cookie = open_in(address, f"/{name}")
        url = f"/{name}/p/{token}/poll"
        assert ask(address, url, name, other, **cookie) == {name: f"of {name}", other: "unknown"}
        assert address.register(f"registration={other}", url, **cookie).pairs == [
            f"{other}:ENDED_CHANNEL".encode()
        ]


def test_on_any_other_path_the_innermost_that_knows_a_channel_answers(pair: Pair) -> None:
    *_, address = pair
    for path in ("/", "/any/path"):
        assert ask(address, path, "outer") == {"outer": "of outer"}
        assert ask(address, path, "inner") == {"inner": "of inner"}
        assert ask(address, path, "both") == {"both": "of inner"}
        assert ask(address, path, "none") == {"none": "unknown"}
        assert ask(address, path, "outer:1") == ask(address, path, "inner:1") == {}
        assert ask(address, path, "outer", "inner") == {"outer": "unknown", "inner": "of inner"}


def test_registrations_are_held_by_the_one_that_knows_the_channel(pair: Pair) -> None:
    *comets, address = pair
    for comet in comets:
        channel = comet.channels.create("a b")
        held = hold_registration(address, "registration=a%20b")
        wait_for_listeners(channel, 1)
        channel.write("x")
        assert held.answer().body == b"a%20b:x"
        assert address.register("registration=none%0Aa%20b").pairs == [b"none:ENDED_CHANNEL"]
        channel.close()


def test_a_tab_without_a_token_is_known_by_the_cookie_that_it_has(pair: Pair) -> None:
    outer, inner, address = pair
    for comet, name in ((outer, "outer"), (inner, "inner")):
        _, cookie = open_in(address, f"/{name}")
        (session,) = comet.sessions()
        process = inside(comet).clients.default(Claim.of(session)).process
        comet.create(scope=process, name="job").publish(name)
        assert ask(address, "/", "~job", **cookie) == {"~job": name}
        for opened in comet.processes():
            opened.close()
    assert address.register("registration=~job", "/").pairs == [b"~job:ENDED_CHANNEL"]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"x" * 65, 413), (b"", 400), (b"registration=", 400), (b"{", 400), (b"\xff", 400)],
)
@pytest.mark.parametrize("kind", [JSON, "application/x-ocsigen-comet"])
def test_what_is_no_request_is_refused_by_the_outermost(
    kind: str, body: bytes, status: int
) -> None:
    with serve(wrapped(make("outer", body_limit=64), make("inner"))) as address:
        assert address.request("POST", "/", body, {"Content-Type": kind}).status == status


def test_a_body_in_many_pieces_reaches_the_inner_one_whole(pair: Pair) -> None:
    *_, address = pair
    body = b'{"channels": {"inner": "last:1"}, "idle": true}'
    with address.connect() as connection:
        head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {JSON}\r\nConnection: close\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:9])
        for byte in body[9:]:
            connection.sendall(bytes([byte]))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b'"of inner"' in answer


def test_the_application_gets_all_other_bodies(pair: Pair) -> None:
    *_, address = pair
    assert address.request("POST", "/x", "hello").body == b"POST /x hello"
    assert address.request("POST", "/inner2", "hello").body == b"POST /inner2 hello"


# Mounted inside


def mounted(outer: Comet, inner: Comet) -> ASGIApp:
    app = FastAPI(lifespan=inner.lifespan)
    app.add_route("/page", echo, ["GET"])
    app.mount("/elsewhere", inner.app)
    app.add_middleware(CometMiddleware, comet=outer)
    return app


def mounted_deep(outer: Comet, inner: Comet) -> ASGIApp:
    hosts = Starlette(routes=[Host("{name}.0.0.1", inner.app), Host("other", inner.app)])
    app = Starlette(routes=[Mount("/{tenant}", hosts)], lifespan=inner.lifespan)
    return CometMiddleware(GZipMiddleware(app), comet=outer)


def mounted_application(outer: Comet, inner: Comet) -> ASGIApp:
    """An application that has a Comet of its own, in another that has one of the same prefix."""
    inner.prefix = outer.prefix
    part = Starlette(middleware=[Middleware(CometMiddleware, comet=inner)])
    app = Starlette(routes=[Mount("/elsewhere", part)], lifespan=inner.lifespan)
    return CometMiddleware(app, comet=outer)


@pytest.mark.parametrize("nest", [mounted, mounted_deep, mounted_application])
def test_what_is_below_a_mount_reaches_it(nest: Nest) -> None:
    outer, inner = make("outer"), make("inner")
    base = "/elsewhere" + (outer.prefix if nest is mounted_application else "")
    with serve(nest(outer, inner)) as address:
        for path in (f"{base}/", f"{base}/any"):
            found = ask(address, path, "inner", "both", "none")
            assert found == {"inner": "of inner", "both": "of inner", "none": "unknown"}
        channel = inner.channels.create("news")
        held = hold_registration(address, "registration=news", f"{base}/")
        wait_for_listeners(channel, 1)
        channel.write("x")
        assert held.answer().body == b"news:x"
        token, cookie = open_in(address, base)
        registered = address.register("registration=no", f"{base}/p/{token}/poll", **cookie)
        assert registered.pairs == [b"no:ENDED_CHANNEL"]


@pytest.mark.parametrize("nest", [mounted, mounted_application])
def test_what_is_not_below_a_mount_is_for_the_outer_one(nest: Nest) -> None:
    outer, inner = make("outer"), make("inner")
    with serve(nest(outer, inner)) as address:
        for path in ("/", "/page", "/elsewher", "/elsewhere2/x"):
            assert ask(address, path, "outer", "both") == {"outer": "of outer", "both": "of outer"}
            assert address.register("registration=inner", path).pairs == [b"inner:ENDED_CHANNEL"]


def test_a_mounted_application_with_a_comet_gets_what_it_knows_on_any_path_below_it() -> None:
    outer, inner = make("outer"), make("inner")
    with serve(mounted_application(outer, inner)) as address:
        assert ask(address, "/elsewhere/any", "inner", "both") == {
            "inner": "of inner",
            "both": "of inner",
        }
        assert ask(address, "/elsewhere/any", "outer") == {"outer": "of outer"}


# What cannot be seen


class Circle:
    """An application that names itself as the one inside."""

    def __init__(self, app: ASGIApp) -> None:
        self.hidden = app
        self.app = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.hidden(scope, receive, send)


def test_where_nothing_can_be_seen_the_outer_one_answers() -> None:
    outer, inner = make("outer"), make("inner")
    inside = CometMiddleware(Starlette(), comet=inner)
    with serve(CometMiddleware(Circle(inside), comet=outer)) as address:
        assert ask(address, "/", "inner") == {"inner": "unknown"}
        assert ask(address, "/inner/poll", "inner") == {"inner": "unknown"}
        poll = json.dumps({"channels": {"inner": "last:1"}})
        plain = {"Content-Type": "application/json"}
        assert b"of inner" in address.request("POST", "/inner/poll", poll, plain).body


async def endpoint(request: Request) -> PlainTextResponse:
    raise AssertionError("called")


def test_looking_ahead_calls_no_endpoint() -> None:
    outer = make("outer")
    app = Starlette(routes=[Route("/{path:path}", endpoint, methods=["POST"])])
    with serve(CometMiddleware(app, comet=outer)) as address:
        assert ask(address, "/x", "outer", "none") == {"outer": "of outer", "none": "unknown"}
