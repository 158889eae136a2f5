"""Guards: other workers find the rule of a channel by its name, or let no client read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_comet import SITE, Comet, CometMiddleware, InvalidDeclaration, Settings
from asgi_comet.brokers.base import Broker
from asgi_comet.channels.feed import Authorize
from asgi_comet.testing import join
from asgi_comet.testing._inspect import feed_of, inside
from tests.kit.clients import Client, PollClient, RegistrationClient, SseClient, WebSocketClient
from tests.kit.serving import Address, Answer, serve
from tests.kit.stage import KEY

asked: list[str] = []


def may_enter(connection: HTTPConnection) -> bool:
    asked.append(connection.url.path)
    return "guest" in connection.cookies


async def may_come(connection: HTTPConnection) -> bool:
    return "guest" in connection.cookies


def may_enter_room(connection: HTTPConnection, room: str = "any") -> bool:
    return room == "any"


def no_rule() -> bool:
    return True  # pragma: no cover - never asked


class Rule:
    def __call__(self, connection: HTTPConnection) -> bool:
        return True  # pragma: no cover - never asked

    def method(self, connection: HTTPConnection) -> bool:
        return True  # pragma: no cover - never asked


class Worker:
    """One of several workers.

    Args:
        broker: Shared with the others.
        guards: What it decorates.
        more: What else it declares.
    """

    def __init__(
        self, broker: Broker, *guards: Authorize, more: Callable[[Comet], object] = id
    ) -> None:
        self.comet = Comet(KEY, broker=broker, settings=Settings(jitter=0, linger=0.1))
        for guard in guards:
            assert self.comet.guard(guard) is guard
        more(self.comet)
        middleware = [Middleware(CometMiddleware, comet=self.comet)]
        self.app = Starlette(
            routes=[Route("/make/{name}", self._make, methods=["POST"])], middleware=middleware
        )
        self.address: Address

    async def _make(self, request: Request) -> JSONResponse:
        name = request.path_params["name"]
        make = (
            self.comet.create_newest if name == "newest" else partial(self.comet.create, scope=SITE)
        )
        channel = make(name=name, authorize=GUARDS[request.query_params["guard"]])
        channel.publish("secret")
        return JSONResponse(channel.reference())

    def make(self, name: str, guard: str = "may_enter") -> None:
        assert self.address.request("POST", f"/make/{name}?guard={guard}").status == 200

    def poll(self, name: str, cookie: str = "") -> Answer:
        headers = {"Content-Type": "application/json", "Cookie": cookie}
        body = json.dumps({"channels": {name: "last:1"}})
        return self.address.request("POST", "/comet/poll", body, headers)


GUARDS: dict[str, Authorize] = {
    "may_enter": may_enter,
    "may_come": may_come,
    "may_enter_room": may_enter_room,
}

Serve = Callable[..., list[Worker]]


@pytest.fixture
def serve_all() -> Iterator[Serve]:
    with ExitStack() as stack:

        def serve_all(*workers: Worker) -> list[Worker]:
            for worker in workers:
                worker.address = stack.enter_context(serve(worker.app))
            return list(workers)

        yield serve_all


class Guest:
    """A page with a cookie of the application's own."""

    url = "/comet"
    cookie = "guest=1"

    def keep(self, answer: Answer) -> None:
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("guard", ["may_enter", "may_come"])
@pytest.mark.parametrize("name", ["room", "newest"])
@pytest.mark.parametrize("kind", [PollClient, SseClient, WebSocketClient])
def test_another_worker_asks_the_guard_of_that_name(
    serve_all: Serve, kind: type[Client], name: str, guard: str
) -> None:
    one, two = serve_all(*(Worker(broker, may_enter, may_come) for broker in join(2)))
    one.make(name, guard)
    stranger = kind(None, two.address)
    stranger.begin({name: "last:1"})
    assert stranger.error() == ("forbidden", None)
    stranger.cut()
    guest: Any = Guest()
    client = kind(guest, two.address)
    client.begin({name: "last:1"})
    assert [event.get("data") for event in (client.next(), client.next())] == [None, "secret"]
    client.cut()


def test_a_client_of_the_registration_protocol_is_asked_for_its_right(serve_all: Serve) -> None:
    one, two = serve_all(*(Worker(broker, may_enter) for broker in join(2)))
    one.make("room")
    answer = two.address.register("registration=room")
    assert answer.pairs == [b"room:ENDED_CHANNEL"]
    guest: Any = Guest()
    client = RegistrationClient(guest, two.address)
    client.begin({"room": "now"})
    until(lambda: bool(feeds(two)))
    client.cut()


def until(reached: Callable[[], bool]) -> None:
    """Return once something has happened in the thread of a server."""
    over = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < over


def feeds(worker: Worker) -> list[str]:
    """The channels with listeners."""
    return [
        feed.name for feed in inside(worker.comet).channels.site.directory.feeds() if feed.listeners
    ]


def test_the_rule_of_a_declared_channel_is_known_by_its_name(serve_all: Serve) -> None:
    def declare(comet: Comet) -> object:
        return comet.family("hall:{room}", authorize=may_enter_room), comet.channel(
            "ticker", authorize=may_enter
        )(ticker)

    one, two = serve_all(*(Worker(broker, more=declare) for broker in join(2)))
    one.make("room")
    assert b"forbidden" in two.poll("room").body
    assert b"secret" in two.poll("room", "guest=1").body


