"""The browser client in a page of another origin that names its user by a bearer token."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from asgi_comet import SITE, Channel, ClientProcess, Comet, CometMiddleware, Settings
from asgi_comet.testing import wait_for_listeners
from tests.kit.following import PATIENCE, TRANSPORTS, Network
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY

pytestmark = pytest.mark.browser

USERS = {"Bearer ada's": "ada", "Bearer bob's": "bob"}

CONNECT = """async (url) => {
    const { connect } = await import(`${url}/comet.js`)
    window.token = "ada's"
    window.failing = null
    const headers = async () => {
        if (failing) throw failing
        return { Authorization: `Bearer ${token}` }
    }
    Object.assign(window, { comet: connect({ url, headers }), consumers: {}, seen: {} })
    window.follow = (key, consume) => {
        const heard = seen[key] = []
        consumers[key] = consume({
            onmessage: (value) => heard.push(value),
            onerror: ({ name, reason = null }) => heard.push([name, reason]),
        })
    }
}"""


async def blank(request: Request) -> HTMLResponse:
    return HTMLResponse("<!doctype html><title>elsewhere</title><link rel=icon href=data:,>")


def who(connection: HTTPConnection) -> str | None:
    return USERS.get(connection.headers.get("authorization", ""))


class Service:
    """An application whose pages are served elsewhere; notes which header came with what."""

    def __init__(self, origin: str) -> None:
        self.comet = comet = Comet(KEY, allowed_origins=[origin], settings=Settings(jitter=0))
        comet.identify(who)
        self.readers = {"ada", "bob"}
        self.news: Channel[Any] = comet.create(
            scope=SITE, name="news", authorize=lambda connection: who(connection) in self.readers
        )
        self.processes: list[ClientProcess] = []
        self.requests: list[tuple[str, str | None]] = []
        cors = Middleware(
            CORSMiddleware,
            allow_origins=[origin],
            allow_credentials=True,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "comet-process", "content-type"],
        )
        app = Starlette(
            routes=[Route("/mine", self._mine)],
            middleware=[cors, Middleware(CometMiddleware, comet=comet)],
        )
        self.network = Network(app)
        self.address: Address

    async def _mine(self, request: Request) -> JSONResponse:
        process = self.comet.process()
        self.processes.append(process)
        return JSONResponse(self.comet.create(scope=process, name="thread").reference())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan" and scope.get("method") != "OPTIONS":
            headers = dict(scope["headers"])
            path = scope["path"].rpartition("/")[2]
            self.requests.append((path, headers.get(b"authorization", b"").decode() or None))
        await self.network(scope, receive, send)

    @property
    def url(self) -> str:
        return f"{self.address.url}/comet"


@pytest.fixture
def elsewhere() -> Iterator[Address]:
    """What serves the pages."""
    with serve(Starlette(routes=[Route("/", blank)])) as address:
        yield address


@pytest.fixture(params=["cross-site", "same-site"])
def site(request: pytest.FixtureRequest) -> str:
    """Whether the browser sends the cookie along: no third party's, but between hosts of a site."""
    return str(request.param)


@pytest.fixture
def origin(elsewhere: Address, site: str) -> str:
    return (
        elsewhere.url.replace("127.0.0.1", "localhost") if site == "cross-site" else elsewhere.url
    )


@pytest.fixture
def service(origin: str) -> Iterator[Service]:
    service = Service(origin)
    with serve(service) as service.address:
        yield service


OpenTab = Callable[[], Page]


@pytest.fixture
def open_tab(browser: Browser, origin: str, service: Service) -> Iterator[OpenTab]:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)

    def open_() -> Page:
        page = context.new_page()
        page.goto(origin)
        page.evaluate(CONNECT, service.url)
        return page

    yield open_
    context.close()


def follow(page: Page, key: str) -> None:
    page.evaluate("(key) => follow(key, (told) => comet.channel(key, told))", key)


def seen(page: Page, key: str, count: int) -> list[Any]:
    found: list[Any] = page.wait_for_function(
        "([key, count]) => seen[key].length >= count && seen[key]", arg=[key, count]
    ).json_value()
    return found


only_cross_site = pytest.mark.parametrize("site", ["cross-site"], indirect=True)
only_same_site = pytest.mark.parametrize("site", ["same-site"], indirect=True)


@pytest.mark.parametrize("transport", ["sse", "poll"])
def test_a_guarded_channel_of_the_site_needs_the_header_alone(
    service: Service, open_tab: OpenTab, transport: str
) -> None:
    service.network.blocked = set(TRANSPORTS) - {transport}
    page = open_tab()
    follow(page, "news")
    page.wait_for_function("consumers.news.position")
    for n in range(3):
        service.news.publish(n)
    assert seen(page, "news", 3) == [0, 1, 2]
    assert page.evaluate("comet.status") == "online"
    assert service.network.tried["websocket"] == 0
    asked = [header for path, header in service.requests if path in ("events", "poll")]
    assert set(asked) == {"Bearer ada's"}
    assert "open" not in dict(service.requests)
    service.readers.remove("ada")
    service.comet.revoke(service.news, user="ada")
    assert seen(page, "news", 4)[3] == ["ChannelClosed", "forbidden"]
    assert page.evaluate("consumers.news.closed") == "forbidden"


