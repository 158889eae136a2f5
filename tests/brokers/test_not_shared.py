"""With a broker that shares channels only, the rest is refused at the first call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_comet import (
    CLIENT_PROCESS,
    SITE,
    Channel,
    Comet,
    CometMiddleware,
    NotShared,
    ProcessLocal,
    Settings,
)
from asgi_comet.testing import join, wait_for_listeners
from asgi_comet.testing._inspect import inside, tables
from tests.kit.clients import Client, PollClient, SseClient, WebSocketClient
from tests.kit.refused import SENTENCE, check_requests, cookie_of
from tests.kit.serving import Address, Answer, serve
from tests.kit.stage import KEY


async def source() -> AsyncIterator[int]:
    yield 1  # pragma: no cover - never read


async def of_process(process: Any) -> AsyncIterator[int]:
    yield 1  # pragma: no cover - never read


def drop(coroutine: Any) -> Any:
    """Run a coroutine up to its first wait."""
    return coroutine.send(None)


CALLS: dict[str, Callable[[Comet], object]] = {
    "comet.open_process()": lambda comet: comet.open_process(),
    "comet.process()": lambda comet: comet.process(),
    "comet.session()": lambda comet: comet.session(),
    "comet.processes()": lambda comet: comet.processes(),
    "comet.processes() ": lambda comet: comet.processes(user="ada"),
    "comet.sessions()": lambda comet: comet.sessions(),
    "comet.wait_timeout()": lambda comet: drop(comet.wait_timeout(1)),
    "@comet.identify": lambda comet: comet.identify(lambda connection: None),
    "comet.login()": lambda comet: comet.login("ada"),
    "comet.logout()": lambda comet: comet.logout(),
    "comet.revoke()": lambda comet: comet.revoke("news", user="ada"),
    "comet.create() with a client process as scope": lambda comet: comet.create(name="inbox"),
    "comet.create() with a client process as scope ": lambda comet: comet.create(
        scope=CLIENT_PROCESS
    ),
    "comet.create_unlimited() with a client process as scope": lambda comet: comet.create_unlimited(
        source
    ),
    "the channel 'inbox' with scope=CLIENT_PROCESS": lambda comet: comet.channel(
        "inbox", scope=CLIENT_PROCESS
    ),
    "the channel 'steps' with @comet.unlimited": lambda comet: comet.unlimited("steps"),
    "comet.notifier()": lambda comet: comet.notifier("messages"),
}


@pytest.mark.parametrize("called", CALLS)
def test_a_call_says_what_is_not_shared_and_both_ways_out(called: str) -> None:
    comet = Comet(KEY, broker=join(1, people=False)[0])
    with pytest.raises(NotShared) as refused:
        CALLS[called](comet)
    assert refused.value.called == called.strip()
    assert str(refused.value) == (
        "expected a broker that shares client processes, users and notifiers for "
        f"{called.strip()}, got one that shares channels only: use another broker, or channels of "
        "the site only (scope=SITE)"
    )


local: ProcessLocal[list[int]] = ProcessLocal(list)

ENDPOINTS: dict[str, Callable[[Comet], object]] = {
    "open": lambda comet: comet.open_process(),
    "process": lambda comet: comet.process(),
    "session": lambda comet: comet.session(),
    "login": lambda comet: comet.login("ada"),
    "logout": lambda comet: comet.logout(),
    "create": lambda comet: comet.create(name="inbox"),
    "get": lambda comet: local.get(),
    "set": lambda comet: local.set([]),
}


class Site:
    """A `Comet` of one worker on a shared broker."""

    def __init__(self) -> None:
        self.comet = Comet(KEY, broker=join(1, people=False)[0], settings=Settings(jitter=0))
        self.news: Channel[Any] = self.comet.create(scope=SITE, name="news")
        self.shy: Channel[Any] = self.comet.create(scope=SITE, name="shy", authorize=self._may)
        routes = [Route("/say/{text}", self._say), Route("/call/{what}", self._call)]
        middleware = [Middleware(CometMiddleware, comet=self.comet)]
        self.app = Starlette(routes=routes, middleware=middleware)
        self.address: Address

    def _may(self, connection: HTTPConnection) -> bool:
        return bool(connection.cookies)

    async def _say(self, request: Request) -> PlainTextResponse:
        self.news.publish(request.path_params["text"])
        return PlainTextResponse("said")

    async def _call(self, request: Request) -> PlainTextResponse:
        with pytest.raises(NotShared) as refused:
            ENDPOINTS[request.path_params["what"]](self.comet)
        return PlainTextResponse(str(refused.value))


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    with serve(made.app) as made.address:
        yield made


@pytest.mark.parametrize("what", ENDPOINTS)
def test_an_endpoint_that_calls_is_refused_with_or_without_a_session(site: Site, what: str) -> None:
    for cookie in ("", cookie_of(site.comet)):
        answer = site.address.request("GET", f"/call/{what}", headers={"Cookie": cookie})
        assert (answer.status, SENTENCE in answer.body.decode()) == (200, True)
        assert "set-cookie" not in answer.headers
    assert tables(site.comet)["processes"] == tables(site.comet)["sessions"] == 0


def test_each_request_for_a_client_process_is_refused_in_its_own_form(site: Site) -> None:
    check_requests(site.comet, site.address)
    assert tables(site.comet)["processes"] == tables(site.comet)["sessions"] == 0
    assert len(inside(site.comet).channels) == 2


def test_requests_that_bring_our_cookie_just_work_and_get_no_other(site: Site) -> None:
    headers = {"Cookie": cookie_of(site.comet)}
    answer = site.address.request("GET", "/say/hello", headers=headers)
    assert (answer.status, answer.body) == (200, b"said")
    assert "set-cookie" not in answer.headers
    body = '{"channels": {"news": "now", "shy": "now"}}'
    headers["Content-Type"] = "application/json"
    answer = site.address.request("POST", "/comet/poll", body, headers)
    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    assert b"forbidden" not in answer.body


class Visitor:
    """What a client needs of a tab: a page with our cookie, and no client process."""

    url = "/comet"

    def __init__(self, site: Site) -> None:
        self.address, self.cookie = site.address, cookie_of(site.comet)

    def keep(self, answer: Answer) -> None:
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("kind", [PollClient, SseClient, WebSocketClient])
def test_a_client_with_our_cookie_follows_channels_of_the_site(
    site: Site, kind: type[Client]
) -> None:
    visitor: Any = Visitor(site)
    client = kind(visitor, site.address)
    client.follow({"shy": "now"})
    client.ensure_connected()
    wait_for_listeners(site.shy, 1)
    site.shy.publish("for guests")
    assert client.data(1) == ["for guests"]
    client.cut()