async def ticker() -> Any:
    yield 1


def test_a_worker_without_the_guard_lets_no_client_read(serve_all: Serve) -> None:
    one, old = join(2)
    one_, old_ = serve_all(Worker(one, may_enter), Worker(old))
    one_.make("room")
    for cookie in ("", "guest=1"):
        answer = old_.poll("room", cookie)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    answer = old_.address.register("registration=room")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    stream = old_.address.request("GET", "/comet/events?channel=room")
    assert stream.status == 200
    assert b"secret" not in stream.body
    assert b"event" not in stream.body
    assert len(inside(old_.comet).channels) == 0


def members(comet: Comet) -> object:
    return comet.family("room:{room}", type=str, authorize=may_enter_room)


def nameless(comet: Comet) -> object:
    return comet.family("room:{room}", type=str, authorize=lambda connection, room: True)


@pytest.mark.parametrize("declare", [members, nameless])
@pytest.mark.parametrize("guards", [(), (may_enter_room,)])
def test_a_member_of_a_family_is_not_read_where_the_family_is_not_declared(
    serve_all: Serve, declare: Callable[[Comet], Any], guards: tuple[Authorize, ...]
) -> None:
    """A rule with words cannot be asked without them, even if a worker knows the function."""
    new, old = join(2)
    found: list[Any] = []
    _, before = serve_all(
        Worker(new, more=lambda comet: found.append(declare(comet))), Worker(old, *guards)
    )
    found[0].publish("secret", room="kitchen")
    until(lambda: new.store.find("room:kitchen") is not None)  # it is opened behind
    assert before.poll("room:kitchen").status == 503


def test_a_channel_made_by_the_import_is_guarded_there_where_the_line_is_missing(
    serve_all: Serve,
) -> None:
    new, old = join(2)

    def make(comet: Comet) -> object:
        return comet.create(scope=SITE, name="news", authorize=lambda connection: True)

    _, before = serve_all(Worker(new, more=make), Worker(old))
    until(lambda: new.store.find("news") is not None)  # it is opened behind
    assert before.poll("news").status == 503


def test_an_adopted_channel_is_forgotten_when_its_client_was_refused(serve_all: Serve) -> None:
    one, two = serve_all(*(Worker(broker, may_enter) for broker in join(2)))
    one.make("room")
    assert b"forbidden" in two.poll("room").body
    until(lambda: not len(inside(two.comet).channels))
    assert b"secret" in two.poll("room", "guest=1").body


NOT_GUARDS: dict[str, Any] = {
    "lambda": lambda connection: True,
    "partial": partial(may_enter),
    "method": Rule().method,
    "object": Rule(),
    "not decorated": may_enter,
}


@pytest.mark.parametrize("what", NOT_GUARDS)
@pytest.mark.parametrize("named", [True, False])
def test_at_run_time_any_other_function_is_refused(what: str, named: bool) -> None:
    comet = Comet(KEY, broker=join(1)[0])
    name = "room" if named else None
    inside(comet).channels.begin()
    for make in (partial(comet.create, scope=SITE), comet.create_newest):
        with pytest.raises(InvalidDeclaration, match=r"write @comet\.guard above a function"):
            make(name=name, authorize=NOT_GUARDS[what])
    assert len(inside(comet).channels) == 0


def test_a_channel_without_a_name_is_another_one_in_each_worker() -> None:
    """So other workers do not make it by the same line, and need to know its rule."""
    comet = Comet(KEY, broker=join(1)[0])
    with pytest.raises(InvalidDeclaration, match=r"write @comet\.guard above"):
        comet.create(scope=SITE, authorize=may_enter)
    comet.guard(may_enter)
    channel = comet.create(scope=SITE, authorize=may_enter)
    assert feed_of(channel).spec.guard == f"{__name__}:may_enter"


def test_the_decorator_takes_functions_of_modules_only() -> None:
    comet = Comet(KEY)
    for what in (*NOT_GUARDS.values(), 3):
        if what is not may_enter:
            with pytest.raises(TypeError, match="expected a function of a module, got"):
                comet.guard(what)
    with pytest.raises(TypeError, match="expected a guard to take the connection"):
        comet.guard(no_rule)


def test_two_functions_of_one_name_are_not_told_apart() -> None:
    comet = Comet(KEY)
    comet.guard(may_enter)
    comet.guard(may_enter)

    def other(connection: HTTPConnection) -> bool:
        return True  # pragma: no cover - never asked

    other.__qualname__ = "may_enter"
    with pytest.raises(ValueError, match="expected one function of the name"):
        comet.guard(other)
    comet.family("room:{room}", authorize=_with_words(other))  # but it is not known by that name


def _with_words(function: Callable[..., bool]) -> Callable[..., bool]:
    def guard(connection: HTTPConnection, room: str) -> bool:
        return function(connection)  # pragma: no cover - never asked

    guard.__qualname__ = function.__qualname__
    return guard


def test_in_memory_any_function_guards_and_the_decorator_changes_nothing() -> None:
    comet = Comet(KEY)
    guard = comet.guard(may_enter)
    decorated = comet.create(scope=SITE, name="a", authorize=guard)
    inside(comet).channels.begin()
    plain = comet.create(scope=SITE, name="b", authorize=lambda connection: True)
    assert feed_of(decorated).spec.guard == feed_of(plain).spec.guard == ""
    assert feed_of(decorated).authorize is may_enter