def test_a_wrong_token_is_forbidden_and_the_next_is_asked_for_anew(
    service: Service, open_tab: OpenTab
) -> None:
    page = open_tab()
    page.evaluate("() => { token = 'expired' }")
    follow(page, "news")
    assert seen(page, "news", 1) == [["ChannelClosed", "forbidden"]]
    page.evaluate('() => { token = "bob\'s" }')
    follow(page, "news")
    page.wait_for_function("consumers.news.position")
    service.news.publish("for bob")
    assert seen(page, "news", 1) == ["for bob"]


@only_cross_site
def test_headers_that_fail_are_reported_and_asked_for_again(
    service: Service, open_tab: OpenTab
) -> None:
    page = open_tab()
    page.evaluate(
        """() => {
            window.reported = []
            addEventListener("error", ({ error }) => reported.push(error))
            failing = "no token"
        }"""
    )
    follow(page, "news")
    page.wait_for_function("comet.status === 'offline'")
    assert set(page.evaluate("reported")) == {"no token"}
    asked = "(url) => comet.fetch(url).catch(({ name, message }) => [name, message])"
    failed = ["CometError", "no headers"]
    assert page.evaluate(asked, f"{service.address.url}/mine") == failed
    page.evaluate("() => { failing = null }")
    page.wait_for_function("consumers.news.position")
    service.news.publish("goes on")
    assert seen(page, "news", 1) == ["goes on"]


@only_cross_site
def test_channels_of_the_tab_are_over_where_the_browser_sends_no_cookie(
    service: Service, open_tab: OpenTab
) -> None:
    page = open_tab()
    follow(page, "news")
    follow(page, "~inbox")
    assert seen(page, "~inbox", 1) == [["ProcessClosed", None]]
    page.wait_for_function("consumers.news.position")
    service.news.publish("goes on")
    assert seen(page, "news", 1) == ["goes on"]
    answer = "comet.fetch(url).then((answer) => answer.status)"
    status = page.evaluate(f"(url) => {answer}", f"{service.address.url}/mine")
    assert status == 403


@only_same_site
def test_with_the_cookie_the_tab_has_channels_of_its_own(
    service: Service, open_tab: OpenTab
) -> None:
    page = open_tab()
    page.evaluate(
        """async (url) => {
            const reference = await (await comet.fetch(url)).json()
            follow("thread", (told) => comet.open(reference, told))
        }""",
        f"{service.address.url}/mine",
    )
    page.wait_for_function("consumers.thread.position")
    (process,) = service.processes
    assert process.user == "ada"
    service.comet.create(scope=process, name="other")
    assert dict(service.requests)["mine"] == "Bearer ada's"
    assert service.network.tried["websocket"] == 0


@only_same_site
def test_a_tab_that_is_left_logs_no_other_out(service: Service, open_tab: OpenTab) -> None:
    """Its farewell has the header, too: without it the browser would be a visitor's."""
    pages = [open_tab(), open_tab()]
    for page in pages:
        page.evaluate("(url) => comet.fetch(url).then(() => null)", f"{service.address.url}/mine")
    left, stays = service.processes
    done = threading.Event()
    left.on_close(lambda _: done.set())
    pages[0].goto("about:blank")
    assert done.wait(PATIENCE / 1000)
    assert (stays.closed, stays.user) == (False, "ada")
    assert dict(service.requests)["close"] == "Bearer ada's"


@only_cross_site
def test_another_server_is_not_told_the_header(
    service: Service, open_tab: OpenTab, origin: str
) -> None:
    page = open_tab()
    follow(page, "news")
    page.wait_for_function("consumers.news.position")
    other = Service(origin)
    far = other.comet.create(scope=SITE, name="far")
    with serve(other) as other.address:
        reference = {"url": other.url, "channel": "far", "position": "now"}
        page.evaluate("(one) => follow('far', (told) => comet.open(one, told))", reference)
        wait_for_listeners(far, 1, PATIENCE / 1000)
        assert other.requests == [("socket", None)]
        status = "(url) => comet.fetch(url).then((answer) => answer.status)"
        assert page.evaluate(status, f"{other.address.url}/mine") == 403
        assert dict(other.requests)["mine"] is None
        page.goto("about:blank")


def test_headers_that_are_no_function_are_a_type_error(open_tab: OpenTab, service: Service) -> None:
    page = open_tab()
    message = page.evaluate(
        """async (url) => {
            const { connect } = await import(`${url}/comet.js`)
            try {
                connect({ url, headers: "Bearer x" })
            } catch (error) {
                return [error.name, error.message]
            }
        }""",
        service.url,
    )
    assert message == ["TypeError", "expected headers to be a function, got Bearer x"]
