"""Where Chromium and Firefox differ: pages that are left and come back to, and servers that pause.

Tests of other files that are marked `firefox` run in both browsers, too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from asgi_comet import Channel, ClientProcess, Comet, CometMiddleware
from asgi_comet.testing import wait_for_listeners
from tests.kit.followers import HERE as CLIENTS
from tests.kit.following import CONNECT, PATIENCE, Network, Tab, own_process
from tests.kit.own_server import Server
from tests.kit.serving import Address, Held, serve

pytestmark = [pytest.mark.browser, pytest.mark.firefox]


def test_the_demo_loads_without_an_error_on_the_console(demo: str, page: Page) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.goto(demo)
    expect(page.locator("#state")).to_have_attribute("data-state", "online")
    expect(page.locator("#cpu-value")).not_to_be_empty()
    assert [line for line in said if line.startswith(("error", "warning"))] == []


# A page that is left


def noted_closing(process: ClientProcess) -> threading.Event:
    """Return an event that is set when the process closes."""
    closed = threading.Event()
    process.on_close(lambda _: closed.set())
    return closed


def test_a_tab_that_is_closed_closes_its_process(
    tab: Tab, network: Network, address: Address, news: Channel[Any]
) -> None:
    """Firefox stops the scripts of a site whose last tab is closed, even in `pagehide`."""
    context = tab.page.context
    tab.page.goto("about:blank")
    for _ in range(3):
        only = Tab(context.new_page(), address.url)
        process = own_process(only, network)
        only.follow("news")
        only.placed("news")
        closed = noted_closing(process)
        only.page.close()
        assert closed.wait(PATIENCE / 1000)


HIDE = """() => {
    Object.defineProperty(document, "hidden", {get: () => true})
    document.dispatchEvent(new Event("visibilitychange"))
}"""

# A poll was asked for and answered, and nothing is asked for now.
POLLED = """() => {
    const entries = performance.getEntriesByType("resource")
    return entries.some(({name, responseEnd}) => /\\/poll\\b/.test(name) && responseEnd)
}"""


TOLD = """<script>
    addEventListener("pageshow", ({persisted}) => {
        window.kept = persisted
        navigator.sendBeacon("/shown")
    })
</script>"""


class Site:
    """Serves a page that was given a channel's position, and is told each time it is shown.

    Attributes:
        published: Every message of the channel.
        shown: Released each time the page is shown.
    """

    def __init__(self, comet: Comet, news: Channel[Any]) -> None:
        self.comet = comet
        self.news = news
        self.published: list[int] = []
        self.shown = threading.Semaphore(0)
        middleware = [Middleware(CometMiddleware, comet=comet)]
        routes = [
            Route("/", self._given),
            Route("/other", self._other),
            Route("/shown", self._shown, methods=["POST"]),
        ]
        self.network = Network(Starlette(routes=routes, middleware=middleware))
        self.url = ""

    def publish(self) -> None:
        """Publish the next number."""
        self.published.append(len(self.published))
        self.news.publish(self.published[-1])

    async def _given(self, request: Request) -> HTMLResponse:
        script = self.comet.script(self.comet.open_process(), news=self.news)
        return HTMLResponse(f"<!doctype html><title>a page</title>{TOLD}{script}")

    async def _shown(self, request: Request) -> Response:
        self.shown.release()
        return Response()

    async def _other(self, request: Request) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>another page</title>")


@pytest.fixture
def site(comet: Comet, news: Channel[Any], page: Page) -> Iterator[Site]:
    site = Site(comet, news)
    with serve(site.network) as address:
        site.url = address.url
        yield site
        page.close()


POSITION = "JSON.parse(document.querySelector('#comet').text).channels.news.position"


@pytest.mark.parametrize("resting", [False, True], ids=["connected", "resting"])
def test_the_way_back_to_a_page_misses_nothing(
    site: Site, browser: Browser, page: Page, resting: bool
) -> None:
    """Firefox keeps a page that has no connection; Playwright has Chromium keep none."""
    site.network.blocked = {"websocket"}
    tab = Tab(page, site.url)
    assert site.shown.acquire(timeout=PATIENCE / 1000)
    tab.follow("news")
    wait_for_listeners(site.news, 1)
    site.publish()
    assert tab.seen("news", 1) == [0]
    if resting:
        page.evaluate(HIDE)
        wait_for_listeners(site.news, 0)
        page.wait_for_function(POLLED)
    page.goto(f"{site.url}/other")
    wait_for_listeners(site.news, 0)
    site.publish()
    page.evaluate("void setTimeout(() => history.back())")
    assert site.shown.acquire(timeout=PATIENCE / 1000)
    # Firefox may still be about to change the page for the one that it kept.
    (kept,) = page.wait_for_function("'kept' in window && [kept]").json_value()
    assert kept == (resting and browser.browser_type.name == "firefox")
    if not kept:  # it was loaded again, perhaps from a cache
        page.evaluate(CONNECT, {})
        tab.follow("news")
        site.publish()
    expected = site.published[int(page.evaluate(POSITION).partition(".")[2]) :]
    assert tab.seen("news", len(expected)) == expected


# A server that pauses


def test_a_server_that_is_frozen_until_clients_give_up_loses_nothing(
    own_server: Server, page: Page
) -> None:
    own_server.start()
    page.clock.install()
    tab = Tab(page, own_server.url)
    tab.follow("news")
    tab.placed("news")
    own_server.publish("news", 0)
    assert tab.seen("news", 1) == [0]
    assert own_server.process is not None
    own_server.process.send_signal(signal.SIGSTOP)
    try:
        kind = {"Content-Type": "application/json"}
        held = Held(lambda: own_server.address.request("POST", "/publish/news", "1", kind))
        page.clock.fast_forward(36_000)
        page.wait_for_function("comet.status !== 'online'")
    finally:
        own_server.process.send_signal(signal.SIGCONT)
    assert held.answer().status == 204
    page.clock.fast_forward(20_000)
    assert tab.seen("news", 2) == [0, 1]
    page.goto("about:blank")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_an_eventsource_comes_back_after_a_restart(
    own_server: Server, page: Page, number: signal.Signals
) -> None:
    own_server.start()
    page.goto(own_server.url)
    page.add_script_tag(path=CLIENTS / "eventsource.js")
    page.evaluate(
        """() => {
            const source = new EventSource("/comet/events?channel=news")
            follow(source, ["news"], (line) => seen.push(line))
        }"""
    )
    own_server.wait_for_listeners("news", 1)
    own_server.publish("news", "before")
    page.wait_for_function("seen.includes('news before')")
    own_server.stop(number)
    own_server.start()
    page.wait_for_function("seen.includes(':full news')")
    own_server.wait_for_listeners("news", 1)
    own_server.publish("news", "after")
    page.wait_for_function("seen.at(-1) === 'news after'")
    page.goto("about:blank")
