"""Somebody else logs in while a request is under way: it gains nothing from where it began."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_comet import SITE, Comet, CometMiddleware, Settings
from asgi_comet.identity.clients import SUCCESSION
from asgi_comet.identity.process import Claim
from asgi_comet.protocol.frames import CloseCode
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import client_of, inside, sleepers, tables
from asgi_comet.transports.held import Hold
from asgi_comet.transports.websocket import Socket
from tests.kit.loop import soon
from tests.kit.people import WHO, who
from tests.kit.processes import process_of, session_in
from tests.kit.serving import COMET, Address, Held, Tab
from tests.kit.streams import PATIENCE, Ws
from tests.kit.workers import Workers, one_worker

LATER = [False, True]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def comet(workers: Workers, clock: ManualClock) -> Comet:
    return workers.make(settings=Settings(jitter=0, body_timeout=60), clock=clock)


def application(comet: Comet) -> Starlette:
    """Endpoints that wait for their body before, or after, they ask whose they are."""

    async def early(request: Request) -> Response:
        comet.process()
        await request.body()
        return JSONResponse(comet.process().user)

    async def late(request: Request) -> Response:
        await request.body()
        return JSONResponse(comet.process().user)

    async def page(request: Request) -> Response:
        await request.body()
        return JSONResponse(comet.open_process().user)

    async def opened(request: Request) -> Response:
        comet.open_process()
        await request.body()
        return Response()

    async def session(request: Request) -> Response:
        await request.body()
        found = comet.session()
        return JSONResponse(found and found.user)

    async def login(request: Request) -> Response:
        comet.login((await request.body()).decode())
        return Response()

    endpoints = (early, late, page, opened, session, login)
    return Starlette(
        routes=[Route(f"/{one.__name__}", one, methods=["POST"]) for one in endpoints],
        middleware=[Middleware(CometMiddleware, comet=comet)],
    )


@pytest.fixture
def server(workers: Workers, comet: Comet) -> Iterator[Address]:
    with workers.serve(application, comet) as address:
        yield address


class Withheld:
    """A request whose body has still to come. The server has begun with it."""

    def __init__(self, tab: Tab, path: str, body: str, kind: str, **headers: str) -> None:
        self.body = body.encode()
        self.socket = tab.address.connect()
        self.socket.settimeout(PATIENCE)
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = [
            f"POST {path} HTTP/1.1",
            f"Host: {tab.address.host}:{tab.address.port}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(self.body)}",
            f"Cookie: {tab.cookie}",
            "Expect: 100-continue",  # the server says so once somebody reads the body
            *lines,
            "Connection: close",
        ]
        self.socket.sendall("\r\n".join([*head, "", ""]).encode())
        assert self._read_head().startswith(b"HTTP/1.1 100")

    def _read_head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, head
            head += byte
        return head

    def finish(self) -> tuple[int, bytes, bool]:
        """Send the body; return status, body, and whether a cookie came."""
        with self.socket:
            self.socket.sendall(self.body)
            head, body = self._read_head(), b""
            while part := self.socket.recv(65536):
                body += part
            return int(head[9:12]), body, b"set-cookie" in head.lower()


def victim_of(tab: Tab) -> Tab:
    """Another browser, in which somebody planted the same cookie."""
    return Tab(tab.address, dict(tab.jar))


def log_in(tab: Tab, user: str = "alice") -> None:
    headers = {"Cookie": tab.cookie, "Comet-Process": tab.opened["process"]}
    answer = tab.address.request("POST", "/login", user, headers)
    assert answer.status == 200
    tab.keep(answer)


# Our own endpoints


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("poll", "application/json", '{"channels": {"~inbox": "new.0"}}'),
        ("poll", COMET, "registration=~inbox"),
        ("ack", "application/json", '{"~inbox": "new.0"}'),
    ],
    ids=["poll", "registration", "ack"],
)
def test_a_body_that_comes_after_the_login(
    comet: Comet, server: Address, path: str, kind: str, body: str
) -> None:
    planted = Tab(server)
    withheld = Withheld(planted, f"{planted.url}/{path}", body, kind)
    log_in(victim_of(planted))
    comet.create(scope=process_of(comet, planted), name="inbox").publish("for alice only")
    assert withheld.finish()[0] == 503


@one_worker("the test holds the answer of the application in the loop of one worker")
@pytest.mark.parametrize("site", [False, True])
@pytest.mark.parametrize("kind", ["application/json", COMET])
def test_a_question_to_the_application_that_is_answered_after_the_login(
    comet: Comet, server: Address, clock: ManualClock, kind: str, site: bool
) -> None:
    planted = Tab(server)
    process = (
        inside(comet).clients.default(Claim.of(process_of(comet, planted).session)).process
        if site
        else process_of(comet, planted)
    )
    asked, may_answer = anyio.Event(), anyio.Event()

    async def authorize(connection: HTTPConnection) -> bool:
        asked.set()
        await may_answer.wait()
        return True

    comet.create(scope=SITE, name="guarded", authorize=authorize)
    inbox = comet.create(scope=process, name="inbox")
    positions = {"~inbox": "new.0", "guarded": "now"}
    body = "registration=~inbox%0Aguarded" if kind == COMET else json.dumps({"channels": positions})
    held = Held(lambda: planted.post(f"{'/comet' if site else planted.url}/poll", body, kind))
    assert soon(comet, asked.is_set) or wait_until(asked.is_set)
    log_in(victim_of(planted))
    inbox.publish("for alice only")
    inside(comet).loop.run_now(may_answer.set)
    assert soon(comet, lambda: len(sleepers(clock)) > 1)  # it lets the new cookie arrive
    clock.advance(1.0)
    answer = held.answer()
    assert answer.status == 200
    assert b"alice" not in answer.body


def wait_until(condition: Callable[[], bool]) -> bool:
    while not condition():
        pass  # the request is on its way in another thread
    return True


def test_a_login_during_the_handshake_of_a_websocket(
    comet: Comet, server: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Tab(server)
    process, send = process_of(comet, planted), Socket.send

    async def send_and_log_in(stream: Socket, message: Any) -> bool:
        monkeypatch.undo()
        done = await send(stream, message)
        inside(comet).users.change(Claim.of(process.session), "alice")
        return done

    monkeypatch.setattr(Socket, "send", send_and_log_in)
    with Ws(server, planted.url, planted.cookie) as stream:
        assert stream.closed() == CloseCode.RESTART
    assert client_of(process).connections == 0


@one_worker("the test changes the session by parts, in the loop of one worker")
@pytest.mark.parametrize("kind", ["application/json", COMET])
def test_a_message_that_wakes_a_request_just_before_the_login(
    comet: Comet, server: Address, clock: ManualClock, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Tab(server)
    process = process_of(comet, planted)
    inbox, other = (comet.create(scope=process, name=name) for name in ("inbox", "other"))
    positions = {"~inbox": "new.0", "~other": "new.0"}
    body = "registration=~inbox%0A~other" if kind == COMET else json.dumps({"channels": positions})
    held = Held(lambda: planted.post(f"{planted.url}/poll", body, kind))
    wait_for_listeners(other, 1)
    rouse = Hold.rouse

    def rouse_and_log_in(hold: Hold) -> None:
        monkeypatch.undo()
        rouse(hold)
        inside(comet).users.change(Claim.of(process.session), "alice")
        inbox.publish("for alice only")

    monkeypatch.setattr(Hold, "rouse", rouse_and_log_in)
    inbox.publish("before")
    assert wait_until(lambda: process.user == "alice")
    assert soon(comet, lambda: len(sleepers(clock)) > 1)
    clock.advance(1.0)
    assert b"alice" not in held.answer().body


# Those of the application


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("identified", [False, True])
@pytest.mark.parametrize("path", ["early", "late", "page", "session"])
def test_a_request_of_the_application_that_waits_for_its_body(
    workers: Workers,
    comet: Comet,
    server: Address,
    clock: ManualClock,
    path: str,
    identified: bool,
    later: bool,
) -> None:
    if identified:
        workers.identify(comet, who)
    planted = Tab(server)
    withheld = Withheld(planted, f"/{path}", "x", "text/plain")
    victim = victim_of(planted)
    if identified:
        victim.jar[WHO] = "alice"
        victim.poll({"~x": "now"})
    else:
        log_in(victim)
    assert process_of(comet, victim).user == "alice"
    if later:
        clock.advance(SUCCESSION + 1)
        assert soon(comet, lambda: tables(comet)["former ids"] == 0)
    status, body, _ = withheld.finish()
    refused = 403 if workers.count == 1 else 503  # the worker asks Redis, and the tab comes back
    assert (status, body) in ((refused, body), (403, body), (200, b"null"))
    assert b"alice" not in body
    assert process_of(comet, victim).session.id == session_in(comet, victim)


def test_a_login_that_was_begun_before_another_is_one_of_its_own(
    workers: Workers, comet: Comet, server: Address
) -> None:
    workers.identify(comet, who)
    planted = Tab(server)
    withheld = Withheld(planted, "/login", "mallory", "text/plain")
    victim = victim_of(planted)
    victim.jar[WHO] = "alice"
    victim.poll({"~x": "now"})
    assert withheld.finish()[0] == 200
    assert process_of(comet, victim).user == "alice"
    assert session_in(comet, victim) == process_of(comet, victim).session.id


def test_a_page_that_is_answered_after_a_login_leaves_its_cookie_alone(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    withheld = Withheld(tab, "/opened", "x", "text/plain")
    log_in(tab)
    assert withheld.finish() == (200, b"", False)
    assert tab.post(f"{tab.url}/poll", {"channels": {"~x": "now"}}).status == 200


def test_a_held_poll_that_brings_a_cookie_is_answered_at_once(
    workers: Workers, comet: Comet, server: Address
) -> None:
    workers.identify(comet, who)
    tab = Tab(server)
    position = tab.poll({"~x": "now"})[0]["position"]
    tab.jar[WHO] = "alice"
    assert tab.poll({"~x": position}) == []
    assert session_in(comet, tab) == process_of(comet, tab).session.id


@one_worker("two threads change a session at once only in the memory of one worker")
def test_two_logins_at_once_leave_one_user(
    comet: Comet, server: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = Tab(server)
    session, users = process_of(comet, tab).session, inside(comet).users
    run_now = inside(comet).loop.__class__.run_now
    claims: list[Any] = []

    def run_now_after_another(self: Any, function: Callable[[], None]) -> None:
        monkeypatch.undo()  # once
        claims.append(users.change(Claim.of(session), "bob"))
        run_now(self, function)

    monkeypatch.setattr(inside(comet).loop.__class__, "run_now", run_now_after_another)
    claims.append(users.change(Claim.of(session), "alice"))
    assert session.user == "bob"
    assert [claim.stale for claim in claims] == [False, True]
    assert comet.processes(user="alice") == []
    assert comet.processes(user="bob") == [process_of(comet, tab)]


# Registration at a process, whose positions the server keeps


def register(tab: Tab, number: int, *names: str) -> bytes:
    body = f"registration={'%0A'.join(names)}&number={number}"
    return tab.post(f"{tab.url}/poll", body, COMET).body


@one_worker("the test holds the answer of the application in the loop of one worker")
def test_a_request_that_was_repeated_does_not_take_over_when_it_may_at_last(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    asked, may_answer = anyio.Event(), anyio.Event()

    async def slow_once(connection: HTTPConnection) -> bool:
        if not asked.is_set():
            asked.set()
            await may_answer.wait()
        return True

    comet.create(scope=SITE, name="guarded", authorize=slow_once)
    inbox = comet.create(scope=process_of(comet, tab), name="a")
    first = Withheld(tab, f"{tab.url}/poll", "registration=~a%0Aguarded&number=1", COMET)
    first.socket.sendall(first.body)
    wait_until(asked.is_set)
    first.socket.close()
    inbox.publish("one")
    assert register(tab, 1, "~a", "guarded") == b"~a:one"
    inbox.publish("two")
    inside(comet).loop.run_now(may_answer.set)
    assert soon(comet, lambda: len(inside(comet).fanout.listeners) == 0)
    assert register(tab, 2, "~a", "guarded") == b"~a:two"


def test_the_end_of_a_channel_is_told_to_who_asked_for_another_meanwhile(
    comet: Comet, server: Address, clock: ManualClock
) -> None:
    tab = Tab(server)
    old, other = comet.create(scope=SITE, name="t"), comet.create(scope=SITE, name="o")

    def ask(number: int, name: str, say: Callable[[], object]) -> bytes:
        held = Held(
            lambda: tab.post(f"{tab.url}/poll", f"registration={name}&number={number}", COMET)
        )
        wait_for_listeners(other if name == "o" else old, 1)
        say()
        return held.answer().body

    assert ask(1, "t", lambda: old.publish("1")) == b"t:1"
    assert ask(2, "o", lambda: other.publish("x")) == b"o:x"
    old.publish("2")
    old.close()
    assert ask(3, "o", lambda: other.publish("y")) == b"o:y"
    comet.create(scope=SITE, name="t").publish("3")
    assert register(tab, 4, "t") == b"t:ENDED_CHANNEL"


def test_what_has_ended_meanwhile_is_remembered_for_as_many_channels_as_a_request_has(
    workers: Workers, make_server: Callable[..., tuple[Comet, Address]]
) -> None:
    comet, address = make_server(settings=Settings(jitter=0, max_channels_per_request=1))
    tab = Tab(address)
    process = process_of(comet, tab)
    for number, name in enumerate("abc"):
        channel = comet.create(scope=process, name=name)
        channel.publish(number)
        assert register(tab, number, f"~{name}") == f"~{name}:{number}".encode()
        channel.close()
    comet.create(scope=process, name="d").publish("last")
    assert register(tab, 3, "~d") == b"~d:last"
    if workers.count == 1:  # otherwise Redis has it
        kept = client_of(process).registered
        assert kept is not None
        assert list(kept.lost) == ["~c"]
